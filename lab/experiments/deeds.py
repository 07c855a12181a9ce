"""Deeds of a step on a cluster: what its operator does."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import yaml

from controllers.deployment.revisions import TEMPLATE_HASH
from lab.experiments.faults import ENDS, Faults
from lab.experiments.state import RESOURCES, Tree, is_live, split
from navarch.api import kinds
from navarch.api.errors import NotFound, StatusError
from navarch.api.times import format_time
from navarch.api.wellknown import RESTARTED_AT, REVISION

RETRY = 5.0  # seconds after which an eviction that a budget refused is tried again, as kubectl drain does
KINDS = {kind.resource: kind for kind in kinds.BY_GVK.values() if kind.resource in RESOURCES.values()}


class Deeds(Faults):
    """On one cluster; each deed is a method of its name."""

    folder = ""
    """In it commands run."""

    async def do(self, deeds: Mapping[str, Any]) -> None:
        for name, value in deeds.items():
            if name in ENDS:
                await self.end(name, str(value))
            else:
                await getattr(self, name.replace("-", "_"))(value)

    async def apply(self, what: Any) -> None:
        """A text of manifests, one object, or a list of them."""
        text = what if isinstance(what, str) else yaml.safe_dump_all(what if isinstance(what, list) else [what])
        await self.cluster.apply(text)

    async def patch(self, patches: Mapping[str, Any]) -> None:
        for reference, body in patches.items():
            await self._patch(reference, body, "strategic")

    async def _patch(self, reference: str, body: Any, how: str) -> None:
        namespace, resource, name = split(reference)
        where = None if resource == "nodes" else namespace
        await self.cluster.client.tree(KINDS[resource]).patch(name, where, body, how)

    async def scale(self, replicas: Mapping[str, int]) -> None:
        await self.patch({reference: {"spec": {"replicas": int(n)}} for reference, n in replicas.items()})

    async def set_image(self, images: Mapping[str, str | Mapping[str, str]]) -> None:
        """By reference: one image for all containers, or images by container."""
        for reference, image in images.items():
            workload = self.state.object(reference)
            if workload is None:
                raise ValueError(f"set-image: there is no {reference}")
            names = [c["name"] for c in workload["spec"]["template"]["spec"]["containers"]]
            by_container = image if isinstance(image, dict) else dict.fromkeys(names, image)
            if wrong := [name for name in by_container if name not in names]:  # a patch would add it
                raise ValueError(f"set-image: {reference} has no container {wrong[0]!r}; it has {', '.join(names)}")
            listed = [{"name": n, "image": i} for n, i in by_container.items()]
            await self.patch({reference: {"spec": {"template": {"spec": {"containers": listed}}}}})

    async def restart(self, reference: str) -> None:
        stamp = format_time(self.cluster.world.now())
        note = {"metadata": {"annotations": {RESTARTED_AT: stamp}}}
        await self.patch({reference: {"spec": {"template": note}}})

    async def undo(self, what: str | Mapping[str, int]) -> None:
        """Puts the template before the newest back, or with ``reference: revision`` that one, as ``kubectl rollout undo``."""
        for reference, number in ({what: 0} if isinstance(what, str) else what).items():
            past = self._templates(reference)
            if number and number not in past:
                raise ValueError(f"undo: {reference} has no revision {number}; revisions: {', '.join(map(str, past))}")
            if not number and len(past) < 2:
                raise ValueError(f"undo: {reference} has no earlier revision")
            template = past[number or sorted(past)[-2]]
            await self._patch(reference, [{"op": "replace", "path": "/spec/template", "value": template}], "json")

    def _templates(self, reference: str) -> dict[int, Tree]:
        """By revision: the pod templates that a workload has had."""
        owner = self.state.object(reference)
        if owner is None:
            raise ValueError(f"undo: there is no {reference}")
        uid = owner["metadata"]["uid"]
        out: dict[int, Tree] = {}
        for resource in ("replicasets", "controllerrevisions"):
            for one in self.state.all(resource):
                meta = one["metadata"]
                if not any(o["uid"] == uid for o in meta.get("ownerReferences") or ()):
                    continue
                if resource == "replicasets":
                    template = copy.deepcopy(one["spec"]["template"])
                    (template.get("metadata", {}).get("labels") or {}).pop(TEMPLATE_HASH, None)
                    out[int((meta.get("annotations") or {}).get(REVISION, 0))] = template
                else:
                    template = dict(one["data"]["spec"]["template"])
                    template.pop("$patch", None)
                    out[int(one["revision"])] = template
        return out

    async def load(self, rates: Mapping[str, Any]) -> None:
        """Changes the rate of the load on each service."""
        for service, rate in rates.items():
            await self.cluster.change_load(service, str(rate))

    async def run(self, command: str | list[str]) -> None:
        """Runs a command in the file's folder. Raises ValueError if it fails. A text goes to a shell."""
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(map(str, command))
        await self.cluster.command(argv, self.folder)

    async def pause(self, reference: str) -> None:
        await self.patch({reference: {"spec": {"paused": True}}})

    async def resume(self, reference: str) -> None:
        await self.patch({reference: {"spec": {"paused": None}}})

    async def delete(self, reference: str) -> None:
        namespace, resource, name = split(reference)
        await self.cluster.client.tree(KINDS[resource]).delete(name, None if resource == "nodes" else namespace)

    async def cordon(self, node: str) -> None:
        await self.patch({f"node/{self.node(node)}": {"spec": {"unschedulable": True}}})

    async def uncordon(self, node: str) -> None:
        await self.patch({f"node/{self.node(node)}": {"spec": {"unschedulable": None}}})

    async def drain(self, node: str) -> None:
        """Cordons it, then evicts what no DaemonSet owns, again and again where a budget refuses; it goes on meanwhile."""
        name = self.node(node)
        await self.cordon(name)
        pods = [p for p in self.state.pods(f"node/{name}") if is_live(p)]
        for pod in pods:
            owners = pod["metadata"].get("ownerReferences") or ()
            if not any(o["kind"] == "DaemonSet" for o in owners):
                self._start(self._evict(pod["metadata"]["namespace"], pod["metadata"]["name"]))

    async def evict(self, reference: str) -> None:
        namespace, _, name = split(reference)
        self._start(self._evict(namespace, name))

    async def _evict(self, namespace: str, name: str) -> None:
        body = b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s"}}' % name.encode()
        while True:
            try:
                await self.cluster.client.request("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", body=body)
                return
            except NotFound:
                return
            except StatusError as error:
                if error.code != 429:
                    raise
            await self.cluster.world.sleep(RETRY)
