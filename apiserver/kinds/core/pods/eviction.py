"""pods/eviction: a delete that asks the PodDisruptionBudgets first.

A budget's status says how many of its pods may go now. An eviction takes one of these by compare-and-swap and notes
the pod's name there, before it deletes the pod; the disruption controller (controllers/disruption.py) works out the
number anew once it has seen the pod go. A budget whose controller has not looked at its present spec allows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apiserver.kinds.cells import condition, spec_of, status_of
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.request import CREATE, Admission, Attributes, Context, DeleteOptions, WriteOptions, own_context
from navarch.api.errors import (
    BadRequest,
    Forbidden,
    InternalError,
    NotFound,
    TooManyRequests,
    not_supported,
    resource_invalid,
)
from navarch.api.kinds import Kind
from navarch.api.pods import TERMINAL_PHASES
from navarch.api.selectors import selector_matches
from navarch.api.times import format_time

Tree = dict[str, Any]
MAX_DISRUPTED = 2000
RETRY_SECONDS = 10
MANY = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
WOULD_VIOLATE = "Cannot evict pod as it would violate the pod's disruption budget."
AS_RESOURCE = Kind("", "v1", "Eviction", "pods")
MANAGER = WriteOptions(field_manager="kube-apiserver")


@dataclass(frozen=True)
class Evictor:
    """Serves pods/eviction."""

    resources: Resources
    admission: Admission

    @property
    def _budgets(self) -> Resource:
        return self.resources["policy", "poddisruptionbudgets"]

    async def evict(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        """Deletes the pod with the options of the Eviction. Raises TooManyRequests if a budget forbids it for now."""
        values = (body.get("deleteOptions") or {}).get("dryRun") or []
        if any(value != "All" for value in values):
            raise resource_invalid("DeleteOptions", "policy", "", [not_supported("dryRun", values, ["All"])])
        dry_run = query.get("dryRun") == "All" or bool(values)
        attributes = Attributes(context, CREATE, AS_RESOURCE, namespace, name, "eviction", body, dry_run=dry_run)
        await self.admission.admit(attributes)
        metadata, options = body.get("metadata") or {}, body.get("deleteOptions") or {}
        if metadata.get("name") and metadata["name"] != name:
            raise BadRequest("name in URL does not match name in Eviction object")
        preconditions = options.get("preconditions") or {}
        await self.admission.validate(attributes)
        pods = self.resources["", "pods"]
        pod = await pods.get_tree(namespace, name)
        budget = self._look(namespace, pod)
        if budget:
            await self._take(namespace, budget, name, dry_run)
        if not dry_run and pod["metadata"].get("deletionTimestamp") is None:
            await self._mark(context, namespace, name)
        await pods.delete(
            context,
            namespace,
            name,
            DeleteOptions(
                dry_run,
                options.get("gracePeriodSeconds"),
                options.get("propagationPolicy"),
                options.get("orphanDependents"),
                preconditions.get("uid") or pod["metadata"].get("uid"),
                preconditions.get("resourceVersion"),
            ),
            admit=False,  # as upstream: a webhook on DELETE of pods does not hear of evictions, one on pods/eviction does
        )
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}

    def _look(self, namespace: str, pod: Tree) -> str:
        """The name of the budget that has to allow it, "" if none has to. Raises InternalError if several would have to."""
        if status_of(pod).get("phase") in (*TERMINAL_PHASES, "Pending") or pod["metadata"].get("deletionTimestamp"):
            return ""
        labels = pod["metadata"].get("labels") or {}
        budgets = [entry.tree() for entry in self._budgets.cache.list(self._budgets.prefix, namespace).entries]
        matching = [b for b in budgets if selector_matches(spec_of(b).get("selector"), labels)]
        if len(matching) > 1:
            raise InternalError(MANY)
        if not matching:
            return ""
        if (condition(pod, "Ready") or {}).get("status") != "True":
            spec, status = spec_of(matching[0]), status_of(matching[0])
            needs, has = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
            if spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow" or (needs > 0 and has >= needs):
                return ""
        return str(matching[0]["metadata"]["name"])

    async def _take(self, namespace: str, budget: str, pod: str, dry_run: bool) -> None:
        """One disruption of the budget, for this pod. Raises TooManyRequests, Forbidden."""
        now = format_time(self._budgets.world.now())

        def change(old: Tree) -> Tree:
            status = old.setdefault("status", {})
            allowed, disrupted = status.get("disruptionsAllowed") or 0, status.get("disruptedPods") or {}
            if (status.get("observedGeneration") or 0) < (old["metadata"].get("generation") or 0):
                raise _refused(f"The disruption budget {budget} is still being processed by the server.")
            if allowed < 0:
                raise Forbidden(f'pods "{budget}" is forbidden: pdb disruptions allowed is negative')
            if len(disrupted) > MAX_DISRUPTED:
                why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
                raise Forbidden(f'pods "{budget}" is forbidden: {why}')
            if allowed == 0:
                needs, has = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
                text = f"The disruption budget {budget} needs {needs} healthy pods and has {has} currently"
                failed = condition(old, "DisruptionAllowed") or {}
                if failed.get("status") == "False" and failed.get("reason") == "SyncFailed" and failed.get("message"):
                    text += f" ({failed['message']})"
                raise _refused(text)
            status["disruptionsAllowed"] = allowed - 1
            status["disruptedPods"] = disrupted | {pod: now}
            if allowed == 1:
                new = {
                    "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                    "observedGeneration": status.get("observedGeneration") or 0, "lastTransitionTime": now,
                }  # fmt: skip
                others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionAllowed"]
                status["conditions"] = [*others, new]
            return old

        options = WriteOptions(dry_run=True) if dry_run else MANAGER
        own = own_context(self._budgets.world)
        await self._budgets.change(own, namespace, budget, change, options, subresource="status", admit=False)

    async def _mark(self, context: Context, namespace: str, name: str) -> None:
        """Says in the pod's status why it goes."""
        now = format_time(context.world.now())

        def change(pod: Tree) -> Tree:
            status = pod.setdefault("status", {})
            target = {
                "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastTransitionTime": now,
            }  # fmt: skip
            if (condition(pod, "DisruptionTarget") or {}).get("status") != "True":
                others = [c for c in status.get("conditions") or () if c.get("type") != "DisruptionTarget"]
                status["conditions"] = [*others, target]
            return pod

        try:
            pods = self.resources["", "pods"]
            await pods.change(context, namespace, name, change, MANAGER, subresource="status", admit=False)
        except NotFound:
            return


def _refused(text: str) -> TooManyRequests:
    details = {"causes": [{"reason": "DisruptionBudget", "message": text}], "retryAfterSeconds": RETRY_SECONDS}
    return TooManyRequests(WOULD_VIOLATE, details)
