"""pods/binding: the scheduler puts a pod on a node. (pods/eviction is in :mod:`.eviction`.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apiserver.kinds.cells import condition
from apiserver.kinds.core.pods.eviction import Evictor
from apiserver.registry.resources import Resources
from apiserver.registry.subresources import Endpoint, EndpointKey
from apiserver.request import CREATE, Admission, Attributes, Context, WriteOptions
from navarch.api.errors import BadRequest, Cause, invalid, precondition, required, resource_conflict, resource_invalid
from navarch.api.kinds import Kind
from navarch.api.times import format_time

Tree = dict[str, Any]
BINDING = Kind("", "v1", "Binding", "bindings")
EVICTION = Kind("policy", "v1", "Eviction", "evictions")


def success(code: int = 201) -> Tree:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}


def is_dry_run(query: Mapping[str, str]) -> bool:
    return query.get("dryRun") == "All"


def _target(body: Tree, name: str) -> str:
    """The node of a Binding. Raises Invalid."""
    target = body.get("target") or {}
    causes: list[Cause] = []
    if target.get("kind") not in (None, "", "Node"):
        causes.append(invalid("target.kind", target["kind"], 'must be empty or "Node"'))
    if not target.get("name"):
        causes.append(required("target.name"))
    if causes:
        raise resource_invalid("Binding", "", name, causes)
    return str(target["name"])


@dataclass(frozen=True)
class Binder:
    """Serves pods/binding, and POST to namespaces/x/bindings."""

    resources: Resources
    admission: Admission

    async def bind(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        """Sets spec.nodeName of an unbound pod, once. Raises Conflict if it is bound already, or being deleted."""
        kind, dry_run = Kind("", "v1", "Binding", "pods"), is_dry_run(query)
        attributes = Attributes(context, CREATE, kind, namespace, name, "binding", body, dry_run=dry_run)
        await self.admission.admit(attributes)
        metadata = body.get("metadata") or {}
        if metadata.get("name") and metadata["name"] != name:
            raise BadRequest("name in URL does not match name in Binding object")
        node, uid, annotations = _target(body, name), metadata.get("uid"), metadata.get("annotations") or {}
        version = metadata.get("resourceVersion")
        now = format_time(context.world.now())

        def change(pod: Tree) -> Tree:
            spec = pod["spec"]
            why = ""
            if uid and pod["metadata"].get("uid") != uid:
                why = precondition("UID", uid, pod["metadata"].get("uid"))
            elif version and pod["metadata"].get("resourceVersion") != version:
                why = precondition("ResourceVersion", version, pod["metadata"].get("resourceVersion"))
            elif pod["metadata"].get("deletionTimestamp"):
                why = f"pod {name} is being deleted, cannot be assigned to a host"
            elif spec.get("nodeName"):
                why = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
            elif spec.get("schedulingGates"):
                why = f"pod {name} has non-empty .spec.schedulingGates"
            if why:
                raise resource_conflict("pods/binding", "", name, why)
            spec["nodeName"] = node
            if annotations:
                pod["metadata"]["annotations"] = (pod["metadata"].get("annotations") or {}) | annotations
            status = pod.setdefault("status", {})
            scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}
            if condition(pod, "PodScheduled") is None:
                status["conditions"] = [*(status.get("conditions") or ()), scheduled]
            else:
                others = status["conditions"]
                status["conditions"] = [scheduled if c.get("type") == "PodScheduled" else c for c in others]
            return pod

        await self.admission.validate(attributes)
        pods = self.resources["", "pods"]
        options = WriteOptions(dry_run=dry_run, field_manager=query.get("fieldManager", ""))
        await pods.change(context, namespace, name, change, options, subresource="binding", admit=False)
        return success()

    async def bind_by_collection(
        self, context: Context, namespace: str, name: str, body: Tree, query: Mapping[str, str]
    ) -> Tree:
        """POST to namespaces/x/bindings: the pod is the Binding's name."""
        name = (body.get("metadata") or {}).get("name") or ""
        if not name:
            raise resource_invalid("Binding", "", "", [required("metadata.name")])
        return await self.bind(context, namespace, name, body, query)


def pod_endpoints(resources: Resources, admission: Admission) -> dict[EndpointKey, Endpoint]:
    binder, evictor = Binder(resources, admission), Evictor(resources, admission)
    return {
        EndpointKey("", "pods", "binding", "create"): Endpoint(binder.bind, BINDING),
        EndpointKey("", "pods", "eviction", "create"): Endpoint(evictor.evict, EVICTION),
        EndpointKey("", "bindings", "", "create"): Endpoint(binder.bind_by_collection, BINDING),
    }
