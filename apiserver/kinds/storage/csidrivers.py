"""CSIDrivers: what a storage driver can do and wants to be told."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, fill, kind, name_cell, spec_of
from apiserver.kinds.checks import (
    immutable,
)
from apiserver.kinds.storage.drivers import MAX_DRIVER_NAME
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api import names
from navarch.api.errors import Cause, duplicate, invalid, not_supported

FS_GROUP = ("File", "None", "ReadWriteOnceWithFSType")
LIFECYCLES = ("Ephemeral", "Persistent")
MIN_TOKEN_SECONDS = 600


class CSIDriverStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "CSIDriver")
    unconditional_update = False
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
        audiences: list[str] = []
        for i, request in enumerate(spec.get("tokenRequests") or ()):
            at, audience, seconds = f"spec.tokenRequests[{i}]", request.get("audience") or "", request.get("expirationSeconds")
            if audience in audiences:
                out.append(duplicate(f"{at}.audience", audience))
            audiences.append(audience)
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
