"""The changes that docs/recipes.md shows, made to files.

A block belongs to the file that its first line names. A python block is the whole file. A diff block has hunks, with @@ between
them, of lines that stay, lines that go (``-``) and new ones (``+``); a hunk's place is found by its lines, not by numbers.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "recipes.md"
_BLOCK = re.compile(r"^( *)```(python|diff)\n(.*?)^ *```$", re.M | re.S)


def changed_files() -> dict[str, str]:
    """Path -> text of every file that the recipes write or change, after all of them. Raises ValueError."""
    out: dict[str, str] = {}
    for match in _BLOCK.finditer(PAGE.read_text()):
        block = textwrap.dedent(match[3])
        head, _, body = block.partition("\n")
        path = head.removeprefix("# ")
        if match[2] == "python":
            if path in out or (ROOT / path).exists():
                raise ValueError(f"docs/recipes.md writes {path}, which is there")
            out[path] = body
            continue
        text = out[path] if path in out else (ROOT / path).read_text()
        for hunk in re.split(r"^@@\n", body, flags=re.M):
            text = _apply(text, hunk, path)
        out[path] = text
    return out


def _apply(text: str, hunk: str, path: str) -> str:
    """The text with a hunk's change. Raises ValueError unless the lines that stay or go are there, once."""
    lines = [line or " " for line in hunk.splitlines()]
    before = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    after = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    places = [m.start() for m in re.finditer(f"^{re.escape(before)}", text, re.M)]
    if len(places) != 1:
        raise ValueError(
            f"docs/recipes.md changes {path} at these lines, which are there {len(places)} times, not once:\n{before}"
            "bring the recipe up to date with the file"
        )
    return text[: places[0]] + after + text[places[0] + len(before) :]
