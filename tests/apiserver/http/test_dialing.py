"""Why a connection failed, in the words of Go's dialer, and what a client learns of a mistake of the server's own."""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import Any

import pytest

from apiserver.http import dispatcher
from apiserver.http.streams import Streams
from apiserver.wire.dialing import dial_error
from navarch.api.errors import StatusError
from navarch.client.kubeconfig import Config
from navarch.client.transport import HTTPSTransport
from navarch.client.upgrade import upgraded
from navarch.client.wire import TransportError
from tests.fuzz.support import _PYTHON

AT = "10.1.2.3:10250"


def caused(text: str, cause: BaseException) -> TransportError:
    error = TransportError(text)
    error.__cause__ = cause
    return error


def aiohttp_error() -> Exception:
    import aiohttp
    from aiohttp.client_reqrep import ConnectionKey

    key = ConnectionKey("h", 1, True, ssl.create_default_context(), None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(errno.EHOSTUNREACH, "No route to host"))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), f"dial tcp {AT}: connect: connection refused"),
        (OSError(errno.ENETUNREACH, "x"), f"dial tcp {AT}: connect: network is unreachable"),
        (aiohttp_error(), f"dial tcp {AT}: connect: no route to host"),
        (TimeoutError(), f"dial tcp {AT}: i/o timeout"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1)"), "EOF"),
        (asyncio.IncompleteReadError(b"", 5), "EOF"),
        (ValueError("not enough values to unpack"), "malformed HTTP response"),
        (TransportError("GET /x: timed out"), f"dial tcp {AT}: i/o timeout"),
        (TransportError("GET /x: the application did not answer"), "EOF"),
        (caused("GET /x: b", ConnectionRefusedError(errno.ECONNREFUSED, "x")), f"dial tcp {AT}: connect: connection refused"),
        (caused("GET /x: b", asyncio.IncompleteReadError(b"", None)), "EOF"),
    ],
)  # fmt: skip
def test_words(error: Exception, text: str) -> None:
    assert dial_error(error, AT) == text


def test_names_that_nobody_knows() -> None:
    async def connect() -> str:
        try:
            await asyncio.get_running_loop().getaddrinfo("nosuch.invalid", 1)
        except OSError as error:
            return dial_error(error, "nosuch.invalid:1")
        raise AssertionError

    assert asyncio.run(connect()) == "dial tcp: lookup nosuch.invalid: no such host"


def test_an_agent_that_is_not_there() -> None:
    async def run() -> None:
        streams: Any = Streams.__new__(Streams)
        agent = HTTPSTransport(Config(server="https://127.0.0.1:9"))
        streams.agents = type("Agents", (), {"of_pod": staticmethod(lambda pod: agent)})
        refused = "dial tcp 127.0.0.1:9: connect: connection refused"
        path = "/containerLogs/a/p/c"
        with pytest.raises(StatusError) as error:
            async with streams._connected({}, path) as found:
                await found.request("GET", path, accept="*/*")
        assert error.value.message == f'Get "https://127.0.0.1:9{path}": {refused}'
        assert (error.value.http_code, error.value.status_reason) == (500, "")  # as upstream's, which is no API error
        with pytest.raises(StatusError) as error:
            async with streams._connected({}), upgraded("127.0.0.1", 9, None, "", b""):
                pass
        assert error.value.message == f"error dialing backend: {refused}"
        await agent.close()

    asyncio.run(run())


@pytest.mark.parametrize("error", [KeyError("secret"), ValueError("bad 'x'"), TypeError("'int' object is not iterable")])
def test_a_mistake_of_the_server(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The client gets no words of Python's; the log has them."""
    status = dispatcher.as_status(ExceptionGroup("x", [error]), "/api/v1/pods").status()
    assert status["code"] == 500 and status["reason"] == "InternalError"
    assert status["message"] == "Internal error occurred: the API server met a mistake of its own; its log tells more"
    assert not _PYTHON.search(str(status)) and "secret" not in str(status)
    assert str(error) in caplog.text
