"""What every command pays before it does anything: its imports."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.argv = ["navarch", "get", "pods", "--kubeconfig", "/nonexistent"]
from cli.main import main
try:
    main()
except SystemExit:
    print(*sys.modules)
"""
# Each costs a tenth of a second or more.
DEAR = {
    "aiohttp", "click", "cryptography", "fastapi", "grpc", "httpx", "lab", "numpy", "pydantic", "pyroute2", "rich",
    "typer", "uvloop",
}  # fmt: skip


def test_a_verb_imports_nothing_dear() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stderr == "error: no kubeconfig at /nonexistent\n"
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "cli" in loaded
    assert not loaded & DEAR
