"""crun and conmon killed where a test says, by a script around crun; and the agent killed at the n-th change that it makes.

An order is ``PROGRAM COMMAND WHEN``: while crun does that command, it or the conmon above it dies by SIGKILL: before
anything is done, in the middle, or after all is done, so that whoever waits for it never hears of that. Each order is
carried out once.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from nodeagent.runtime.oci import OciRuntime

SCRIPT = """#!/bin/sh
for a in "$@"; do case "$a" in create|exec|delete) c=$a; break;; esac; done
order() { [ -e "ORDERS/$1 $c $2" ] && rm "ORDERS/$1 $c $2"; }
order crun before && kill -9 $$
order conmon before && kill -9 $PPID
if order crun middle; then CRUN "$@" & p=$!; sleep 0.004; kill -9 $p; kill -9 $$; fi
if order conmon middle; then CRUN "$@" & p=$!; sleep 0.004; kill -9 $PPID; wait $p; exit; fi
if order crun after; then CRUN "$@"; kill -9 $$; fi
if order conmon after; then CRUN "$@"; code=$?; kill -9 $PPID; exit $code; fi
exec CRUN "$@"
"""


class Faulty:
    """Makes a runtime's crun one that fails on order; in ``folder``."""

    def __init__(self, runtime: OciRuntime, folder: Path) -> None:
        self.orders = folder / "orders"
        self.orders.mkdir(parents=True)
        crun = shutil.which("crun")
        assert crun is not None
        script = folder / "crun"
        script.write_text(SCRIPT.replace("CRUN", crun).replace("ORDERS", str(self.orders)))
        script.chmod(0o755)
        runtime._crun._sealed = self  # type: ignore[assignment]
        self.script = script

    def path(self) -> str:
        return str(self.script)

    def close(self) -> None: ...

    def order(self, fault: str) -> None:
        (self.orders / fault).touch()

    def waiting(self) -> list[str]:
        """Orders that nobody has carried out."""
        return sorted(path.name for path in self.orders.iterdir())


class Changes:
    """Counts what this process changes on the machine: files and folders, and programs that it starts. With ``last`` it
    dies before that change."""

    KINDS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "subprocess.Popen", "os.kill")

    def __init__(self, last: int = 0) -> None:
        self.count, self.last, self.ends = 0, last, False
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int):
            is_change = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        else:
            is_change = event in self.KINDS
        if not is_change or self.ends:
            return
        self.count += 1
        if self.count == self.last:
            self.ends = True
            os.kill(os.getpid(), signal.SIGKILL)
