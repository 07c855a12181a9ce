"""Where results come from: the version and commit of navarch, and the machine."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@functools.cache
def commit() -> str:
    """The commit of the sources that run; with ``+`` if files differ from it. "" where they are no checkout."""
    if not (ROOT / ".git").exists():
        return ""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


def made_by() -> str:
    """navarch's version and commit: results of others are not taken for one's own."""
    return f"navarch {version('navarch')}{' at ' + commit()[:12] + commit()[40:] if commit() else ''}"


def version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "?"


def machine() -> dict[str, Any]:
    """Facts about this machine that say how fast it is; no names."""
    model = ""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {"system": system, "processor": model, "cores": os.cpu_count() or 1, "memory": memory}
