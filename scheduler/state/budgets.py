"""Which pods preemption should spare: those whose PodDisruptionBudgets allow no disruption more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from navarch.api import selectors
from navarch.api.types import policy_v1
from navarch.client.informer import SharedInformers
from scheduler.state.pods import PodInfo


class Budgets:
    """``changed`` is called when an answer may have changed."""

    def __init__(self, informers: SharedInformers, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._budgets = informers.informer(policy_v1.PodDisruptionBudget)
        self._budgets.add_handler(self._on_change)

    def _on_change(self, kind: str, old: Any, new: Any) -> None:
        if old is None or kind == "DELETED" or (old.spec, old.status) != (new.spec, new.status):
            self._changed()

    def violating(self, pods: Sequence[PodInfo]) -> list[bool]:
        """For each pod, whether deleting it (after those before it) would break a budget.

        A pod whose eviction the budget has granted already (status.disruptedPods) breaks none.
        """
        if not len(self._budgets) or not pods:
            return [False] * len(pods)
        # [selector, disruptions still allowed, pods that are being disrupted], by namespace
        budgets: dict[str, list[list[Any]]] = {}
        for namespace in dict.fromkeys(p.namespace for p in pods):
            for budget in self._budgets.list(namespace):
                selector = selectors.from_struct(budget.spec.selector)
                if not selector.nothing and not selector.empty:
                    disrupted = budget.status.disrupted_pods or {}
                    allowed = budget.status.disruptions_allowed or 0
                    budgets.setdefault(namespace, []).append([selector, allowed, disrupted])
        out = []
        for pod in pods:
            broken = False
            for entry in budgets.get(pod.namespace, ()):
                selector, _, disrupted = entry
                if selector.matches(pod.labels) and pod.pod.metadata.name not in disrupted:
                    entry[1] -= 1
                    broken = broken or entry[1] < 0
            out.append(broken)
        return out
