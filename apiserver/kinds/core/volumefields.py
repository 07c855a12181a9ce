"""The fields that PersistentVolumes and their claims share: access modes, volume mode, class, phase."""

from __future__ import annotations

from collections.abc import Sequence

from apiserver.kinds.cells import meta_of, spec_of, status_of
from apiserver.registry.strategy import Tree
from navarch.api import wellknown
from navarch.api.errors import Cause, forbidden, not_supported, required

CLASS_ANNOTATION = wellknown.BETA_STORAGE_CLASS
MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
VOLUME_MODES = ("Block", "Filesystem")


def modes_text(modes: Sequence[str] | None) -> str:
    """``RWO,ROX``: known modes, each once, in Kubernetes' order."""
    return ",".join(short for mode, short in MODES.items() if mode in (modes or ()))


def access_modes(spec: Tree, path: str, missing: str = "") -> list[Cause]:
    modes = spec.get("accessModes") or []
    out = [not_supported(f"{path}.accessModes", mode, list(MODES)) for mode in modes if mode not in MODES]
    if not modes:
        out.append(required(f"{path}.accessModes", missing))
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        text = "may not use ReadWriteOncePod with other access modes"
        out.append(forbidden(f"{path}.accessModes", text))
    return out


def volume_mode(spec: Tree, path: str) -> list[Cause]:
    mode = spec.get("volumeMode")
    if mode is None or mode in VOLUME_MODES:
        return []
    return [not_supported(f"{path}.volumeMode", mode, VOLUME_MODES)]


def storage_class(obj: Tree) -> str:
    """The class of a volume or a claim, by its old name too."""
    old = (meta_of(obj).get("annotations") or {}).get(CLASS_ANNOTATION)
    return old or spec_of(obj).get("storageClassName") or ""


def phase_cell(obj: Tree) -> str:
    return "Terminating" if meta_of(obj).get("deletionTimestamp") else status_of(obj).get("phase") or ""
