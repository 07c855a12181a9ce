"""A property of every file of the gallery: with any field away, renamed or of another type it is still valid, or each mistake
is told with its path; there is no traceback.
"""

from __future__ import annotations

import copy
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.experiments import file, wholechecks
from lab.experiments.asking import check_with_server
from lab.experiments.schema import Problem, WrongFile

FILES = sorted((Path(__file__).parents[3] / "deploy/experiments").glob("*.yaml"))
MUTANTS = 12  # of each file; all of them take minutes


def whole(path: Path) -> dict[str, Any]:
    """A file whose manifests are objects, so that their fields are fields of the file, too."""

    def objects(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {
                k: list(yaml.safe_load_all(v)) if k == "apply" and isinstance(v, str) and "${" not in v else objects(v)
                for k, v in tree.items()
            }
        return [objects(one) for one in tree] if isinstance(tree, list) else tree

    tree: dict[str, Any] = objects(file.load(path))
    return tree


def paths(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from paths(value, (*path, key))


OTHERS = (None, -1, 10**12, "x", "", "ü ~", [], {}, {"a": "b"}, ["x"], True, 0.5)


def mutant(tree: dict[str, Any], path: tuple[Any, ...], how: int) -> dict[str, Any]:
    """``how``: 0 and 1 take the field away or rename it, others give it another value."""
    out = copy.deepcopy(tree)
    place: Any = out
    for part in path[:-1]:
        place = place[part]
    if how == 0:
        del place[path[-1]]
    elif how == 1 and isinstance(place, dict):
        place[f"{path[-1]}x"] = place.pop(path[-1])
    else:
        place[path[-1]] = copy.deepcopy(OTHERS[how % len(OTHERS)])
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_mistake_anywhere_is_told_with_a_path(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wholechecks, "check_with_server", lambda experiments, problems: None)
    tree, chance = whole(path), random.Random(zlib.crc32(path.name.encode()))
    every, asked, told = list(paths(tree)), [], 0
    for where in chance.sample(every, MUTANTS):
        try:
            asked += wholechecks.check_whole(mutant(tree, where, chance.randrange(len(OTHERS) + 2)))
        except WrongFile as error:
            told += 1
            assert all(p.path and p.text for p in error.problems), (where, error.problems)
    assert told
    refused: list[Problem] = []
    check_with_server(asked, refused)  # once for all: each needs a server
    assert all(p.path.startswith(("workload[", "steps[", "cluster.objects[")) for p in refused)
