"""A small API server of its own, to be aggregated: Jokes of the group fun.example.com, in memory, over TLS.

It believes X-Remote-User only from whoever shows a certificate of the front proxy's authority.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

Tree = dict[str, Any]
GROUP, VERSION = "fun.example.com", "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
BASE = f"/apis/{API_VERSION}"
GVK = {"group": GROUP, "version": VERSION, "kind": "Joke"}
VERBS = ["create", "delete", "get", "list", "watch"]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
SCHEMA = {
    "type": "object",
    "description": "Something to laugh about.",
    "x-kubernetes-group-version-kind": [GVK],
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "text": {"type": "string", "description": "What is told."},
    },
}


class Jokes:
    """``aggregated``: whether it knows the aggregated discovery document. ``seen``: the headers of every request."""

    def __init__(self) -> None:
        self.port = 0
        self.aggregated = True
        self.healthy = True
        self.objects: dict[tuple[str, str], Tree] = {}
        self.revision = 0
        self.seen: list[Any] = []
        self._watchers: list[tuple[str, asyncio.Queue[Tree]]] = []

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/apis", self._apis)
        app.router.add_get(BASE, self._resources)
        app.router.add_get("/openapi/v3", self._index)
        app.router.add_get(f"/openapi/v3{BASE}", self._document)
        app.router.add_get("/openapi/v2", self._swagger)
        many = f"{BASE}/namespaces/{{namespace}}/jokes"
        app.router.add_get(f"{BASE}/jokes", self._list)
        app.router.add_get(many, self._list)
        app.router.add_post(many, self._create)
        app.router.add_get(f"{many}/{{name}}", self._get)
        app.router.add_delete(f"{many}/{{name}}", self._delete)
        app.router.add_get(f"{many}/{{name}}/tell", self._tell)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport else None
        if not certificate or not request.headers.get("X-Remote-User"):
            return status(401, "Unauthorized", "Unauthorized")
        self.seen.append(request.headers.copy())
        if not self.healthy:
            return web.Response(status=500, text="sick")
        return await handler(request)  # type: ignore[no-any-return]

    # Discovery

    async def _apis(self, request: web.Request) -> web.Response:
        if not self.aggregated or "APIGroupDiscoveryList" not in request.headers.get("Accept", ""):
            return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
        one = {
            "resource": "jokes", "responseKind": GVK, "scope": "Namespaced", "singularResource": "joke", "verbs": VERBS,
            "shortNames": ["jk"],
        }  # fmt: skip
        versions = [{"version": VERSION, "resources": [one], "freshness": "Current"}]
        tree = {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "items": [{"metadata": {"name": GROUP}, "versions": versions}],
        }
        return web.Response(body=json.dumps(tree).encode(), headers={"Content-Type": AGGREGATED})

    async def _resources(self, request: web.Request) -> web.Response:
        one = {
            "name": "jokes",
            "singularName": "joke",
            "namespaced": True,
            "kind": "Joke",
            "verbs": VERBS,
            "shortNames": ["jk"],
        }
        tree = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": API_VERSION, "resources": [one]}
        return web.json_response(tree)

    async def _index(self, request: web.Request) -> web.Response:
        url = f"/openapi/v3{BASE}?hash=ABC"
        return web.json_response({"paths": {BASE[1:]: {"serverRelativeURL": url}}})

    async def _document(self, request: web.Request) -> web.Response:
        operation = {"x-kubernetes-action": "list", "x-kubernetes-group-version-kind": GVK, "responses": {}}
        paths = {f"{BASE}/namespaces/{{namespace}}/jokes": {"get": operation}}
        schemas = {f"com.example.fun.{VERSION}.Joke": SCHEMA}
        info = {"title": "jokes", "version": "1"}
        return web.json_response({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}})

    async def _swagger(self, request: web.Request) -> web.Response:
        name = f"com.example.fun.{VERSION}.Joke"
        reply = {"200": {"description": "OK", "schema": {"$ref": f"#/definitions/{name}"}}}
        paths = {f"{BASE}/jokes": {"get": {"responses": reply}}, "/apis/": {"get": {"responses": reply}}}
        schema = {k: v for k, v in SCHEMA.items() if not k.startswith("x-")}
        info = {"title": "jokes", "version": "1"}
        return web.json_response({"swagger": "2.0", "info": info, "paths": paths, "definitions": {name: schema}})

    # Objects

    async def _list(self, request: web.Request) -> web.StreamResponse:
        namespace = request.match_info.get("namespace", "")
        if request.query.get("watch") in ("1", "true"):
            return await self._watch(request, namespace)
        items = [o for (where, _), o in self.objects.items() if namespace in ("", where)]
        metadata = {"resourceVersion": str(self.revision)}
        return web.json_response({"kind": "JokeList", "apiVersion": API_VERSION, "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request, namespace: str) -> web.StreamResponse:
        queue: asyncio.Queue[Tree] = asyncio.Queue()
        if request.query.get("resourceVersion", "0") in ("", "0"):
            for (where, _), one in self.objects.items():
                if namespace in ("", where):
                    queue.put_nowait({"type": "ADDED", "object": one})
        self._watchers.append((namespace, queue))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while True:
                await response.write(json.dumps(await queue.get()).encode() + b"\n")
        except ConnectionError:
            return response
        finally:
            self._watchers.remove((namespace, queue))

    def watchers(self) -> int:
        return len(self._watchers)

    def _tell_watchers(self, kind: str, one: Tree) -> None:
        self.revision += 1
        one["metadata"]["resourceVersion"] = str(self.revision)
        for namespace, queue in self._watchers:
            if namespace in ("", one["metadata"]["namespace"]):
                queue.put_nowait({"type": kind, "object": one})

    async def _create(self, request: web.Request) -> web.Response:
        one = await request.json()
        namespace = request.match_info["namespace"]
        one["metadata"] |= {
            "namespace": namespace,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "uid": one["metadata"]["name"],
        }
        one["teller"] = request.headers["X-Remote-User"]
        self.objects[namespace, one["metadata"]["name"]] = one
        self._tell_watchers("ADDED", one)
        return web.json_response(one, status=201)

    def _find(self, request: web.Request) -> Tree | None:
        return self.objects.get((request.match_info["namespace"], request.match_info["name"]))

    async def _get(self, request: web.Request) -> web.Response:
        one = self._find(request)
        return web.json_response(one) if one else status(404, "NotFound", "no such joke")

    async def _delete(self, request: web.Request) -> web.Response:
        one = self.objects.pop((request.match_info["namespace"], request.match_info["name"]), None)
        if one is None:
            return status(404, "NotFound", "no such joke")
        self._tell_watchers("DELETED", one)
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    async def _tell(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket that says everything twice."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(message.data * 2)
        return socket


def status(code: int, reason: str, message: str) -> web.Response:
    tree = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    return web.json_response(tree, status=code)


@asynccontextmanager
async def serving_jokes(
    certificate: Path, key: Path, front_proxy_ca: Path, host: str = "127.0.0.1"
) -> AsyncIterator[Jokes]:
    """The server on a port of its own."""
    jokes = Jokes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(front_proxy_ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    runner = web.AppRunner(jokes.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0, ssl_context=context).start()
    jokes.port = runner.addresses[0][1]
    try:
        yield jokes
    finally:
        await runner.cleanup()


async def main(certificate: str, key: str, front_proxy_ca: str, port_file: str) -> None:
    """Runs until it is killed; writes its port to a file."""
    async with serving_jokes(Path(certificate), Path(key), Path(front_proxy_ca)) as jokes:
        Path(port_file).write_text(str(jokes.port))
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
