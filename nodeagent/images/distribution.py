"""A client of the distribution API: manifests and blobs of one image at one endpoint, down and up.

Our own rather than skopeo's, since a pull shows how far it is, goes on where a broken one ended, and says what the registry
said; skopeo copies a whole image or nothing (D70 in docs/decisions.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from yarl import URL

from navarch.egress import Egress, EgressClosed
from navarch.world import World
from nodeagent.images import challenge
from nodeagent.images.credentials import Login
from nodeagent.images.inward import OutwardResolver, is_inward
from nodeagent.images.manifests import ACCEPT, MAX_MANIFEST
from nodeagent.images.registries import Endpoint

CONNECT_SECONDS, SILENT_SECONDS = 15.0, 60.0
MAX_REDIRECTS, MAX_TRIES, MAX_WAIT = 5, 4, 30.0
MAX_ANSWER = 64 << 10  # bytes of an error or a token that are read
CHUNK = 256 << 10
_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError, OSError)


class RegistryError(Exception):
    """The registry does not give what was asked for; the message has its own words. ``code`` is HTTP's, 0 without an answer."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Lost(RegistryError):
    """The connection broke while a body came: worth another try."""


class Transport:
    """Connections to registries, shared by the pulls of a process. Close it."""

    def __init__(self, world: World, egress: Egress) -> None:
        self.world, self.egress = world, egress
        self.plain: dict[str, None] = {}  # hosts that speak HTTP only
        self._sessions: dict[tuple[bool, str, bool, bool], aiohttp.ClientSession] = {}

    def session(self, insecure: bool, ca_file: str, near: bool, outward: bool = False) -> aiohttp.ClientSession:
        """``outward``: no name leads to this machine."""
        key = insecure, ca_file, near, outward
        if key not in self._sessions:
            context = ssl.create_default_context(cafile=ca_file or None)
            if insecure:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
            connector = aiohttp.TCPConnector(
                ssl=context, limit_per_host=8, resolver=OutwardResolver() if outward else None
            )
            # The machine's proxy is for what is outside; a cookie of one pull is no other's business.
            self._sessions[key] = aiohttp.ClientSession(
                connector=connector, timeout=timeout, trust_env=not near and not self.egress.reason,
                cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, headers={"User-Agent": "navarch"},
            )  # fmt: skip
        return self._sessions[key]

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()


class Repository:
    """One repository at one endpoint, with a login or without."""

    def __init__(self, transport: Transport, endpoint: Endpoint, login: Login | None = None) -> None:
        self._t, self.endpoint = transport, endpoint
        self._login = login if login is not None else endpoint.login
        self._tokens: dict[str, tuple[str, float]] = {}  # scope -> Authorization, and until when
        self._basic = False

    @property
    def host(self) -> str:
        return self.endpoint.api

    # --- what is asked for ---

    async def digest(self, reference: str) -> str:
        """The digest of a tag; "" if the registry does not say."""
        try:
            async with self._send("HEAD", f"manifests/{reference}", {"Accept": ACCEPT}) as answer:
                return answer.headers.get("Docker-Content-Digest", "")
        except RegistryError as error:
            if 400 <= error.code < 500:  # an answer to HEAD has no words: whoever asks for the manifest gets them
                return ""
            raise

    async def manifest(self, reference: str) -> tuple[bytes, str]:
        """The bytes of a manifest and their media type. Raises RegistryError."""
        async with self._send("GET", f"manifests/{reference}", {"Accept": ACCEPT}) as answer:
            data = await _limited(answer, MAX_MANIFEST)
            if len(data) > MAX_MANIFEST:
                raise RegistryError(f"{self.host}: the manifest has more than {MAX_MANIFEST} bytes")
            return data, answer.headers.get("Content-Type", "")

    async def blob(self, digest: str, offset: int = 0) -> AsyncIterator[bytes | int]:
        """The blob from a byte on, piece by piece. The first item is the byte at which it really begins: a registry may not
        know ranges. Raises RegistryError, Lost if the connection breaks."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._send("GET", f"blobs/{digest}", headers) as answer:
            yield _first_byte(answer, offset)
            try:
                async for piece in answer.content.iter_chunked(CHUNK):
                    yield piece
            except _LOST as error:
                raise Lost(f"{self.host}: {_words(error)}") from error

    async def has_blob(self, digest: str) -> bool:
        try:
            async with self._send("HEAD", f"blobs/{digest}", push=True):
                return True
        except RegistryError as error:
            if error.code == 404:
                return False
            raise

    async def upload(self, digest: str, content: Any) -> None:
        """Sends a blob; ``content`` gives a new iterator of pieces whenever it is called. Raises RegistryError."""
        async with self._send("POST", "blobs/uploads/", push=True) as answer:
            place = answer.headers.get("Location", "")
        if not place:
            raise RegistryError(f"{self.host}: does not say where to send a blob")
        url = URL(urllib.parse.urljoin(str(answer.url), place), encoded=True)
        url = url.update_query(digest=digest)
        headers = {"Content-Type": "application/octet-stream"}
        async with self._request("PUT", url, headers, push=True, content=content):
            pass

    async def put_manifest(self, reference: str, data: bytes, media_type: str) -> None:
        headers = {"Content-Type": media_type}
        async with self._send("PUT", f"manifests/{reference}", headers, push=True, content=lambda: data):
            pass

    # --- how ---

    @contextlib.asynccontextmanager
    async def _send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, push: bool = False, content: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        scheme = "http" if self.endpoint.api in self._t.plain else "https"
        base = f"{scheme}://{self.endpoint.api}/v2/{self.endpoint.path}/{path}"
        try:
            context = self._request(method, URL(base), headers or {}, push, content)
            answer = await context.__aenter__()
        except _LOST as error:
            if scheme == "http" or not self._may_be_plain(error):
                raise RegistryError(f"{self.host}: {_words(error)}") from error
            self._t.plain[self.endpoint.api] = None
            context = self._request(method, URL(base).with_scheme("http"), headers or {}, push, content)
            try:
                answer = await context.__aenter__()
            except _LOST as again:
                self._t.plain.pop(self.endpoint.api, None)
                raise RegistryError(f"{self.host}: {_words(again)}") from again
        try:
            yield answer
        finally:
            await context.__aexit__(None, None, None)

    @property
    def _insecure(self) -> bool:
        return self.endpoint.insecure or Egress().is_near(_name(self.endpoint.api))  # loopback, as Docker has it

    def _may_be_plain(self, error: BaseException) -> bool:
        return self._insecure and not isinstance(error, ConnectionRefusedError | asyncio.TimeoutError) and not _refused(error)

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], push: bool = False, content: Any = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Sends a request until it is answered: with a login if that is asked for, elsewhere if it is there, later if the
        registry is busy. Raises RegistryError for an answer of 400 and above, and what aiohttp raises."""
        asked_for_login = redirects = tries = 0
        while True:
            answer = await self._once(method, url, headers, push, content)
            code = answer.status
            if code < 300:
                break
            if code in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                redirects += 1
                url = self._redirected(url, answer.headers["Location"])
                answer.release()
                if redirects > MAX_REDIRECTS:
                    raise RegistryError(f"{self.host}: more than {MAX_REDIRECTS} redirects")
                continue
            if code == 401 and not asked_for_login and self._is_own(url):
                asked_for_login = 1
                login = challenge.choose(", ".join(answer.headers.getall("WWW-Authenticate", [])))
                if login is not None:
                    complaint = await self._complaint(answer)
                    if await self._log_in(login, push):
                        continue
                    raise complaint
            if code in (429, 500, 502, 503, 504) and tries < MAX_TRIES - 1 and content is None:
                wait = _retry_after(answer) or 0.5 * 2**tries
                tries += 1
                if wait <= MAX_WAIT:
                    answer.release()
                    await self._t.world.sleep(wait)
                    continue
            raise await self._complaint(answer)
        try:
            yield answer
        finally:
            answer.close() if method == "GET" and not answer.content.at_eof() else answer.release()

    async def _once(
        self, method: str, url: URL, headers: Mapping[str, str], push: bool, content: Any
    ) -> aiohttp.ClientResponse:
        host = url.host or ""
        self._check(host)
        outward = self._is_sent_outward(url)
        own = dict(headers)
        if self._is_own(url) and (authorization := self._authorization(push)):
            own["Authorization"] = authorization
        insecure = self._insecure and self._is_own(url)
        ca_file = self.endpoint.ca_file if self._is_own(url) else ""
        session = self._t.session(insecure, ca_file, self._t.egress.is_near(host), outward)
        data = content() if content is not None else None
        return await session.request(method, url, headers=own, data=data, allow_redirects=False)

    def _check(self, host: str) -> None:
        try:
            self._t.egress.check(host)
        except EgressClosed as error:
            raise RegistryError(str(error)) from None

    def _is_sent_outward(self, url: URL) -> bool:
        """Whether a registry from outside sends us there, which must be outside, too. Raises RegistryError if it is not."""
        if self._insecure or self._is_own(url):
            return False
        if is_inward(url.host or ""):
            raise RegistryError(f"{self.host}: sends us to {url.host}, which is this machine or on its link")
        return True

    def _is_own(self, url: URL) -> bool:
        """The login goes to the registry itself, never to whom it sends us."""
        return url.authority == URL(f"{url.scheme}://{self.endpoint.api}").authority

    def _redirected(self, url: URL, place: str) -> URL:
        target = URL(urllib.parse.urljoin(str(url), place), encoded=True)
        if target.scheme not in ("http", "https") or not target.host:
            raise RegistryError(f"{self.host}: redirects to what is no web address")
        if target.scheme == "http" and url.scheme == "https" and not self._insecure:
            raise RegistryError(
                f"{self.host}: redirects from HTTPS to HTTP at {target.host}; mark it as insecure to allow that"
            )
        return target

    # --- logging in ---

    def _scope(self, push: bool) -> str:
        return f"repository:{self.endpoint.path}:pull" + (",push" if push else "")

    def _authorization(self, push: bool) -> str:
        if self._basic and self._login is not None:
            return self._login.basic
        token, until = self._tokens.get(self._scope(push), ("", 0.0))
        return token if self._t.world.monotonic() < until else ""

    async def _log_in(self, login: challenge.Challenge, push: bool) -> bool:
        """Gets what the challenge wants; false if we have no login for it. Raises RegistryError."""
        if login.scheme == "basic":
            if self._login is None or self._basic:
                return False
            self._basic = True
            return True
        try:
            url = URL(challenge.token_url(login, self._scope(push)), encoded=True)
        except ValueError as error:
            raise RegistryError(f"{self.host}: {error}") from None
        self._check(url.host or "")
        if (
            url.scheme == "http"
            and self._login is not None
            and not (self._insecure or Egress().is_near(url.host or ""))
        ):
            raise RegistryError(f"{self.host}: wants the password sent to {url.host} without TLS")
        headers = {"Authorization": self._login.basic} if self._login is not None else {}
        near, outward = self._t.egress.is_near(url.host or ""), self._is_sent_outward(url)
        session = self._t.session(self._insecure, self.endpoint.ca_file, near, outward)
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            if answer.status != 200:
                raise await self._complaint(answer, url.host or "")
            try:
                token, seconds = challenge.token_of(json.loads(await _limited(answer, MAX_ANSWER)))
            except ValueError as error:
                raise RegistryError(f"{self.host}: {error}") from None
        self._tokens[self._scope(push)] = f"Bearer {token}", self._t.world.monotonic() + 0.9 * seconds
        return True

    # --- what it says ---

    async def _complaint(self, answer: aiohttp.ClientResponse, host: str = "") -> RegistryError:
        """The registry's answer as an error with its own words."""
        try:
            text = (await _limited(answer, MAX_ANSWER)).decode(errors="replace")
        except _LOST:
            text = ""
        finally:
            answer.release()
        return RegistryError(
            f"{host or self.host}: {complaint(answer.status, answer.reason or '', text)}", answer.status
        )


def complaint(code: int, reason: str, text: str) -> str:
    """An answer's errors, in the registry's words: those of the distribution API, else the first line of a plain text."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    listed = document.get("errors") if isinstance(document, dict) else None
    words = []
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict):
            words.append(str(each.get("message") or each.get("code") or "").strip())
    if not words and isinstance(document, dict):
        words = [str(document.get("details") or document.get("message") or document.get("error") or "")]
    plain = "" if document is not None or text.lstrip().startswith("<") else text.strip().partition("\n")[0]
    said = "; ".join(w for w in dict.fromkeys(words) if w) or plain or reason or "no reason is given"
    said = "".join(c if c.isprintable() else " " for c in said)
    return f"{said[:500]} ({code})"


async def _limited(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or a little more than ``most`` bytes of it."""
    data = b""
    async for piece in answer.content.iter_chunked(CHUNK):
        data += piece
        if len(data) > most:
            break
    return data


def _first_byte(answer: aiohttp.ClientResponse, offset: int) -> int:
    if answer.status != 206 or not offset:
        return 0
    start = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return offset if start == str(offset) else int(start) if start.isdigit() else 0


def _retry_after(answer: aiohttp.ClientResponse) -> float:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else 0.0


def _name(authority: str) -> str:
    return URL(f"https://{authority}").host or authority


def _refused(error: BaseException) -> bool:
    return isinstance(getattr(error, "os_error", None), ConnectionRefusedError)


def _words(error: BaseException) -> str:
    """Describes what happened to a connection."""
    if isinstance(error, asyncio.TimeoutError):
        return "did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{error.certificate_error}; name its authority as ca-file in registries.conf, or mark it as insecure"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"{error.os_error.strerror or error.os_error}; if it speaks plain HTTP, mark it as insecure in registries.conf"
    if isinstance(getattr(error, "os_error", None), socket.gaierror):
        return "no such host"
    if _refused(error) or isinstance(error, ConnectionRefusedError):
        return "connection refused"
    cause = getattr(error, "os_error", None) or error
    return str(getattr(cause, "strerror", "") or cause or type(error).__name__)
