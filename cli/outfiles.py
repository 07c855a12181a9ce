"""Files that a command writes beside what it prints: a path that cannot be written is told in one line, before the work if
that can be known, and never as a traceback.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn


def words(error: Exception, path: Path | str = "") -> str:
    """An error as ``FILE: why``, without the number of the operating system."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename or path
    return f"{name}: {error.strerror}" if name else error.strerror


def check(path: Path | None, code: int, *, renamed: bool = False) -> None:
    """Ends the command if a file cannot be written there, before it works for what is then lost. ``renamed``: it comes to its
    place whole, as another file, so no device or pipe may stand there: /dev/null would be a file from then on."""
    if path is None:
        return
    if path.is_dir():
        _end(f"{path}: Is a directory", code)
    if renamed and path.exists() and not path.is_file():
        _end(f"{path}: not a regular file", code)
    if not path.parent.is_dir():
        _end(f"{path}: there is no folder {path.parent}", code)


def write(path: Path, content: str | bytes, code: int) -> None:
    """Writes a file; ends the command if that fails, as on a full disk."""
    try:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        _end(words(error, path), code)


def _end(text: str, code: int) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(code)
