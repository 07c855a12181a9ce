"""The pulls of all nodes of a lab, asked for over a unix socket: a line of JSON for an image, a line back when it is there.

The process that serves runs on the machine's side of the lab, where registries can be reached; agents in their nodes cannot.
Equal requests share one pull. An agent that hangs up no longer waits; a pull for which nobody waits ends, and what has come
of it stays for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from navarch.world import World
from nodeagent.images.credentials import Login
from nodeagent.images.pull import Puller, PullFailed
from nodeagent.images.reference import InvalidReference
from nodeagent.runtime.runtime import RuntimeError_

log = logging.getLogger(__name__)
MAX_LINE = 1 << 20  # bytes
MAX_IMAGES = 3  # pulled at a time
PATIENCE = (0.0, 0.5, 1.0, 2.0)  # seconds before each time that a server is asked which does not answer


class Request(msgspec.Struct):
    image: str
    logins: list[tuple[str, str]] = []


class Reply(msgspec.Struct, omit_defaults=True):
    """``reason`` and ``message`` are those of RuntimeError_; "" if all is well."""

    reason: str = ""
    message: str = ""


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another name of a socket file: addresses of unix sockets end at 107 bytes."""
    directory = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class _Shared:
    """One pull and the number of those who wait for it."""

    def __init__(self, task: asyncio.Task[Reply]) -> None:
        self.task, self.waiting = task, 0


class PullServer:
    def __init__(self, puller: Puller) -> None:
        self._puller = puller
        self._pulls: dict[tuple[str, tuple[Login, ...]], _Shared] = {}
        self._slots = asyncio.Semaphore(MAX_IMAGES)

    async def serve(self, path: Path) -> None:
        """Serves on a socket for our own user only, until cancelled."""
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_path(path) as name:
            listener.bind(name)
        os.chmod(path, 0o600)  # before it listens; the mask of new files is the whole process's
        server = await asyncio.start_unix_server(self._connection, sock=listener, limit=MAX_LINE)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            reply = await self._answer(reader)
            if reply is not None:
                writer.write(msgspec.json.encode(reply) + b"\n")
                await writer.drain()
        except OSError:
            pass  # nobody reads
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> Reply | None:
        try:
            request = msgspec.json.decode(await reader.readline(), type=Request)
        except (msgspec.DecodeError, ValueError):
            return Reply("ErrImagePull", "the request is no JSON object with an image")
        key = request.image, tuple(Login(*pair) for pair in request.logins)
        shared = self._pulls.get(key)
        if shared is None:
            shared = self._pulls[key] = _Shared(asyncio.ensure_future(self._pull(*key)))
            shared.task.add_done_callback(lambda task: self._pulls.pop(key, None))
        hung_up = asyncio.ensure_future(reader.read(1))
        shared.waiting += 1
        try:
            await asyncio.wait([shared.task, hung_up], return_when=asyncio.FIRST_COMPLETED)
            return shared.task.result() if shared.task.done() and not shared.task.cancelled() else None
        finally:
            hung_up.cancel()
            shared.waiting -= 1
            if not shared.waiting and not shared.task.done():
                self._pulls.pop(key, None)  # who asks now begins anew
                shared.task.cancel()

    async def _pull(self, image: str, logins: Sequence[Login]) -> Reply:
        try:
            async with self._slots:
                log.info("pulling %s", image)
                record = await self._puller.pull(image, logins)
                log.info("pulled %s: %s", image, record.id)
                return Reply()
        except InvalidReference as error:
            return Reply("InvalidImageName", str(error))
        except PullFailed as error:
            log.info("%s", error)
            return Reply("ErrImagePull", str(error))
        except Exception as error:  # a defect of ours must not leave a pod without a reason
            log.exception("pulling %s", image)
            return Reply("ErrImagePull", f'failed to pull image "{image}": {type(error).__name__}: {error}')


class RemotePuller:
    """An agent's way to the server."""

    def __init__(self, path: Path, world: World) -> None:
        self._path, self._world = path, world

    async def pull(self, image: str, logins: Sequence[Login] = ()) -> None:
        """Returns once the image is in the store. A server that ends meanwhile is asked again: it is started anew in a
        moment, and goes on where it was. Raises RuntimeError_."""
        request = msgspec.json.encode(Request(image, [tuple(login) for login in logins])) + b"\n"  # type: ignore[misc]
        why = ""
        for wait in PATIENCE:
            await self._world.sleep(wait)
            try:
                line = await self._ask(request)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", "") or str(error)
                continue
            if line:
                reply = msgspec.json.decode(line, type=Reply)
                if reply.reason:
                    raise RuntimeError_(reply.reason, reply.message)
                return
            why = "it ended meanwhile"
        raise RuntimeError_("ErrImagePull", f'failed to pull image "{image}": the lab\'s gateway: {why}')

    async def _ask(self, request: bytes) -> bytes:
        with short_path(self._path) as name:
            reader, writer = await asyncio.open_unix_connection(name, limit=MAX_LINE)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.readline()
        finally:
            writer.close()


class LocalPuller:
    """Pulls in the agent's own process: for a node that reaches registries itself."""

    def __init__(self, puller: Puller) -> None:
        self._puller = puller

    async def pull(self, image: str, logins: Sequence[Login] = ()) -> None:
        """Returns once the image is in the store. Raises RuntimeError_."""
        try:
            await self._puller.pull(image, logins)
        except InvalidReference as error:
            raise RuntimeError_("InvalidImageName", str(error)) from error
        except PullFailed as error:
            raise RuntimeError_("ErrImagePull", str(error)) from error
