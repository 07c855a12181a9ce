"""Starting containers under conmon, and the other commands of the OCI runtime (crun).

conmon is one small process a container: it holds the container's streams, writes its log, serves attach, and leaves
its exit code in a file. It is no child of ours for long, so containers and exit codes survive the agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nodeagent.runtime import stragglers
from nodeagent.runtime.sealed import SealedProgram

_NOT_FOUND = re.compile(r"executable file [`']?(.+?)[`']? not found(?: in \$PATH)?(?:: .*)?$", re.MULTILINE)
CREATE_TIMEOUT = COMMAND_TIMEOUT = 120.0  # seconds


class CommandFailed(Exception):
    """A command of the OCI runtime failed; the message is its own, tidied."""


@dataclass(frozen=True)
class Launched:
    pid: int
    monitor: int


def tidy(message: str, program: str = "") -> str:
    """crun's message in the words that users of other runtimes know."""
    text = message.strip()
    match = _NOT_FOUND.search(text)
    if match:
        if "/" in match.group(1):
            return f'exec: "{match.group(1)}": stat {match.group(1)}: no such file or directory'
        return f'exec: "{match.group(1)}": executable file not found in $PATH'
    lines = [line for line in text.splitlines() if line]
    text = re.sub(r"^\S+ (?:crun: )?", "", lines[-1]) if lines and lines[-1][:4].isdigit() else (lines or [""])[-1]
    for errno_text, words in (
        ("Operation not permitted", "permission denied"),
        ("Permission denied", "permission denied"),
        ("Is a directory", "is a directory"),
    ):
        if program and text == f"open executable: {errno_text}":
            return f'exec: "{program}": {words}'
    return text or "the runtime failed without a message"


class Crun:
    """Commands of one crun state directory. They block; call them from a thread. ``programs``: where a link may be put."""

    def __init__(self, root: Path, programs: Path, program: str = "crun", conmon: str = "conmon") -> None:
        self.root, self.program, self.conmon = root, program, conmon
        self._sealed = SealedProgram(program, programs)

    @property
    def path(self) -> str:
        """The file to execute for ``program``. Raises FileNotFoundError."""
        return self._sealed.path()

    def close(self) -> None:
        self._sealed.close()

    def arguments(self, *command: str) -> list[str]:
        return [self.path, f"--root={self.root}", "--cgroup-manager=cgroupfs", *command]

    def _run(self, *command: str) -> None:
        try:
            done = subprocess.run(
                self.arguments(*command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{self.program} {command[0]} took more than {COMMAND_TIMEOUT:g} s") from error
        if done.returncode != 0:
            raise CommandFailed(tidy(done.stderr))

    def start(self, container_id: str) -> None:
        """Lets the process that waits in the container go on. Raises CommandFailed."""
        # All that `crun start` does for a container without hooks is to tell the process so, through a pipe that is its
        # sign of "not yet started", too. It costs a process. Whatever is not as expected is left to the command.
        waiting = self.root / container_id / "exec.fifo"
        try:
            pipe = os.open(waiting, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._run("start", container_id)
            return
        try:
            waiting.unlink()
            os.write(pipe, b"\0")
        except OSError as error:
            raise CommandFailed(f"container {container_id} is not running") from error
        finally:
            os.close(pipe)

    def delete(self, container_id: str, dead: bool = False) -> None:
        """Kills what is left of it and removes its state and cgroup. Not an error if it is gone.

        ``dead``: its first process has ended, and the caller removes the cgroup."""
        if (self.root / container_id).exists():
            if not dead:
                with contextlib.suppress(CommandFailed):
                    self._run("delete", "--force", container_id)
            shutil.rmtree(self.root / container_id, ignore_errors=True)  # of a start or removal that was cut short

    def create(
        self,
        container_id: str,
        bundle: Path,
        *,
        log_path: str,
        exits: Path,
        persist: Path,
        tty: bool = False,
        stdin: bool = False,
        leave_stdin_open: bool = True,
        program: str = "",
    ) -> Launched:
        """Starts a conmon that creates the container; returns when its process waits to be started.

        ``program`` (what the container runs) only makes messages better. Raises CommandFailed.
        """
        persist.mkdir(parents=True, exist_ok=True)
        read, write = os.pipe()
        line = [
            path_of(self.conmon), "--api-version", "1", "--cid", container_id, "--cuuid", container_id, "--name", container_id,
            "--runtime", self.path, "--bundle", str(bundle), "--container-pidfile", str(bundle / "pid"),
            "--conmon-pidfile", str(bundle / "conmon.pid"), "--exit-dir", str(exits), "--persist-dir", str(persist),
            "--full-attach", "--no-sync-log", "--log-level", "error", "--log-path", f"k8s-file:{log_path}",
            "--runtime-arg", f"--root={self.root}", "--runtime-arg", "--cgroup-manager=cgroupfs",
        ]  # fmt: skip
        if tty:
            line.append("--terminal")
        if stdin:
            line.append("--stdin")
            if leave_stdin_open:
                line.append("--leave-stdin-open")
        environment = {"PATH": os.environ.get("PATH", ""), "_OCI_SYNCPIPE": str(write)}
        try:
            process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                pass_fds=(write,),
                start_new_session=True,
                cwd=bundle,
            )
            os.close(write)
            write = -1
            report = _read_line(read, CREATE_TIMEOUT)
            assert process.stderr is not None
            if not report:
                errors = process.stderr.read(4096).decode(errors="replace") if process.wait() else ""
                stragglers.end_one(self.root, container_id)
                raise CommandFailed(f"conmon failed: {errors.strip() or 'no report'}")
            process.stderr.close()
            process.wait()
        finally:
            os.close(read)
            if write >= 0:
                os.close(write)
        answer = json.loads(report)
        pid = int(answer.get("data", answer.get("pid", -1)))
        if pid <= 0:
            raise CommandFailed(tidy(str(answer.get("message", "")), program))
        return Launched(pid, read_pid(bundle / "conmon.pid"))


@lru_cache(maxsize=8)
def path_of(program: str) -> str:
    """The program's file, looked for once: a search at each start is a system call for each directory. Raises OSError."""
    place = shutil.which(program)
    if place is None:
        raise FileNotFoundError(f"{program} is not installed")
    return place


def read_pid(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _read_line(fd: int, timeout: float) -> str:
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while b"\n" not in data and poll.poll(timeout * 1000):
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        data += chunk
    return data.decode(errors="replace").strip()


def signal_number(name: str) -> int:
    """``SIGTERM``, ``TERM`` or ``15`` as a number; an image's stop signal that is none of these counts as TERM."""
    text = name.strip().upper()
    if text.isdigit():
        return int(text)
    if text.startswith(("RTMIN", "SIGRTMIN")):
        return int(signal.SIGRTMIN) + int(text.partition("+")[2] or 0)
    try:
        return int(signal.Signals[text if text.startswith("SIG") else f"SIG{text}"])
    except KeyError:
        return int(signal.SIGTERM)
