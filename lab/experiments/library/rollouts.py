"""Measures of rollouts: how long a workload takes from a new template until all of its pods are of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from lab.experiments.library.base import Base, unit
from lab.experiments.state import Tree, complete, split


class Rollouts(Base):
    @unit("seconds, a number a rollout")
    def rollouts(self, reference: str) -> list[float]:
        """From a change of a workload's pod template until it is rolled out, as `kubectl rollout status` sees it; those that
        never were, or that another change overtook, are not in it."""
        out: list[float] = []
        template: object = None
        begun: float | None = None
        for time, tree in self._versions(reference):
            new = tree["spec"].get("template")
            if template is not None and new != template:
                begun = time
            template = new
            if begun is not None and complete(tree, "deployment" in reference):
                out.append(time - begun)
                begun = None
        return out

    @unit("rollouts")
    def rollouts_begun(self, reference: str) -> int:
        """Changes of a workload's pod template after it was made."""
        templates = [tree["spec"].get("template") for _, tree in self._versions(reference)]
        return sum(a != b for a, b in pairwise(templates))

    def _versions(self, reference: str) -> Iterator[tuple[float, Tree]]:
        namespace, resource, name = split(reference)
        for change in self.recording.of(resource):
            meta = change.object["metadata"]
            if meta["name"] == name and meta.get("namespace", namespace) == namespace and change.type != "DELETED":
                yield change.time, change.object
