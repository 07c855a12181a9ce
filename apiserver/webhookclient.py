"""Calls webhooks: a review goes out by HTTPS, to a URL or to a Service, and comes back answered.

A Service is reached through one of its ready endpoints, under its own name for TLS: the certificate has to be good for
``SERVICE.NAMESPACE.svc``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from apiserver.serviceresolver import NoEndpoint, ServiceResolver
from apiserver.wire.dialing import dial_error
from navarch.api.serialization import DecodeError, decode_json

if TYPE_CHECKING:
    import aiohttp


Tree = dict[str, Any]
ANSWER_LIMIT = 64 << 20


async def read_all(content: aiohttp.StreamReader, limit: int) -> bytes:
    """A body as a whole. Raises ValueError above ``limit`` bytes."""
    parts, size = [], 0
    async for part in content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise ValueError(f"the answer has more than {limit} bytes")
    return b"".join(parts)


class WebhookError(Exception):
    """The webhook could not be asked, or gave no answer that can be used."""


class WebhookClient:
    """Keeps its connections; :meth:`close` ends them."""

    def __init__(self, resolver: ServiceResolver) -> None:
        self.resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, config: Tree, review: Tree, seconds: float) -> Tree:
        """The answer to ``review`` of the webhook that a clientConfig names. Raises WebhookError."""
        import aiohttp
        import yarl

        shown, url, name = self._address(config)
        query = f"timeout={seconds:g}s"
        shown += ("&" if "?" in shown else "?") + query
        url += ("&" if "?" in url else "?") + query
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=self.resolver.names()), cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Host": urlsplit(shown).netloc}
        try:
            async with self._session.post(
                yarl.URL(url, encoded=True), data=orjson.dumps(review), headers=headers, allow_redirects=False,
                ssl=self._context(config.get("caBundle") or ""), server_hostname=name,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as answer:  # fmt: skip
                data = await read_all(answer.content, ANSWER_LIMIT)
                if answer.status != 200:
                    text = data[:200].decode(errors="replace").strip()
                    raise WebhookError(f"an error on the server ({text!r}) has prevented the request from succeeding")
        except TimeoutError:
            raise WebhookError(f'failed to call webhook: Post "{shown}": context deadline exceeded') from None
        except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
            why = dial_error(error, urlsplit(url).netloc)
            raise WebhookError(f'failed to call webhook: Post "{shown}": {why}') from None
        try:
            tree = decode_json(data)
        except DecodeError as error:
            raise WebhookError(f"failed to call webhook: the answer is no JSON: {error}") from None
        if not isinstance(tree, dict):
            raise WebhookError("failed to call webhook: the answer is no object")
        return tree

    def _address(self, config: Tree) -> tuple[str, str, str]:
        """The URL as messages name it, the one to connect to, and the name that the certificate must have."""
        if url := config.get("url"):
            host = urlsplit(url).hostname or ""
            if not self.resolver.reachable(host):
                raise WebhookError(f"failed to call webhook: nobody answers at {host}")
            return url, url, host
        service = config["service"]
        name, namespace, port = service["name"], service["namespace"], int(service.get("port") or 443)
        host, path = f"{name}.{namespace}.svc", "/" + (service.get("path") or "").lstrip("/")
        try:
            address, number = self.resolver.address(namespace, name, port)
        except NoEndpoint as error:
            raise WebhookError(f"failed to call webhook: {error}") from None
        authority = f"[{address}]:{number}" if ":" in address else f"{address}:{number}"
        return f"https://{host}:{port}{path}", f"https://{authority}{path}", host

    def _context(self, bundle: str) -> ssl.SSLContext:
        """TLS that trusts the bundle (base64 of PEM), or the system's authorities if there is none."""
        context = self._contexts.get(bundle)
        if context is None:
            try:
                pem = base64.b64decode(bundle).decode()
                context = ssl.create_default_context(cadata=pem or None)
            except (binascii.Error, ValueError, ssl.SSLError) as error:
                raise WebhookError(f"unable to load root certificates: {error}") from None
            self._contexts[bundle] = context
        return context
