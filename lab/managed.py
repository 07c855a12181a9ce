"""One component as the supervisor knows it: what to run, what runs, how it is, and why it last ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.forking import DUMP, Spec
from lab.liveness import DEAD, Pulse, last_lines, reason, stopped
from lab.namespaces import ProcessId

FIRST_DELAY, MAX_DELAY, STEADY = 0.1, 10.0, 10.0  # seconds: restart back-off, and after how long it is forgotten
EXIT = re.compile(r"exit code \d+")  # how a log ends (lab/forking.py)
STACK_SECONDS = 0.5  # that a component which hangs has to write its stacks
PERSISTENT = ("restarts", "last_exit", "last_reason", "last_lines")  # what the next supervisor should know, too


@dataclass
class Managed:
    spec: Spec
    process: ProcessId | None = None
    pulse: Pulse | None = None
    child: bool = False  # ours to reap
    pidfd: int = -1
    started: float = 0.0  # monotonic
    delay: float = 0.0
    due: float = 0.0  # when to start it again, 0 if it runs
    since: float = 0.0  # Unix time at which it was started or ended
    log_start: int = 0  # bytes that the log had when it was started
    restarts: int = 0
    killed: str = ""  # why we killed it
    last_exit: str = ""
    last_reason: str = ""
    last_lines: list[str] = field(default_factory=list)

    @property
    def runs(self) -> bool:
        return self.pidfd >= 0

    @property
    def why(self) -> str:
        """Why it last ended."""
        return ": ".join(filter(None, (self.last_exit, self.last_reason)))

    def begins(self) -> None:
        """It is about to be started."""
        self.due, self.killed = 0.0, ""
        self.log_start = os.path.getsize(self.spec.log) if os.path.exists(self.spec.log) else 0

    def ended(self) -> None:
        """Notes when and why it ended, and when to start it again."""
        self.since = time.time()
        lines = last_lines(self.spec.log, since=self.log_start)
        if lines and EXIT.fullmatch(lines[-1]):
            code = lines.pop()
            self.last_exit = self.last_exit if self.child else code
        if lines or not self.last_lines:
            self.last_lines = lines
        # Who was killed from outside had nothing to say about it.
        self.last_reason = "" if self.killed or self.last_exit.startswith("signal") else reason(lines)
        self.last_exit = self.killed or self.last_exit
        if time.monotonic() - self.started > STEADY:
            self.delay = 0.0
        self.delay = min(MAX_DELAY, self.delay * 2 or FIRST_DELAY)
        self.due = time.monotonic() + self.delay
        self.restarts += 1

    def reap(self) -> None:
        """Lets go of a process that has ended."""
        if self.pulse:
            self.pulse.close()
            self.pulse = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self.child and self.process:
            with contextlib.suppress(ChildProcessError):
                _, status = os.waitpid(self.process.pid, 0)
                code = os.waitstatus_to_exitcode(status)
                self.last_exit = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"

    def kill_silent(self) -> None:
        """Ends a component that does not answer; its stacks are in its log, unless somebody stopped it."""
        assert self.process is not None and self.pulse is not None
        halted = stopped(self.process.pid)
        self.killed = f"it did not answer for {self.pulse.silence:.0f} s" + (" (stopped by a signal)" if halted else "")
        if not halted:
            self.process.kill(signal.SIGQUIT if self.spec.exec else DUMP)  # programs in Go know the former
            self.process.wait_gone(STACK_SECONDS)
        self.process.kill(signal.SIGKILL)

    def state(self) -> dict[str, Any]:
        """The entry of `navarch status -o json`: ``state`` is running, starting, silent, unhealthy or ended."""
        state, why, since = "running", "", self.since
        if self.runs and self.pulse:
            self.pulse.read()
            if self.pulse.shows:
                state, why, since = "silent", f"does not answer; killed after {DEAD:.0f} s", self.pulse.silent_since
                if self.process and stopped(self.process.pid):
                    why = "stopped by a signal: " + why
            elif not self.pulse.answered:
                state = "starting"
            elif self.pulse.complaint:
                state, why = "unhealthy", self.pulse.complaint
        elif not self.runs:
            state, why = "ended", self.why
        return {
            "name": self.spec.name,
            "pid": self.process.pid if self.process and self.runs else 0,
            "state": state,
            "since": round(since, 3),
            "reason": why,
            "restarts": self.restarts,
            "lastExit": self.why,
            "lastLines": self.last_lines,
        }

    def dump(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in PERSISTENT}
        return {"spec": asdict(self.spec), "process": self.process.dump() if self.process else None, "known": state}
