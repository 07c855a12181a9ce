"""One API server behind an APIService: requests go to it as the user's, under this server's own certificate."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from apiserver.aggregation.availability import PASSED, Finding, failed
from apiserver.config import Config
from apiserver.http.discovery import AGGREGATED, aggregated_content_type
from apiserver.http.extension import CURRENT, STALE, Tree, aggregated_of
from apiserver.http.proxytargets import Target
from apiserver.request import SYSTEM_MASTERS, Context, User
from apiserver.serviceresolver import NoEndpoint, ServiceResolver
from apiserver.webhookclient import read_all
from apiserver.wire.asgi import Request
from apiserver.wire.dialing import dial_error
from navarch.api.errors import BadRequest, ServiceUnavailable

if TYPE_CHECKING:
    import aiohttp

    from apiserver.http.forwarding import Forwarder

AGGREGATOR = User("system:kube-aggregator", (SYSTEM_MASTERS,))
CHECK_SECONDS = 5.0
ATTEMPTS = 3  # a check fails when all of them do
LIMIT = 8 << 20
_KEY_SAFE = "!#$&'*+-.^_`|~"  # what a header's name may have besides letters and digits
_UNAVAILABLE = b"service unavailable\n"


def user_headers(user: User) -> list[tuple[str, str]]:
    """Headers that name the user, for a server that trusts us. Raises BadRequest for what no header can carry."""
    out = [("X-Remote-User", user.name)]
    if user.uid:
        out.append(("X-Remote-Uid", user.uid))
    out += [("X-Remote-Group", group) for group in user.groups]
    for key, values in user.extra.items():
        out += [(f"X-Remote-Extra-{quote(key.lower(), safe=_KEY_SAFE)}", value) for value in values]
    if not all(value.isprintable() for _, value in out):
        raise BadRequest("the user's name cannot be passed on")
    return out


def tls_of(spec: Tree, certificate: str, key: str) -> ssl.SSLContext:
    """TLS as an APIService wants it, with our certificate. Raises ValueError, OSError."""
    try:
        pem = base64.b64decode(spec.get("caBundle") or "").decode()
        context = ssl.create_default_context(cadata=pem or None)
    except (binascii.Error, UnicodeDecodeError, ssl.SSLError) as error:
        raise ValueError(f"unable to load root certificates: {error}") from None
    if spec.get("insecureSkipTLSVerify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


class Remote:
    """See the module. Unavailable until a check has passed; ``suspect`` is called when a request did not get through."""

    def __init__(
        self, resolver: ServiceResolver, config: Config, forwarder: Forwarder, group: str, version: str, spec: Tree,
        suspect: Callable[[], None],
    ) -> None:  # fmt: skip
        self.resolver, self.config, self._forwarder = resolver, config, forwarder
        self.group, self.version, self.spec = group, version, spec
        self._suspect = suspect
        self.available = False
        self._resources: list[Tree] = []
        self._fresh = False
        self._openapi = ""
        self._v2: tuple[str, Tree] = "", {}
        self._tls: ssl.SSLContext | None = None

    # Requests

    async def handle(self, request: Request, context: Context) -> None:
        await self._pass_on(request, context.user)

    async def _pass_on(self, request: Request, user: User) -> None:
        path = request.scope.get("raw_path") or quote(request.path).encode()
        query = request.scope.get("query_string") or b""
        line = (path + (b"?" + query if query else b"")).decode("latin-1")
        try:
            if not self.available:
                raise ServiceUnavailable("service unavailable")
            try:
                target = self._target()
            except ServiceUnavailable:  # why stands in the APIService's condition
                raise ServiceUnavailable("service unavailable") from None
            await self._forwarder.forward(request, target, line, extra=user_headers(user))
        except ServiceUnavailable as error:
            if self.available:
                self._suspect()
            if request.started or request.scope["type"] != "http":
                raise
            text = _UNAVAILABLE if not self.available else f"{error.message}\n".encode()
            await request.reply(503, text, b"text/plain; charset=utf-8")

    def _target(self) -> Target:
        """Raises ServiceUnavailable."""
        reference = self.spec["service"]
        name, namespace = reference["name"], reference["namespace"]
        try:
            host, port = self.resolver.address(namespace, name, int(reference.get("port") or 443))
            if self._tls is None:
                self._tls = tls_of(self.spec, self.config.proxy_client_cert_file, self.config.proxy_client_key_file)
        except (NoEndpoint, ValueError, OSError) as error:
            raise ServiceUnavailable(f"error trying to reach service: {error}") from None
        return Target(host, port, self._tls, f"{name}.{namespace}.svc")

    # What it serves

    def discovered(self) -> Tree:
        fresh = CURRENT if self._fresh and self.available else STALE
        return {"version": self.version, "resources": self._resources, "freshness": fresh}

    def openapi_url(self) -> str:
        return self._openapi

    def openapi_v2(self) -> tuple[str, Tree]:
        return self._v2

    async def openapi(self, request: Request) -> None:
        await self._pass_on(request, AGGREGATOR)

    async def check(self) -> Finding:
        """Asks for the discovery document of the group and version, and takes note of what it says."""
        url, why = "", ""
        for _ in range(ATTEMPTS):
            try:
                target = self._target()
                url = f"https://{target.authority}/apis/{self.group}/{self.version}"
                status, data = await self._get(target, f"/apis/{self.group}/{self.version}", "application/json")
                if 200 <= status < 300:
                    await self._learn(target, data)
                    return PASSED
                why = f"bad status from {url}: {status}"
            except ServiceUnavailable as error:
                why = error.message
            except TimeoutError:
                why = f'Get "{url}": context deadline exceeded'
            except _client_errors() as error:
                why = f'Get "{url}": {dial_error(error, target.authority)}'
        self._fresh = False
        return failed(url, why)

    async def _learn(self, target: Target, legacy: bytes) -> None:
        """Its resources, from the aggregated document if it has one, and where its OpenAPI document is."""
        document = None
        status, data = await self._get(target, "/apis", aggregated_content_type("v2").decode())
        if status == 200:
            document = self._own(_parsed(data))
        if document is None:
            document = aggregated_of(_parsed(legacy), self.version, self.group)
        self._resources, self._fresh = list(document.get("resources") or ()), True
        status, data = await self._get(target, "/openapi/v3", "application/json")
        paths = _parsed(data).get("paths") if status == 200 else None
        own = (paths or {}).get(f"apis/{self.group}/{self.version}") or {}
        self._openapi = str(own.get("serverRelativeURL") or "")
        status, data = await self._get(target, "/openapi/v2", "application/json")
        digest = hashlib.sha256(data).hexdigest() if status == 200 else ""
        if digest != self._v2[0]:
            self._v2 = digest, self._part_of(_parsed(data)) if digest else {}

    def _part_of(self, document: Tree) -> Tree:
        """The part of an OpenAPI v2 document that is about our group and version."""
        below = f"/apis/{self.group}/{self.version}"
        paths = document.get("paths")
        mine = {p: v for p, v in (paths or {}).items() if p.startswith(below + "/") or p.rstrip("/") == below}
        return {"paths": mine, "definitions": document.get("definitions") or {}}

    def _own(self, tree: Tree) -> Tree | None:
        """Our version in an aggregated document; None if it is not there."""
        if not str(tree.get("apiVersion", "")).startswith(AGGREGATED):
            return None
        for group in tree.get("items") or ():
            if (group.get("metadata") or {}).get("name") == self.group:
                for version in group.get("versions") or ():
                    if version.get("version") == self.version:
                        return version  # type: ignore[no-any-return]
        return None

    async def _get(self, target: Target, path: str, accept: str) -> tuple[int, bytes]:
        import yarl

        url = yarl.URL(f"https://{target.authority}{path}", encoded=True)
        headers = [*user_headers(AGGREGATOR), ("Accept", accept)]
        async with asyncio.timeout(CHECK_SECONDS):
            async with self._session().get(
                url, headers=headers, ssl=target.tls or False, server_hostname=target.server_name, allow_redirects=False
            ) as answer:
                return answer.status, await read_all(answer.content, LIMIT)

    def _session(self) -> aiohttp.ClientSession:
        return self._forwarder.client()


def _client_errors() -> tuple[type[Exception], ...]:
    import aiohttp

    return aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        tree = orjson.loads(data)
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}
