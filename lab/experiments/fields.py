"""Sets fields of a file by their paths, such as "cluster.nodes[0].count", for all that takes a path: ``--set``, ``--vary``."""

from __future__ import annotations

import re
from typing import Any

from lab.experiments.schema import Problem

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def put(tree: Any, path: str, value: Any, problems: list[Problem]) -> None:
    """Sets a field; mappings that are not there yet are made, entries of lists are not."""
    parts: list[str | int] = [int(m[2]) if m[2] else m[1] for m in _PART.finditer(path)]
    for n, part in enumerate(parts):
        if isinstance(part, int) and not (isinstance(tree, list) and part < len(tree)):
            problems.append(Problem(path, f"there is no entry {part}"))
            return
        if isinstance(part, str) and not isinstance(tree, dict):
            problems.append(Problem(path, f"there is no field {part!r}: what is above it is no mapping"))
            return
        if n == len(parts) - 1:
            tree[part] = value
        elif isinstance(part, str):
            if tree.get(part) is None:
                tree[part] = {}
            tree = tree[part]
        else:
            tree = tree[part]
