"""Where a driver's volumes can be: from the nodes' labels to what the driver is asked for, and from its answer to a volume's
node affinity. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from navarch.api.types import core_v1, storage_v1

Segments = dict[str, str]


def of_node(driver: str, csi_node: storage_v1.CSINode | None, node: core_v1.Node | None) -> Segments | None:
    """The place of a node in a driver's topology; None if the driver is not there or the node's labels are not there yet."""
    entry = next((d for d in csi_node.spec.drivers if d.name == driver), None) if csi_node is not None else None
    labels = (node.metadata.labels or {}) if node is not None else {}
    if entry is None or any(key not in labels for key in entry.topology_keys or ()):
        return None
    return {key: labels[key] for key in entry.topology_keys or ()}


def distinct(places: Iterable[Segments | None]) -> list[Segments]:
    out: list[Segments] = []
    for place in places:
        if place and place not in out:
            out.append(place)
    return out


def allowed(place: Segments, terms: Sequence[core_v1.TopologySelectorTerm]) -> bool:
    """Whether a class's allowedTopologies have the place."""
    return not terms or any(
        all(place.get(e.key) in e.values for e in term.match_label_expressions or ()) for term in terms
    )


def affinity(places: Sequence[Segments]) -> core_v1.VolumeNodeAffinity | None:
    """The node affinity of a volume that can be reached from any of these places."""
    terms = [
        core_v1.NodeSelectorTerm(
            match_expressions=[
                core_v1.NodeSelectorRequirement(key=key, operator="In", values=[value]) for key, value in sorted(place.items())
            ]
        )
        for place in places
        if place
    ]
    return core_v1.VolumeNodeAffinity(required=core_v1.NodeSelector(node_selector_terms=terms)) if terms else None


def is_at(volume: core_v1.PersistentVolume, place: Segments | None) -> bool:
    """Whether a volume can be reached from a place; one without affinity can from everywhere."""
    required = volume.spec.node_affinity.required if volume.spec.node_affinity else None
    if required is None:
        return True
    return place is not None and any(
        all(e.operator == "In" and place.get(e.key) in (e.values or ()) for e in term.match_expressions or ())
        for term in required.node_selector_terms
    )
