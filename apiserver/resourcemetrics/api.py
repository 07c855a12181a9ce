"""Serves metrics.k8s.io/v1beta1 as metrics-server would, unless an APIService names somebody else for it."""

from __future__ import annotations

from typing import Any

import orjson

from apiserver.cache.cache import Cache, Entry
from apiserver.http import options as opts
from apiserver.http import shapes as common
from apiserver.http.agents import Agents
from apiserver.request import Context
from apiserver.resourcemetrics import shapes
from apiserver.resourcemetrics.shapes import GROUP, NODES, PODS, VERSION, Tree
from apiserver.resourcemetrics.summaries import Summaries
from apiserver.wire.asgi import Request
from apiserver.wire.negotiation import PLAIN, Accept, accept
from navarch.api.errors import MethodNotAllowed, NotFound, resource_not_found
from navarch.api.kinds import Kind
from navarch.world import World


class ResourceMetrics:
    """The extension; see :class:`apiserver.http.extension.Extension`."""

    def __init__(self, world: World, cache: Cache, agents: Agents) -> None:
        self.cache = cache
        self._summaries = Summaries(world, cache, agents)

    def discovered(self) -> Tree:
        return shapes.discovered()

    def openapi_url(self) -> str:
        return ""

    def openapi_v2(self) -> tuple[str, Tree]:
        return "", {}

    async def openapi(self, request: Request) -> None:
        raise NotFound("the server could not find the requested resource")

    async def handle(self, request: Request, context: Context) -> None:
        info = context.info
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        if not info.is_resource:
            return await self._send(request, PLAIN, shapes.resource_list())
        kind = {"nodes": NODES, "pods": PODS}.get(info.resource)
        if kind is None or info.subresource or bool(info.namespace) > kind.namespaced:
            raise NotFound("the server could not find the requested resource")
        if info.verb not in shapes.VERBS:
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        form = accept(request.header(b"accept"))
        await self.cache.current()
        if info.verb == "get":
            await self._get(request, kind, info.namespace, info.name, form)
        else:
            await self._list(request, kind, info.namespace, form)

    async def _get(self, request: Request, kind: Kind, namespace: str, name: str, form: Accept) -> None:
        if kind.namespaced and not namespace:
            raise NotFound("the server could not find the requested resource")
        entry = self.cache.get(f"/registry/{kind.resource}/", namespace or None, name)
        trees = await self._metrics(kind, [entry] if entry is not None else [])
        if not trees:
            raise resource_not_found(kind.resource, GROUP, name)
        tree = trees[0]
        if form.shape == "Table":
            tree = shapes.table(trees, form.version, common.include_object(request.query))
        elif form.shape:
            tree = common.partial(tree)
        await self._send(request, form, tree)

    async def _list(self, request: Request, kind: Kind, namespace: str, form: Accept) -> None:
        options = opts.list_options(request.query)
        entries = self.cache.list(
            f"/registry/{kind.resource}/", namespace or None,
            labels=None if options.labels.empty else options.labels,
            fields=None if options.fields.empty else options.fields,
        ).entries  # fmt: skip
        trees = await self._metrics(kind, entries)
        if form.shape == "Table":
            tree = shapes.table(trees, form.version, common.include_object(request.query))
        elif form.shape:
            items = [common.partial(item) for item in trees]
            tree = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items}
        else:
            tree = shapes.listed(kind, trees)
        await self._send(request, form, tree)

    async def _metrics(self, kind: Kind, entries: list[Entry]) -> list[Tree]:
        """The metrics of these nodes or pods, as far as known. Only the nodes that they concern are asked."""
        objects = [entry.tree() for entry in entries]
        if kind is NODES:
            summaries = await self._summaries.of(objects)
            trees = [
                shapes.node_metrics(node, summary) if (summary := summaries.get(node["metadata"]["name"])) else None
                for node in objects
            ]
            return [one for one in trees if one is not None]
        homes = dict.fromkeys(str(pod["spec"].get("nodeName") or "") for pod in objects)
        nodes = [entry.tree() for name in homes if (entry := self.cache.get("/registry/nodes/", None, name))]
        summaries = await self._summaries.of(nodes)
        trees = [
            shapes.pod_metrics(pod, summary) if (summary := summaries.get(pod["spec"].get("nodeName") or "")) else None
            for pod in objects
        ]
        return [one for one in trees if one is not None]

    @staticmethod
    async def _send(request: Request, form: Accept, tree: Any) -> None:
        data = common.encode(tree, form) if form is not PLAIN else orjson.dumps(tree)
        await request.reply(200, data, form.content_type)


OWN = (GROUP, VERSION)
