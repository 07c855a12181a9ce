"""Progress on standard error."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
from cli.common import Progress
progress = Progress()
sys.stdin.readline()  # until nobody reads
for step in ("one", "two", "three"):
    progress(step)
progress.finish()
print("done")
print("still", file=sys.stderr)
"""


def test_whoever_reads_along_may_go_away() -> None:
    """``navarch up 2>&1 | head -1``: what was begun goes on to its end."""
    read, write = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=write, text=True
    ) as process:  # fmt: skip
        os.close(write)
        os.close(read)
        assert process.communicate("go\n")[0] == "done\n" and process.returncode == 0
