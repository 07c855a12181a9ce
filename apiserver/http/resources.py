"""Requests for resources: picks the verb, reads the options and the body, sends the reply in the shape asked for."""

from __future__ import annotations

from typing import Any

import orjson

from apiserver.http import options as opts
from apiserver.http import shapes
from apiserver.http.streams import Streams
from apiserver.http.watch import OpenWatches
from apiserver.offload import YAML_COST
from apiserver.registry import objectmeta
from apiserver.registry.patches import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Patch, supported
from apiserver.registry.resource import Resource
from apiserver.registry.resources import Resources
from apiserver.registry.scale import SCALE, SCALE_SCHEMA
from apiserver.registry.subresources import Endpoint, EndpointKey, Endpoints
from apiserver.request import Context, RequestInfo, WriteOptions
from apiserver.wire.asgi import Request, warning_headers
from apiserver.wire.negotiation import PLAIN, YAML, Accept, accept, media_type
from navarch.api import pruning
from navarch.api.errors import BadRequest, MethodNotAllowed, NotFound, StatusError, UnsupportedMediaType
from navarch.api.kinds import Kind
from navarch.api.schema import schema_of
from navarch.api.serialization import DecodeError, decode_json, go_type, json_duplicates


def no_such_path() -> StatusError:
    return NotFound("the server could not find the requested resource")


def not_allowed() -> StatusError:
    return MethodNotAllowed("the server does not allow this method on the requested resource")


class ResourceHandler:
    """Serves every path below /api/VERSION/ and /apis/GROUP/VERSION/."""

    def __init__(self, resources: Resources, endpoints: Endpoints, streams: Streams, watches: OpenWatches) -> None:
        self.resources, self.endpoints, self.streams, self.watches = resources, endpoints, streams, watches
        self.world = resources.backend.world

    async def handle(self, request: Request, context: Context) -> None:
        """Answers one request that is already authenticated and authorized."""
        info = context.info
        resource = self.resources.served.get((info.group, info.version, info.resource))
        if info.subresource or resource is None:
            key = EndpointKey(info.group, info.resource, info.subresource, info.verb)
            endpoint = self.endpoints.get(key)
            if endpoint is not None and endpoint_version(endpoint, resource) == info.version:
                return await self._endpoint(request, context, endpoint)
            stream = self.streams.get(info)
            if stream is not None:
                return await stream(request, context)
            if any(k[:3] == key[:3] for k in self.endpoints):
                raise not_allowed()
        if resource is None:
            raise no_such_path()
        self._check_scope(info, resource)
        if resource.strategy.deprecation:
            context.warn(resource.strategy.deprecation)
        if info.subresource:
            return await self._subresource(request, context, resource)
        verb = info.verb
        if verb not in resource.strategy.verbs:
            raise not_allowed()
        namespace = info.namespace if resource.kind.namespaced else ""
        match verb:
            case "get":
                form = accept(request.header(b"accept"))
                data = await resource.get(namespace, info.name, request.query.get("resourceVersion", ""))
                await self._reply(request, context, resource, 200, data, form)
            case "list":
                await self._list(request, context, resource, namespace)
            case "watch":
                selection = opts.list_options(request.query)
                form = accept(request.header(b"accept"))
                await self.watches.serve(request, resource, namespace, info.name, selection, form)
            case "create":
                await self._create(request, context, resource, namespace)
            case "update":
                await self._update(request, context, resource, namespace, "")
            case "patch":
                await self._patch(request, context, resource, namespace, "")
            case "delete":
                form = accept(request.header(b"accept"))
                options = await opts.delete_options(request)
                deleted = await resource.delete(context, namespace, info.name, options)
                accepted = not deleted.is_gone and options.orphan_dependents is False
                await self._reply(request, context, resource, 202 if accepted else 200, deleted.data, form)
            case "deletecollection":
                selection = opts.list_options(request.query)
                deleted_list = await resource.delete_collection(
                    context, namespace, selection, await opts.delete_options(request)
                )
                data = shapes.many(resource.strategy, resource.kind, deleted_list, PLAIN, "", 0)
                await request.reply(200, data, headers=warning_headers(context.warnings))

    def _check_scope(self, info: RequestInfo, resource: Resource) -> None:
        """Paths that do not exist: a cluster-scoped kind in a namespace, one object of a namespaced kind without one."""
        if not resource.kind.namespaced:
            if info.namespace and info.resource != "namespaces":
                raise no_such_path()
            if info.verb == "create" and info.name:
                raise not_allowed()
            return
        if not info.namespace and info.verb not in ("list", "watch", "deletecollection"):
            raise no_such_path() if info.name else not_allowed()
        if not info.namespace and info.verb == "deletecollection":
            raise not_allowed()
        if info.verb == "create" and info.name and not info.subresource:
            raise not_allowed()

    async def _reply(
        self, request: Request, context: Context, resource: Resource, code: int, data: bytes, form: Accept
    ) -> None:
        if form is not PLAIN and form != PLAIN:
            include = shapes.include_object(request.query) if form.shape == "Table" else ""
            cost = YAML_COST * len(data) if form.media_type == YAML else len(data)
            data = await request.offload(cost, shapes.one, resource.strategy, data, form, include, self.world.now())
        await request.reply(code, data, form.content_type, warning_headers(context.warnings))

    async def _list(self, request: Request, context: Context, resource: Resource, namespace: str) -> None:
        form = accept(request.header(b"accept"))
        include = shapes.include_object(request.query) if form.shape == "Table" else ""
        result = await resource.list(namespace, opts.list_options(request.query))
        if form == PLAIN and len(result.items) > shapes.PIECE and not (request.wants_gzip or request.pretty):
            length, parts = shapes.pieces(resource.kind, result)
            await request.reply_pieces(200, length, parts, form.content_type, warning_headers(context.warnings))
            return
        pretty = form.media_type != YAML and request.pretty
        request.raw = True  # indented here, object by object
        if form == PLAIN and not pretty:
            cost = 0  # bytes are only joined
        else:
            cost = (YAML_COST if form.media_type == YAML else 1) * sum(map(len, result.items))
        data = await request.offload(
            cost, shapes.many, resource.strategy, resource.kind, result, form, include, self.world.now(), pretty
        )
        await request.reply(200, data, form.content_type, warning_headers(context.warnings))

    async def _create(self, request: Request, context: Context, resource: Resource, namespace: str) -> None:
        form = accept(request.header(b"accept"))
        options = opts.write_options(request, "CreateOptions")
        body = await opts.body_of(request, options.field_validation != opts.IGNORE, resource.kind, resource.schema)
        context.size = body.size
        result = await resource.create(context, namespace, body.tree, options, body.duplicates)
        await self._reply(request, context, resource, 201, result.data, form)

    async def _update(
        self, request: Request, context: Context, resource: Resource, namespace: str, subresource: str
    ) -> None:
        form = accept(request.header(b"accept"))
        options = opts.write_options(request, "UpdateOptions")
        body = await opts.body_of(request, options.field_validation != opts.IGNORE, resource.kind, resource.schema)
        context.size = body.size
        result = await resource.update(
            context, namespace, context.info.name, body.tree, options, subresource=subresource, duplicates=body.duplicates
        )
        await self._reply(request, context, resource, 201 if result.created else 200, result.data, form)

    async def _patch(
        self, request: Request, context: Context, resource: Resource, namespace: str, subresource: str
    ) -> None:
        form = accept(request.header(b"accept"))
        patch, options = await self._read_patch(request, resource)
        context.size = len(patch.body)
        result = await resource.patch(context, namespace, context.info.name, patch, options, subresource=subresource)
        await self._reply(request, context, resource, 201 if result.created else 200, result.data, form)

    async def _read_patch(self, request: Request, resource: Resource) -> tuple[Patch, WriteOptions]:
        kind = media_type(request.header(b"content-type"))
        formats = supported(resource.strategy.strategic_patch)
        if kind not in formats:
            raise opts.unknown_format(formats)
        options = opts.write_options(request, "PatchOptions", kind == APPLY_PATCH)
        data = await request.body()
        if kind == APPLY_PATCH:
            body = await opts.yaml_body(request, data)
            return Patch(kind, data, body.tree, tuple(body.duplicates)), options
        return await request.offload(len(data), _json_patch, kind, data, options.field_validation != opts.IGNORE), options

    async def _subresource(self, request: Request, context: Context, resource: Resource) -> None:
        """status and scale, which every kind can have, and what else is a part of the object."""
        info, strategy = context.info, resource.strategy
        namespace = info.namespace if resource.kind.namespaced else ""
        of_status = strategy.has_status and info.subresource in strategy.status_subresources
        if of_status or info.subresource in strategy.part_subresources:
            match info.verb:
                case "get":
                    form = accept(request.header(b"accept"))
                    data = await resource.get(namespace, info.name, request.query.get("resourceVersion", ""))
                    return await self._reply(request, context, resource, 200, data, form)
                case "update":
                    return await self._update(request, context, resource, namespace, info.subresource)
                case "patch":
                    return await self._patch(request, context, resource, namespace, info.subresource)
            raise not_allowed()
        if info.subresource == "scale" and strategy.scale_path:
            data = await self._scale(request, context, resource, namespace)
            return await request.reply(200, data, headers=warning_headers(context.warnings))
        raise no_such_path()

    async def _scale(self, request: Request, context: Context, resource: Resource, namespace: str) -> bytes:
        accept(request.header(b"accept"), shapes=False)
        name = context.info.name
        match context.info.verb:
            case "get":
                return await resource.get_scale(namespace, name)
            case "update":
                options = opts.write_options(request, "UpdateOptions")
                body = await opts.body_of(request, options.field_validation != opts.IGNORE, SCALE, SCALE_SCHEMA)
                return await resource.update_scale(context, namespace, name, body.tree, options, body.duplicates)
            case "patch":
                patch, options = await self._read_patch(request, resource)
                return await resource.patch_scale(context, namespace, name, patch, options)
        raise not_allowed()

    async def _endpoint(self, request: Request, context: Context, endpoint: Endpoint) -> None:
        """Calls a handler of a kind's module; see apiserver/registry/subresources.py."""
        info = context.info
        accept(request.header(b"accept"), shapes=False)
        tree: dict[str, Any] = {}
        if info.verb in ("create", "update"):
            options = opts.write_options(request, "CreateOptions")
            schema = schema_of(endpoint.kind.type)
            body = await opts.body_of(request, options.field_validation != opts.IGNORE, endpoint.kind, schema)
            tree = conform_endpoint(endpoint.kind, context, body, options)
        elif info.verb == "patch":
            raise UnsupportedMediaType("patches are not supported here")
        namespace = "" if info.resource == "namespaces" else info.namespace
        if info.verb == "create" and namespace:
            objectmeta.metadata_of(tree)
            objectmeta.match_namespace(tree, namespace)
        out = await endpoint.handler(context, namespace, info.name, tree, request.query)
        code = 200 if info.verb in ("get", "update", "delete") else endpoint.code
        await request.reply(code, orjson.dumps(out), headers=warning_headers(context.warnings))


def _json_patch(kind: str, data: bytes, check_duplicates: bool) -> Patch:
    """Raises BadRequest."""
    before = "error decoding patch: " if kind == MERGE_PATCH else ""
    try:
        tree = decode_json(data)
    except DecodeError as error:
        raise BadRequest(f"{before}{error}") from None
    if not isinstance(tree, list if kind == JSON_PATCH else dict):
        what = "jsonpatch.Patch" if kind == JSON_PATCH else "map[string]interface {}"
        json_type = "array" if isinstance(tree, list) else go_type(tree)
        raise BadRequest(f"{before}json: cannot unmarshal {json_type} into Go value of type {what}")
    duplicates: list[str] = []
    if check_duplicates and kind in (MERGE_PATCH, STRATEGIC_PATCH):
        duplicates = json_duplicates(data, tree)
    return Patch(kind, data, tree, tuple(duplicates))


def endpoint_version(endpoint: Endpoint, resource: Resource | None) -> str:
    """The API version whose path an endpoint answers: its resource's, or its own kind's for reviews."""
    return resource.kind.version if resource is not None else endpoint.kind.version


def conform_endpoint(kind: Kind, context: Context, body: opts.Body, options: WriteOptions) -> dict[str, Any]:
    """Brings the body of an endpoint in order by the schema of its kind. Raises BadRequest."""
    tree = body.tree
    tree["apiVersion"] = tree.get("apiVersion") or kind.api_version
    tree["kind"] = tree.get("kind") or kind.kind
    if (tree["apiVersion"], tree["kind"]) != (kind.api_version, kind.kind):
        raise BadRequest(
            f"the API version in the data ({tree['apiVersion']}, Kind={tree['kind']}) does not match the expected "
            f"API version ({kind.api_version}, Kind={kind.kind})"
        )
    problems = pruning.prepare(tree, schema_of(kind.type))
    problems.raise_types(kind.kind, kind.version)
    texts = problems.strict(body.duplicates)
    if texts and options.field_validation == opts.STRICT:
        raise pruning.strict_error(kind.kind, kind.version, texts)
    if options.field_validation == opts.WARN:
        for text in texts:
            context.warn(text)
    return tree
