"""storage.k8s.io: classes of volumes, what attaches them, and the drivers behind them."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, meta_of, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    immutable,
    named,
    non_negative,
    non_negative_quantity,
    one_of,
    validate_label_selector,
)
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required, too_long

DEFAULT_CLASS = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
RECLAIM = ("Delete", "Retain")
BINDING = ("Immediate", "WaitForFirstConsumer")
FS_GROUP = ("File", "None", "ReadWriteOnceWithFSType")
LIFECYCLES = ("Ephemeral", "Persistent")
MAX_PARAMETERS = 512
MAX_PARAMETERS_SIZE = 256 * 1024
MAX_DRIVER_NAME = 63
MAX_NODE_ID = 256
MIN_TOKEN_SECONDS = 600


def is_default_class(obj: Tree) -> bool:
    notes = meta_of(obj).get("annotations") or {}
    return any(notes.get(key) == "true" for key in DEFAULT_CLASS)


def parameters_causes(parameters: Tree | None, path: str, need: bool = False) -> list[Cause]:
    listed = parameters or {}
    if need and not listed:
        return [required(path, "must contain at least one key/value pair")]
    if len(listed) > MAX_PARAMETERS:
        return [too_long(path, MAX_PARAMETERS)]
    out = [invalid(path, key, "field must not be empty.") for key in listed if not key]
    if sum(len(k) + len(v) for k, v in listed.items()) > MAX_PARAMETERS_SIZE:
        out.append(too_long(path, MAX_PARAMETERS_SIZE))
    return out


def driver_name(name: str, path: str) -> list[Cause]:
    if not name:
        return [required(path)]
    out = [too_long(path, MAX_DRIVER_NAME)] if len(name) > MAX_DRIVER_NAME else []
    return out + [invalid(path, name, m) for m in names.dns_subdomain(name.lower())]


class StorageClassStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "StorageClass")
    generation = False
    columns = (
        NAME_COLUMN, Column("Provisioner"), Column("ReclaimPolicy"), Column("VolumeBindingMode"),
        Column("AllowVolumeExpansion"), AGE_COLUMN,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        fill(obj, reclaimPolicy="Delete", volumeBindingMode="Immediate")

    def validate(self, obj: Tree) -> list[Cause]:
        provisioner, policy = obj.get("provisioner") or "", obj.get("reclaimPolicy") or ""
        out: list[Cause] = []
        if not provisioner:
            out.append(required("provisioner"))
        out += [invalid("provisioner", provisioner, m) for m in names.qualified_name(provisioner.lower()) if provisioner]
        out += parameters_causes(obj.get("parameters"), "parameters")
        if policy and policy not in RECLAIM:
            out.append(not_supported("reclaimPolicy", policy, RECLAIM))
        out += one_of(obj.get("volumeBindingMode"), "volumeBindingMode", BINDING)
        return out + _topologies(obj.get("allowedTopologies") or (), "allowedTopologies")

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = []
        for field in ("parameters", "provisioner", "reclaimPolicy"):
            if (obj.get(field) or None) != (old.get(field) or None):
                out.append(forbidden(field, f"updates to {field} are forbidden."))
        out += immutable(obj.get("volumeBindingMode"), old.get("volumeBindingMode"), "volumeBindingMode")
        return out + _topologies(obj.get("allowedTopologies") or (), "allowedTopologies")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        name = name_cell(obj) + (" (default)" if is_default_class(obj) else "")
        return [
            name, obj.get("provisioner") or "", obj.get("reclaimPolicy") or "Delete",
            obj.get("volumeBindingMode") or "Immediate", bool(obj.get("allowVolumeExpansion")), age_cell(obj, now),
        ]  # fmt: skip


def _topologies(terms: Any, path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, term in enumerate(terms):
        keys: list[str] = []
        for j, one in enumerate(term.get("matchLabelExpressions") or ()):
            at, key, values = f"{path}[{i}].matchLabelExpressions[{j}]", one.get("key") or "", one.get("values") or []
            out += [invalid(f"{at}.key", key, m) for m in names.qualified_name(key)]
            if not values:
                out.append(required(f"{at}.values"))
            out += [duplicate(f"{at}.values[{n}]", v) for n, v in enumerate(values) if v in values[:n]]
            if key in keys:
                out.append(duplicate(f"{at}.key", key))
            keys.append(key)
    return out


class VolumeAttachmentStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "VolumeAttachment")
    has_status = True
    generation = False
    columns = (
        NAME_COLUMN, Column("Attacher"), Column("PV"), Column("Node"), Column("Attached", "boolean"), AGE_COLUMN,
    )  # fmt: skip

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = self.zero_status()

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        source = spec.get("source") or {}
        out = named(spec.get("attacher"), "spec.attacher", names.dns_subdomain)
        volume, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
        if inline is None and not volume:
            out.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
        elif inline is not None and volume is not None:
            text = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            out.append(forbidden("spec.source", text))
        return out + named(spec.get("nodeName"), "spec.nodeName", names.dns_subdomain)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return immutable(spec_of(obj), spec_of(old), "spec")

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        return [
            name_cell(obj), spec.get("attacher") or "", (spec.get("source") or {}).get("persistentVolumeName") or "",
            spec.get("nodeName") or "", bool(status_of(obj).get("attached")), age_cell(obj, now),
        ]  # fmt: skip


class CSIDriverStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "CSIDriver")
    columns = (
        NAME_COLUMN, Column("AttachRequired", "boolean"), Column("PodInfoOnMount", "boolean"),
        Column("StorageCapacity", "boolean"), Column("TokenRequests"), Column("RequiresRepublish", "boolean"),
        Column("Modes"), AGE_COLUMN,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        fill(spec, attachRequired=True, podInfoOnMount=False, storageCapacity=False, requiresRepublish=False)
        fill(spec, seLinuxMount=False, fsGroupPolicy="ReadWriteOnceWithFSType")
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        out = super().name_causes(name.lower(), prefix)
        return [*out, names.max_length(MAX_DRIVER_NAME)] if len(name) > MAX_DRIVER_NAME else out

    def validate(self, obj: Tree) -> list[Cause]:
        spec, out = spec_of(obj), []
        policy = spec.get("fsGroupPolicy")
        if policy not in FS_GROUP:
            out.append(not_supported("spec.fsGroupPolicy", policy or "", FS_GROUP))
        seen: list[str] = []
        for i, request in enumerate(spec.get("tokenRequests") or ()):
            at, audience, seconds = f"spec.tokenRequests[{i}]", request.get("audience") or "", request.get("expirationSeconds")
            if audience in seen:
                out.append(duplicate(f"{at}.audience", audience))
            seen.append(audience)
            if seconds is not None and seconds < MIN_TOKEN_SECONDS:
                text = "may not specify a duration less than 10 minutes"
                out.append(invalid(f"{at}.expirationSeconds", seconds, text))
            elif seconds is not None and seconds > 1 << 32:
                text = "may not specify a duration larger than 2^32 seconds"
                out.append(invalid(f"{at}.expirationSeconds", seconds, text))
        for mode in spec.get("volumeLifecycleModes") or ():
            if mode not in LIFECYCLES:
                out.append(not_supported("spec.volumeLifecycleModes", mode, LIFECYCLES))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was, out = spec_of(obj), spec_of(old), self.validate(obj)
        for field in ("attachRequired", "volumeLifecycleModes"):
            out += immutable(new.get(field), was.get(field), f"spec.{field}")
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        tokens = ",".join(r.get("audience") or "" for r in spec.get("tokenRequests") or ()) or "<unset>"
        modes = ",".join(spec.get("volumeLifecycleModes") or ()) or "<none>"
        flags = [bool(spec.get(f)) for f in ("attachRequired", "podInfoOnMount", "storageCapacity", "requiresRepublish")]
        return [name_cell(obj), *flags[:3], tokens, flags[3], modes, age_cell(obj, now)]


class CSINodeStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "CSINode")
    generation = False
    columns = (NAME_COLUMN, Column("Drivers", "integer"), AGE_COLUMN)

    def default(self, obj: Tree) -> None:
        fill(obj.setdefault("spec", {}), drivers=[])

    def validate(self, obj: Tree) -> list[Cause]:
        out: list[Cause] = []
        seen: list[str] = []
        for i, driver in enumerate(spec_of(obj).get("drivers") or ()):
            at, name, node = f"spec.drivers[{i}]", driver.get("name") or "", driver.get("nodeID") or ""
            out += driver_name(name, f"{at}.name")
            if name in seen:
                out.append(duplicate(f"{at}.name", name))
            seen.append(name)
            if not node:
                out.append(required(f"{at}.nodeID"))
            elif len(node) > MAX_NODE_ID:
                out.append(invalid(f"{at}.nodeID", node, f"must be {MAX_NODE_ID} characters or less"))
            out += non_negative((driver.get("allocatable") or {}).get("count"), f"{at}.allocatable.count")
            keys = driver.get("topologyKeys") or []
            for j, key in enumerate(keys):
                if not key:
                    out.append(required(f"{at}.topologyKeys"))
                if key in keys[:j]:
                    out.append(duplicate(f"{at}.topologyKeys", key))
                out += [invalid(f"{at}.topologyKeys", key, m) for m in names.qualified_name(key) if key]
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = self.validate(obj)
        before = {d.get("name"): d for d in spec_of(old).get("drivers") or ()}
        for i, driver in enumerate(spec_of(obj).get("drivers") or ()):
            was = before.get(driver.get("name"))
            if was is not None and {**driver, "allocatable": 0} != {**was, "allocatable": 0}:
                out.append(invalid(f"spec.drivers[{i}]", driver, "field is immutable"))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), len(spec_of(obj).get("drivers") or ()), age_cell(obj, now)]


class CSIStorageCapacityStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "CSIStorageCapacity")
    generation = False
    columns = (NAME_COLUMN, Column("StorageClassName"), Column("Capacity"))

    def validate(self, obj: Tree) -> list[Cause]:
        class_name = obj.get("storageClassName") or ""
        out = [invalid("storageClassName", class_name, m) for m in names.dns_subdomain(class_name)]
        out += validate_label_selector(obj.get("nodeTopology"), "nodeTopology")
        for field in ("capacity", "maximumVolumeSize"):
            if obj.get(field) is not None:
                out += non_negative_quantity(obj[field], field)
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = self.validate(obj)
        for field in ("nodeTopology", "storageClassName"):
            out += immutable(obj.get(field), old.get(field), field)
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        capacity = obj.get("capacity")
        return [name_cell(obj), obj.get("storageClassName") or "", "<unset>" if capacity is None else str(capacity)]


class VolumeAttributesClassStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "VolumeAttributesClass")
    generation = False
    columns = (NAME_COLUMN, Column("DriverName"), AGE_COLUMN)

    def validate(self, obj: Tree) -> list[Cause]:
        out = driver_name(obj.get("driverName") or "", "driverName")
        return out + parameters_causes(obj.get("parameters"), "parameters", need=True)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = []
        if obj.get("driverName") != old.get("driverName"):
            out.append(forbidden("driverName", "updates to driverName are forbidden."))
        if obj.get("parameters") != old.get("parameters"):
            out.append(forbidden("parameters", "updates to parameters are forbidden."))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), obj.get("driverName") or "", age_cell(obj, now)]
