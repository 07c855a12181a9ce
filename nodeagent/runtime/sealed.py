"""A program that is started from memory that nobody can change.

crun does not trust the file that it was started from, which a container could write to through /proc while crun is in
it: it makes a copy, or a mount, and executes that, at every command. A program that already runs from a sealed file in
memory has no reason to. So the agent keeps one, and a link that leads there: a command then costs one start and no mount.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import threading
from pathlib import Path

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
PATIENCE = 20.0  # seconds for the first try


class SealedProgram:
    """``place`` is a directory for the link, which has the program's name. Safe to use from several threads."""

    def __init__(self, program: str, place: Path) -> None:
        self._program, self._place = program, place
        self._lock = threading.Lock()
        self._original = ""
        self._made_of: tuple[int, ...] = ()
        self._file, self._path = -1, ""

    def path(self) -> str:
        """The file to execute: the link, or the program itself where sealed memory cannot be executed. A program that was
        installed anew is copied anew. Raises FileNotFoundError."""
        with self._lock:
            if self._original:
                with contextlib.suppress(FileNotFoundError):
                    if _identity(self._original) == self._made_of:
                        return self._path
            original = shutil.which(self._program)
            if original is None:
                raise FileNotFoundError(f"{self._program} is not installed")
            self.close()
            self._made_of = _identity(original)
            self._original, self._path = original, self._seal(original) or original
            return self._path

    def _seal(self, original: str) -> str:
        """The link to a sealed copy that runs, "" if it does not."""
        link = self._place / os.path.basename(original)
        try:
            self._file = os.memfd_create(link.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            with open(original, "rb") as source, os.fdopen(os.dup(self._file), "wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, SEALS)
            self._place.mkdir(parents=True, exist_ok=True)
            fresh = link.with_name(f".{link.name}.{os.getpid()}")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(f"/proc/{os.getpid()}/fd/{self._file}")
            os.replace(fresh, link)
            subprocess.run([link, "--version"], capture_output=True, check=True, timeout=PATIENCE)
            return str(link)
        except (OSError, subprocess.SubprocessError):
            self.close()
            return ""

    def close(self) -> None:
        """Lets go of the copy. What runs from it goes on."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _identity(path: str) -> tuple[int, ...]:
    """Changes when another file is put in its place, or it is written to."""
    info = os.stat(path)
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns
