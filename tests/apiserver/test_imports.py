"""What an API server must not import before somebody needs it: it takes longer than all the rest of the start."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("aiohttp", "grpc", "fastapi", "numpy", "kubernetes")
PROGRAM = "import sys, apiserver.main, apiserver.assembly, apiserver.http.protocol; print(*sys.modules)"


def test_the_start_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert set(HEAVY) & set(done.stdout.split()) == set()
