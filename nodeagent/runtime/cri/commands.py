"""Commands in containers of the cri runtime, and their terminals and logs: ExecSync, Exec, Attach, ReopenContainerLog.

CRI knows no end of an exec but its own: a client that goes leaves it running, and what it has started outlives a timeout.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

from nodeagent.runtime.cri import streaming
from nodeagent.runtime.cri.client import CriError
from nodeagent.runtime.cri.looking import Looking
from nodeagent.runtime.runtime import RUNNING, Container, Process, RuntimeError_
from protos import cri_pb2 as cri

OUTPUT_LIMIT = 16 << 10
EXEC_PATIENCE = 2.0  # seconds beyond an exec's timeout: the runtime waits for all who have its output open
NOT_EXECUTABLE = 126  # the exit code of a command that could not be run, as the oci runtime has it
_NO_COMMAND = ("executable file not found", "no such file or directory", "permission denied", "is a directory")


class Commands(Looking):
    """Base of the cri runtime: what happens inside containers."""

    def _of(self, container_id: str) -> Container:
        container = self._inventory.containers.get(container_id)
        if container is None:
            raise RuntimeError_("ContainerNotFound", f"container {container_id} not found")
        return container

    def _running(self, container_id: str) -> Container:
        container = self._of(container_id)
        if container.state != RUNNING:
            raise RuntimeError_("ContainerNotRunning", f"container {container_id} is {container.state}, not running")
        return container

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> tuple[int, bytes]:
        self._running(container_id)
        seconds = math.ceil(max(0.0, timeout))
        request = cri.ExecSyncRequest(container_id=container_id, cmd=command, timeout=seconds)
        try:
            answer = await self._client.call("ExecSync", request, seconds + EXEC_PATIENCE if seconds else None)
        except CriError as error:
            if error.code == "DEADLINE_EXCEEDED":
                raise TimeoutError(f"command {' '.join(command)!r} timed out after {timeout:g}s") from None
            if any(words in error.message for words in _NO_COMMAND):
                return NOT_EXECUTABLE, error.message.encode()[:OUTPUT_LIMIT]
            raise RuntimeError_("ExecError", error.message) from error
        return answer.exit_code, (answer.stdout + answer.stderr)[:OUTPUT_LIMIT]

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process:
        self._running(container_id)
        request = cri.ExecRequest(
            container_id=container_id, cmd=command, tty=tty, stdin=stdin, stdout=True, stderr=not tty
        )
        try:
            url = (await self._client.call("Exec", request)).url
            return await streaming.start(url, stdin=stdin, tty=tty)
        except (CriError, streaming.StreamFailed) as error:
            raise RuntimeError_("ExecError", error.message) from error

    async def attach(self, container_id: str, *, stdin: bool) -> Process:
        self._running(container_id)
        tty, once = self._inventory.streams[container_id]
        request = cri.AttachRequest(container_id=container_id, stdin=stdin, tty=tty, stdout=True, stderr=not tty)

        async def exit_code() -> int:
            await self._ended[container_id].wait()
            return self._of(container_id).exit_code

        try:
            url = (await self._client.call("Attach", request)).url
            return await streaming.start(url, stdin=stdin, tty=tty, once=once and not tty, ended=exit_code)
        except (CriError, streaming.StreamFailed) as error:
            raise RuntimeError_("AttachError", error.message) from error

    async def reopen_log(self, container_id: str) -> None:
        self._running(container_id)
        with contextlib.suppress(CriError):  # it ended meanwhile
            await self._client.call("ReopenContainerLog", cri.ContainerRequest(container_id=container_id))
