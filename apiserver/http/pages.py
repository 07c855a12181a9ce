"""Endpoints that are not resources: discovery, OpenAPI, /version, health checks and metrics."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from apiserver.http import discovery
from apiserver.http.apis import APIs
from apiserver.http.gates import Gates
from apiserver.http.metrics import Metrics
from apiserver.http.openapi.serving import Documents, OpenAPI
from apiserver.http.resources import no_such_path, not_allowed
from apiserver.request import Context, RequestInfo
from apiserver.wire.asgi import Request
from apiserver.wire.negotiation import JSON, YAML, accept, clauses

GIT_VERSION = "v1.34.0"
COMMIT = hashlib.sha1(b"navarch 0.1").hexdigest()
"""Clients want 40 hexadecimal digits; a release of ours is no commit of theirs, so these only tell which release it is."""
PLAIN_TEXT = [(b"x-content-type-options", b"nosniff")]
Check = Callable[[], Awaitable[None]]


def version_info() -> dict[str, str]:
    """GET /version: the API level that we speak, and what speaks it."""
    major, minor, _ = GIT_VERSION[1:].split(".")
    python = ".".join(map(str, sys.version_info[:3]))
    return {
        "major": major, "minor": minor, "gitVersion": f"{GIT_VERSION}+navarch", "gitCommit": COMMIT, "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": f"python{python}", "compiler": "cpython",
        "platform": f"{sys.platform}/amd64", "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": minor,
    }  # fmt: skip


class Pages:
    """Answers every path that is no resource."""

    def __init__(
        self, apis: APIs, openapi: OpenAPI, metrics: Metrics, documents: Documents,
        health: Callable[[str], dict[str, Check]], gates: Gates,
    ) -> None:  # fmt: skip
        """``documents``: paths that answer with a JSON document. ``health``: the checks of healthz, livez or readyz."""
        self.apis, self.openapi, self.metrics, self.documents, self.health = apis, openapi, metrics, documents, health
        self.gates = gates

    async def handle(self, request: Request, context: Context) -> None:
        path = request.path
        if path.startswith("/openapi/"):
            return await self.openapi.handle(request)
        parts = [p for p in path.split("/") if p]
        if self.apis.extensions and len(parts) == 3 and parts[0] == "apis":
            other = self.apis.extensions.get((parts[1], parts[2]))
            if other is not None:
                return await other.handle(request, context)
        if request.method not in ("GET", "HEAD"):
            raise not_allowed()
        match parts:
            case ["api" | "apis"]:
                return await self._discovery(request, parts[0] == "api")
            case ["api", version]:
                return await self._tree(request, self.apis.discovery.resources("", version))
            case ["apis", group]:
                return await self._tree(request, self.apis.discovery.group(group))
            case ["apis", group, version]:
                return await self._tree(request, self.apis.discovery.resources(group, version))
            case ["version"]:
                return await self._tree(request, version_info())
            case ["healthz" | "livez" | "readyz", *rest]:
                return await self._health(request, context, parts[0], "/".join(rest))
            case ["metrics"]:
                text = self.metrics.text()
                return await request.reply(200, text.encode(), b"text/plain; version=0.0.4; charset=utf-8")
            case []:
                return await self._tree(request, {"paths": self._paths()})
        if path in self.documents:
            return await self._tree(request, self.documents[path]())
        raise no_such_path()

    async def _tree(self, request: Request, tree: Any) -> None:
        if tree is None:
            raise no_such_path()
        form = accept(request.header(b"accept"), shapes=False)
        if form.media_type == YAML:
            from navarch.api.serialization import dump_yaml

            return await request.reply(200, dump_yaml(tree).encode(), YAML.encode())
        await request.reply_tree(200, tree)

    async def _discovery(self, request: Request, core: bool) -> None:
        catalog = self.apis.discovery
        for media_type, parameters in clauses(request.header(b"accept")):
            version = parameters.get("v", "")
            if media_type == JSON and parameters.get("as") == discovery.AGGREGATED_KIND:
                if parameters.get("g") == discovery.AGGREGATED and version in ("v2", "v2beta1"):
                    tree = catalog.aggregated(core, version)
                    content_type = discovery.aggregated_content_type(version)
                    return await request.reply(200, orjson.dumps(tree), content_type, [(b"vary", b"Accept")])
            elif media_type in (JSON, "*/*", "application/*"):
                break
        await self._tree(request, catalog.api_versions() if core else catalog.group_list())

    def _paths(self) -> list[str]:
        paths = ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]
        for group, versions in self.apis.discovery.versions.items():
            prefix = f"/apis/{group}" if group else "/api"
            paths += [prefix, *(f"{prefix}/{v}" for v in versions)]
        return sorted(set(paths))

    async def _health(self, request: Request, context: Context, which: str, only: str) -> None:
        """ok, or what is wrong; with ?verbose or on failure one line a check.

        The reason is for those who may look at the check by itself, as /readyz/etcd: the page as a whole is public.
        """
        checks = self.health(which)
        if only:
            return await self._check(request, checks, only)
        excluded = request.queries("exclude")
        lines, failed = [], False
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
                continue
            try:
                await check()
            except Exception as error:
                failed = True
                allowed, _ = self.gates.authorizer.authorize(context.user, RequestInfo("get", f"/{which}/{name}"))
                lines.append(f"[-]{name} failed: {error if allowed else 'reason withheld'}")
            else:
                lines.append(f"[+]{name} ok")
        if unknown := sorted({name for name in excluded if name not in checks}):
            names = ",".join(f'"{name}"' for name in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        if failed:
            text = "\n".join([*lines, f"{which} check failed", ""])
            return await request.reply(500, text.encode(), b"text/plain; charset=utf-8", PLAIN_TEXT)
        text = "ok"
        if "verbose" in request.query:
            text = "\n".join([*lines, f"{which} check passed", ""])
        await request.reply(200, text.encode(), b"text/plain; charset=utf-8", PLAIN_TEXT)

    async def _check(self, request: Request, checks: dict[str, Check], name: str) -> None:
        if name not in checks:
            raise no_such_path()
        try:
            await checks[name]()
        except Exception as error:
            text = f"internal server error: {error}\n"
            return await request.reply(500, text.encode(), b"text/plain; charset=utf-8", PLAIN_TEXT)
        await request.reply(200, b"ok", b"text/plain; charset=utf-8", PLAIN_TEXT)
