"""The folder of results: ``experiment.lock``, ``runs.csv``, ``points.csv``, tables, and ``reproduce.sh``.

    experiment.lock      the file with manifests inlined and every default filled in, the hash of each run's recording, the
                         hashes of the files that it names, commit, versions, machine; JSON
    points.csv           a row a cell: the level of each factor; as ``design`` it names these cells
    runs.csv             a row a run: levels, seed, measures, hash
    runs/NAME.jsonl.gz   the recording of a run (docs/recordings.md); NAME.json: levels, seed, measures, hash
    pods.parquet/        a part a run: a row a pod (lab/experiments/tables.py); nodes.parquet/ and decisions.parquet/ likewise
    reproduce.sh         runs everything again and compares the hashes
"""

from __future__ import annotations

import ast
import csv
import functools
import hashlib
import json
import os
import platform
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lab.experiments.file import Cell, Experiment, cells
from lab.experiments.origin import commit, machine, made_by, version
from lab.experiments.result import Result

LOCK = "experiment.lock"
LIBRARIES = ("numpy", "msgspec", "orjson", "cel-expr-python", "google-re2", "PyYAML")  # what a run computes with


def digest_of(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()


def completed(tree: Mapping[str, Any], kind: Any = Experiment) -> dict[str, Any]:
    """A file's tree with the default of every field that it does not name."""
    out = {k: v for k, v in tree.items()}
    for field in msgspec.structs.fields(kind):
        name = field.encode_name
        if name in ("api-version", "kind"):
            continue
        if name in out:
            out[name] = _completed(out[name], field.type)
        elif field.default is not msgspec.NODEFAULT and field.default is not None:
            out[name] = msgspec.to_builtins(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            out[name] = msgspec.to_builtins(field.default_factory())
    return out


def _completed(tree: Any, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(tree, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return completed(tree, kind)
    if isinstance(tree, dict) and origin is dict:
        return {k: _completed(v, arguments[1]) for k, v in tree.items()}
    if isinstance(tree, list) and origin is list:
        return [_completed(one, arguments[0]) for one in tree]
    if origin not in (list, dict):
        structs = [a for a in arguments if isinstance(a, type) and issubclass(a, msgspec.Struct)]
        if isinstance(tree, dict) and structs:
            return completed(tree, structs[0])
    return tree


def inputs(tree: Any) -> dict[str, str]:
    """The hash of every file that a tree names (manifests are in the tree itself), and of the modules beside a Python file that
    it imports."""
    out: dict[str, str] = {}
    paths = []
    for text in sorted({*_texts(tree)}):
        path = Path(text.partition(".py:")[0] + ".py" if ".py:" in text else text)
        if path.is_absolute() and len(text) < 1000 and "\n" not in text:
            paths.append(path)
    while paths:
        path = paths.pop()
        if str(path) not in out and path.is_file():
            out[str(path)], imported = _read(path, path.stat().st_mtime_ns, path.stat().st_size)
            paths += imported
    return dict(sorted(out.items()))


@functools.lru_cache(1024)
def _read(path: Path, changed: int, size: int) -> tuple[str, list[Path]]:
    """The hash of a file, and what it imports of its folder; kept until the file is another (``changed``, ``size``)."""
    content = path.read_bytes()
    names: list[str] = []
    try:
        for node in ast.walk(ast.parse(content)) if path.suffix == ".py" else ():
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names += [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    except (SyntaxError, ValueError):
        pass  # whoever loads it says so
    places = [path.parent.joinpath(*name.split(".")) for name in names if name]
    return hashlib.sha256(content).hexdigest(), [p for at in places for p in (at.with_suffix(".py"), at / "__init__.py")]


def _texts(tree: Any) -> Iterable[str]:
    if isinstance(tree, str):
        yield tree
    for one in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _texts(one)


def lock(tree: Mapping[str, Any], results: Sequence[Result] = (), command: Sequence[str] = ()) -> dict[str, Any]:
    """All that a run depends on, and what came of it. ``command``: the file, and the options that made of it what was run."""
    versions = {"navarch": version("navarch"), "python": platform.python_version()}
    versions |= {name: version(name) for name in LIBRARIES}
    files: dict[str, str] = {}
    for one in (tree, *(cell.tree for cell in cells(dict(tree)))):  # a level may be part of a file's name
        files |= inputs(one)
    return {
        "file": completed(tree), "digest": digest_of(tree), "commit": commit(), "versions": versions, "machine": machine(),
        "inputs": files, "hashes": {r.name: r.digest for r in results if not r.error}, "command": list(command),
    }  # fmt: skip


def read_lock(folder: Path) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    tree: dict[str, Any] = json.loads((folder / LOCK).read_text())
    return tree


def differences(locked: Mapping[str, Any]) -> list[str]:
    """Lines about what is not as it was when a folder was made: versions, commit, files."""
    now = lock(locked["file"])
    out = [
        f"{name} was {old}, and is {now['versions'].get(name, 'not here')}"
        for name, old in locked["versions"].items() if now["versions"].get(name) != old
    ]  # fmt: skip
    if locked["commit"] != now["commit"]:
        out.append(f"the commit was {locked['commit'] or 'unknown'}, and is {now['commit'] or 'unknown'}")
    for path, digest in locked["inputs"].items():
        if (new := now["inputs"].get(path)) != digest:
            out.append(f"{path} {'has changed' if new else 'is not here any more'}")
    return out


def write(
    folder: Path, tree: Mapping[str, Any], listed: Sequence[Cell], results: Sequence[Result], command: Sequence[str] = ()
) -> None:
    """Everything but the runs themselves."""
    replace(folder / LOCK, (json.dumps(lock(tree, results, command), indent=1, default=str) + "\n").encode())
    write_csv(folder / "runs.csv", results)
    if listed[0].levels:
        with (folder / "points.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(list(listed[0].levels))
            writer.writerows(list(c.levels.values()) for c in listed)
    script = folder / "reproduce.sh"
    script.write_text(_REPRODUCE.format(made_by=made_by(), python=platform.python_version(), runs=len(results)))
    script.chmod(0o755)


_REPRODUCE = """#!/bin/sh
# Makes the {runs} runs of this folder again, and compares the hash of each recording with experiment.lock.
# They were made by {made_by} on Python {python}. Exit code 0: all are the same.
set -eu
exec ${{NAVARCH:-navarch}} experiment verify "$(dirname "$0")" "$@"
"""


def replace(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.rename(path)


def write_csv(path: Path, listed: Sequence[Result]) -> None:
    """A row a run: levels, seed, measures, hash."""
    factors = list(dict.fromkeys(k for r in listed for k in r.levels))
    names = list(dict.fromkeys(k for r in listed for k in r.measures))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*factors, "seed", *names, "virtual_seconds", "timeouts", "hash", "error"])
        for r in listed:
            writer.writerow(
                [*(r.levels.get(f, "") for f in factors), r.seed, *(r.measures.get(n, "") for n in names),
                 round(r.virtual, 6), len(r.timeouts), r.digest, r.error.split("\n")[0]]
            )  # fmt: skip
