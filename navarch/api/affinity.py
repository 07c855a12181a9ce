"""Which nodes a pod may use: node selectors, node affinity, taints and tolerations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from navarch.api.types import core_v1

Labels = Mapping[str, str]


def requirement_matches(requirement: core_v1.NodeSelectorRequirement, values: Labels) -> bool:
    """One ``key operator values`` against labels (or fields) of a node."""
    has = requirement.key in values
    value = values.get(requirement.key, "")
    match requirement.operator:
        case "In":
            return has and value in (requirement.values or ())
        case "NotIn":
            return not has or value not in (requirement.values or ())
        case "Exists":
            return has
        case "DoesNotExist":
            return not has
        case "Gt" | "Lt":
            try:
                left, right = int(value), int((requirement.values or [""])[0])
            except ValueError:
                return False
            return has and (left > right if requirement.operator == "Gt" else left < right)
    return False


def term_matches(term: core_v1.NodeSelectorTerm | None, name: str, labels: Labels) -> bool:
    """All requirements of a term; an empty term matches nothing."""
    if term is None or not (term.match_expressions or term.match_fields):
        return False
    fields = {"metadata.name": name}
    return all(requirement_matches(r, labels) for r in term.match_expressions or ()) and all(
        requirement_matches(r, fields) for r in term.match_fields or ()
    )


def node_selector_matches(selector: core_v1.NodeSelector, name: str, labels: Labels) -> bool:
    """Any term of the selector."""
    return any(term_matches(t, name, labels) for t in selector.node_selector_terms)


def pod_matches_node(spec: core_v1.PodSpec, name: str, labels: Labels) -> bool:
    """spec.nodeSelector and the required part of spec.affinity.nodeAffinity."""
    for key, value in (spec.node_selector or {}).items():
        if labels.get(key) != value:
            return False
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return required is None or node_selector_matches(required, name, labels)


def preferred_weight(spec: core_v1.PodSpec, name: str, labels: Labels) -> int:
    """Sum of the weights of the preferred node affinity terms that match."""
    affinity = spec.affinity.node_affinity if spec.affinity else None
    terms = (affinity.preferred_during_scheduling_ignored_during_execution if affinity else None) or ()
    return sum(t.weight for t in terms if t.weight and term_matches(t.preference, name, labels))


def tolerates(toleration: core_v1.Toleration, taint: core_v1.Taint) -> bool:
    """Whether one toleration covers one taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if (toleration.operator or "Equal") == "Exists":
        return True
    # An empty key with Equal covers only the taint whose key is empty too, which validation does not let exist.
    return (toleration.key or "") == taint.key and (toleration.value or "") == (taint.value or "")


def tolerated(tolerations: Iterable[core_v1.Toleration] | None, taint: core_v1.Taint) -> bool:
    return any(tolerates(t, taint) for t in tolerations or ())


def untolerated(
    tolerations: Sequence[core_v1.Toleration] | None,
    taints: Iterable[core_v1.Taint] | None,
    effects: Sequence[str] = ("NoSchedule", "NoExecute"),
) -> core_v1.Taint | None:
    """The first taint with one of the effects that no toleration covers."""
    return next((t for t in taints or () if t.effect in effects and not tolerated(tolerations, t)), None)


def eviction_seconds(
    tolerations: Sequence[core_v1.Toleration] | None, taints: Iterable[core_v1.Taint] | None
) -> float | None:
    """How long a pod may stay on a node with these NoExecute taints: None for ever, 0 not at all."""
    least: float | None = None
    for taint in taints or ():
        if taint.effect != "NoExecute":
            continue
        covering = [t for t in tolerations or () if tolerates(t, taint)]
        if not covering:
            return 0
        limits = [max(0, t.toleration_seconds) for t in covering if t.toleration_seconds is not None]
        if limits:
            least = min(limits) if least is None else min(least, *limits)
    return least
