"""Which admission plugins run, and with which options: the flags and the AdmissionConfiguration file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

Tree = dict[str, Any]
VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1alpha1", "apiserver.k8s.io/v1alpha1")


def chosen(
    available: Sequence[str], usual: Collection[str], enabled: Collection[str], disabled: Collection[str]
) -> list[str]:
    """The plugins to run, in the order of ``available``. Raises ValueError."""
    for flag, names in (("enable", enabled), ("disable", disabled)):
        for name in names:
            if name not in available:
                raise ValueError(f'{flag}-admission-plugins plugin "{name}" is unknown')
    if both := [name for name in enabled if name in disabled]:
        raise ValueError(f"[{' '.join(both)}] in enable-admission-plugins and disable-admission-plugins overlapped")
    return [name for name in available if name in enabled or (name in usual and name not in disabled)]


def plugin_options(file: str) -> dict[str, Tree]:
    """The options of each plugin in an AdmissionConfiguration file; none without a file. Raises ValueError, OSError."""
    if not file:
        return {}
    path = Path(file)
    tree = _load(path)
    if tree.get("kind") != "AdmissionConfiguration" or tree.get("apiVersion") not in VERSIONS:
        raise ValueError(f"{file}: expected {VERSIONS[0]}, Kind=AdmissionConfiguration")
    out: dict[str, Tree] = {}
    for i, plugin in enumerate(tree.get("plugins") or ()):
        name = plugin.get("name")
        if not name:
            raise ValueError(f"{file}: plugins[{i}].name: Required value")
        if unknown := sorted(plugin.keys() - {"name", "path", "configuration"}):
            raise ValueError(f'{file}: unknown field "plugins[{i}].{unknown[0]}"')
        if plugin.get("configuration") is not None:
            out[name] = plugin["configuration"]
        elif plugin.get("path"):
            out[name] = _load(path.parent / plugin["path"])
    return out


def _load(path: Path) -> Tree:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: not a mapping")
    return tree
