"""Objects that are stored and that nobody acts on yet. Whoever makes one is warned; who implements one deletes its line."""

from __future__ import annotations

from apiserver.kinds.cells import Tree

STORED = "is stored, but nothing acts on it yet"
NOT_YET: dict[tuple[str, str], str] = {
    ("networking.k8s.io", "Ingress"): f"this Ingress {STORED}: install an ingress controller",
}


def not_yet(group: str, kind: str, obj: Tree) -> list[str]:
    """Warnings for whoever creates the object."""
    text = NOT_YET.get((group, kind))
    return [text] if text else []
