"""An attacker: a process that swaps a folder and a symlink for each other, as fast as it can (renameat2, EXCHANGE)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD, _EXCHANGE = -100, 2


def exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextlib.contextmanager
def flipping(one: Path, other: Path) -> Iterator[None]:
    """Swaps while the context lasts.

    A program of its own, not a fork: a fork keeps the pipes that other threads of this process are just using to start
    programs, and these threads wait for as long as it lives.
    """
    line = [sys.executable, __file__, str(one), str(other)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"swapped\n"
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    parent, paths = os.getppid(), [Path(text) for text in sys.argv[1:]]
    exchange(*paths)
    print("swapped", flush=True)
    while os.getppid() == parent:
        exchange(*paths)
