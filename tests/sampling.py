"""Samples: variants of one test of which a run tries some, and another run others. Loaded by conftest.py.

The commit chooses, so that a run of the same commit tries the same, and the following commits come round to all. pytest's
header says by which word; ``NAVARCH_TESTS=WORD`` repeats it, and ``NAVARCH_TESTS=all`` tries all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ALL = "all"


@cache
def word() -> str:
    """What chooses: ``NAVARCH_TESTS``, else the commit; "none" outside of a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # no git
        commit = ""
    return os.environ.get("NAVARCH_TESTS") or commit or "none"


def sample(variants: Iterable[T], count: int, name: str, by: str = "") -> list[T]:
    """``count`` of the variants, in their order. ``name`` tells this choice from others of the same run."""
    every, by = list(variants), by or word()
    if by == ALL:
        return every
    marks = [hashlib.sha256(f"{by} {name} {number}".encode()).digest() for number in range(len(every))]
    least = sorted(marks)[:count]
    return [variant for variant, mark in zip(every, marks, strict=True) if mark in least]


def pytest_report_header() -> str:
    return f"samples: NAVARCH_TESTS={word()} (NAVARCH_TESTS=all tries all variants)"
