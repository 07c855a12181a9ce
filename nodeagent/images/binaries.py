"""Programs of this machine, with the shared libraries they need: what an image without a distribution is made of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

_BATCH = 200


def _is_dynamic(path: Path) -> bool:
    """Whether a file is an ELF program or library (ldd knows the rest)."""
    try:
        with open(path, "rb") as file:
            return path.is_file() and file.read(4) == b"\x7fELF"
    except OSError:
        return False


def shared_libraries(paths: Iterable[Path]) -> list[Path]:
    """Every library, and the program loader, that these files need, by the paths under which the loader looks for them.

    Files that are not ELF are passed over; static programs need nothing. Raises FileNotFoundError for a library that
    is missing here too.
    """
    files = [str(path.resolve()) for path in paths if not path.is_symlink() and _is_dynamic(path)]
    libraries: dict[Path, None] = {}
    for start in range(0, len(files), _BATCH):
        done = subprocess.run(
            ["ldd", *files[start : start + _BATCH]], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
        )
        for line in done.stdout.splitlines():
            text = line.strip()
            if text.endswith("not found"):
                raise FileNotFoundError(f"shared library {text.split()[0]} is not installed")
            name, arrow, rest = text.partition(" => ")
            target = (rest if arrow else name).rpartition(" (0x")[0]
            if target.startswith("/"):
                libraries[Path(target)] = None
    return list(libraries)
