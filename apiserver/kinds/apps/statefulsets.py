"""StatefulSets: pods with names and volumes of their own, made and ended in order."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.apps.workloads import WIDE, Workload, validate_selected_template, wide_cells
from apiserver.kinds.cells import age_cell, at, fill, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import non_negative
from apiserver.kinds.core.persistentvolumeclaims import default_claim, validate_claim_spec
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.errors import Cause, forbidden, invalid, not_supported, required

ORDERS = ("OrderedReady", "Parallel")
UPDATES = ("OnDelete", "RollingUpdate")
RETENTION = ("Delete", "Retain")
CHANGEABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip
UNCHANGEABLE_TEXT = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)


class StatefulSetStrategy(Workload):
    kind = kind("apps/v1", "StatefulSet")
    counts = ("replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
    columns = (NAME_COLUMN, Column("Ready"), AGE_COLUMN, *WIDE[:2])

    def default(self, obj: Tree) -> None:
        super().default(obj)
        spec = obj["spec"]
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        fill(spec, updateStrategy={}, revisionHistoryLimit=10, persistentVolumeClaimRetentionPolicy={})
        update, retention = spec["updateStrategy"], spec["persistentVolumeClaimRetentionPolicy"]
        if not update.get("type"):
            update["type"] = "RollingUpdate"
        if update["type"] == "RollingUpdate":
            fill(update, rollingUpdate={})
            fill(update["rollingUpdate"], partition=0)
        for field in ("whenDeleted", "whenScaled"):
            if not retention.get(field):
                retention[field] = "Retain"
        for claim in spec.get("volumeClaimTemplates") or ():
            claim.update(apiVersion="v1", kind="PersistentVolumeClaim")
            default_claim(claim)

    def zero_status(self) -> Tree:
        return self._zeros | {"availableReplicas": 0}  # not required, and yet always written

    def prepare_create(self, context: Context, obj: Tree) -> None:
        super().prepare_create(context, obj)
        _drop_alpha(obj)

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        super().prepare_update(context, obj, old)
        _drop_alpha(obj)

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        return names.dns_label(name.rstrip("-") if prefix else name)

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        order = spec.get("podManagementPolicy") or ""
        out: list[Cause] = []
        if not order:
            out.append(required("spec.podManagementPolicy"))
        elif order not in ORDERS:
            out.append(invalid("spec.podManagementPolicy", order, "must be 'OrderedReady' or 'Parallel'"))
        out += _update(spec.get("updateStrategy") or {})
        retention = spec.get("persistentVolumeClaimRetentionPolicy") or {}
        for field in ("whenDeleted", "whenScaled"):
            if retention.get(field) not in RETENTION:
                here = f"spec.persistentVolumeClaimRetentionPolicy.{field}"
                out.append(not_supported(here, retention.get(field) or "", RETENTION))
        out += non_negative(spec.get("replicas"), "spec.replicas")
        out += non_negative(spec.get("minReadySeconds"), "spec.minReadySeconds")
        out += non_negative((spec.get("ordinals") or {}).get("start"), "spec.ordinals.start")
        return out + _claim_causes(spec) + _template_causes(spec)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was = spec_of(obj), spec_of(old)
        out = self.validate(obj)
        # Both checks are new in 1.34: what was stored before them may stay wrong.
        for check in (_claim_causes, _template_causes):
            if check(was):
                tolerated = check(new)
                out = [c for c in out if c not in tolerated]
        if any(new.get(f) != was.get(f) for f in sorted(new.keys() | was.keys()) if f not in CHANGEABLE):
            out.append(forbidden("spec", UNCHANGEABLE_TEXT))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        ready = f"{status.get('readyReplicas') or 0}/{spec.get('replicas') or 0}"
        return [name_cell(obj), ready, age_cell(obj, now), *wide_cells(spec)[:2]]


def _template_causes(spec: Tree) -> list[Cause]:
    """Validates the template. A claim template is a volume that containers may mount; a volume of the template that has
    the same name counts for nothing."""
    claims = [at(claim, "metadata", "name") or "" for claim in spec.get("volumeClaimTemplates") or ()]
    template = spec.get("template")
    if claims and template is not None:
        pod = template.get("spec") or {}
        volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in dict.fromkeys(claims)]
        volumes += [volume for volume in pod.get("volumes") or () if volume.get("name") not in claims]
        spec = {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}}
    return validate_selected_template(spec, empty="statefulset", owner="StatefulSet")


def _claim_causes(spec: Tree) -> list[Cause]:
    out: list[Cause] = []
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        out += validate_claim_spec(spec_of(claim), f"spec.volumeClaimTemplates[{i}].spec")
    return out


def _drop_alpha(obj: Tree) -> None:
    """maxUnavailable is alpha at this API level, and its feature gate is off."""
    ((spec_of(obj).get("updateStrategy") or {}).get("rollingUpdate") or {}).pop("maxUnavailable", None)


def _update(update: Tree) -> list[Cause]:
    here, rolling = "spec.updateStrategy", update.get("rollingUpdate")
    match update.get("type"):
        case None | "":
            return [required(here)]
        case "OnDelete":
            if rolling is None:
                return []
            return [invalid(f"{here}.rollingUpdate", rolling, "only allowed for updateStrategy 'RollingUpdate'")]
        case "RollingUpdate":
            return non_negative((rolling or {}).get("partition"), f"{here}.rollingUpdate.partition")
        case _:
            return [invalid(here, update, "must be 'RollingUpdate' or 'OnDelete'")]
