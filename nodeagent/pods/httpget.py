"""HTTP GET for probes and lifecycle hooks, by the rules of kubelet's packages probe/http and lifecycle.

A probe asks one server. Redirects to another host are not followed, since whoever answers a probe could otherwise make
the node ask anybody (its cloud's metadata service, say) on its behalf; the probe counts as a success, with a warning.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

from navarch.api.types import core_v1
from nodeagent.pods.handlers import Outcome, port_of, reason
from nodeagent.pods.observed import AnyContainer

MAX_BODY = 10 * 1024
MAX_REDIRECTS = 10
_FOLLOWED = (301, 302, 303, 307, 308)


class Warned(Exception):
    """A probe that counts as a success, but people should know."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


class Answer(NamedTuple):
    status: int
    body: str


async def probe(action: core_v1.HTTPGetAction, container: AnyContainer, ip: str, timeout: float, agent: str) -> str:
    """Asks once; the body. Raises Outcome for failures, Warned for a redirect that was not followed."""
    answer = await _get(url_of(action, container, ip), action, timeout, agent)
    if not 200 <= answer.status < 400:
        raise Outcome(f"HTTP probe failed with statuscode: {answer.status}")
    if answer.status >= 300:
        raise Warned(f"Probe terminated redirects, Response body: {answer.body}")
    return answer.body


async def hook(action: core_v1.HTTPGetAction, container: AnyContainer, ip: str, timeout: float, agent: str) -> None:
    """Sends the request of a lifecycle hook. Any answer will do, whatever its status code. Raises Outcome.

    A hook for HTTPS that meets a server for HTTP asks that (hooks had no HTTPS before 1.25, and their scheme was ignored).
    """
    url = url_of(action, container, ip)
    try:
        await _get(url, action, timeout, agent)
    except PlainServer:
        await _get("http" + url.removeprefix("https"), action, timeout, agent, credentials=False)


class PlainServer(Outcome):
    """The server that should speak HTTPS speaks HTTP."""


def url_of(action: core_v1.HTTPGetAction, container: AnyContainer, ip: str) -> str:
    """The URL that an action means. Raises Outcome for a port that is none."""
    host = action.host or ip
    shown = f"[{host}]" if ":" in host else host
    path = action.path or "/"
    slash = "" if path.startswith("/") else "/"
    return f"{(action.scheme or 'HTTP').lower()}://{shown}:{port_of(action.port, container)}{slash}{path}"


def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # a probe asks whether the server answers, not who it is
    return context


async def _get(
    first: str, action: core_v1.HTTPGetAction, timeout: float, agent: str, *, credentials: bool = True
) -> Answer:
    """The answer to a GET, after redirects on the same host. Raises Outcome if there is none."""
    import aiohttp
    from multidict import CIMultiDict
    from yarl import URL

    headers: CIMultiDict[str] = CIMultiDict()
    for header in action.http_headers or ():
        headers.add(header.name, header.value)
    for name, value in (("User-Agent", agent), ("Accept", "*/*")):
        if name not in headers:
            headers[name] = value
        elif not headers[name]:
            del headers[name]  # how one says that the header shall not be sent
    headers["Connection"] = "close"
    if not credentials:
        headers.popall("Authorization", None)
    url = URL(first, encoded=True)
    try:
        connector = aiohttp.TCPConnector(ssl=_tls(), force_close=True)
        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(connector=connector, timeout=limit, auto_decompress=False) as session:
            for _ in range(MAX_REDIRECTS):
                async with session.get(url, headers=headers, allow_redirects=False) as response:
                    body = (await response.content.read(MAX_BODY)).decode(errors="replace")
                    aim = response.headers.get("Location", "")
                    if response.status not in _FOLLOWED or not aim:
                        return Answer(response.status, body)
                    target = url.join(URL(aim, encoded=True))
                    if target.scheme not in ("http", "https"):
                        raise Outcome(f'Get "{aim}": unsupported protocol scheme "{target.scheme}"')
                    if target.host != URL(first, encoded=True).host:
                        return Answer(response.status, body)
                    if URL(aim, encoded=True).absolute:
                        headers.popall("Host", None)  # it was meant for the first address
                    url = target
            raise Outcome(f'Get "{url}": stopped after {MAX_REDIRECTS} redirects')
    except TimeoutError:
        why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise Outcome(f'Get "{url}": {why}') from None
    except aiohttp.ClientConnectorSSLError as error:
        if "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
            raise PlainServer(f'Get "{url}": http: server gave HTTP response to HTTPS client') from None
        raise Outcome(f'Get "{url}": {error}') from None
    except aiohttp.ClientConnectorError as error:
        raise Outcome(f'Get "{url}": dial tcp {url.host}:{url.port}: connect: {reason(error.os_error)}') from None
    except aiohttp.ServerDisconnectedError:
        raise Outcome(f'Get "{url}": EOF') from None
    except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise Outcome(f'Get "{url}": {error}') from None
