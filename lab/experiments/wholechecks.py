"""Mistakes that only the whole file shows, with all its factors: what expectations say of levels, and how things are named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lab.experiments import traces
from lab.experiments.asking import check_with_server
from lab.experiments.cells import cells
from lab.experiments.expect import published
from lab.experiments.expressions import meant
from lab.experiments.file import examined
from lab.experiments.model import Expectation, Experiment
from lab.experiments.names import check_names
from lab.experiments.schema import Problem, WrongFile

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
NEEDS = {"factor": "compare", "less": "compare", "than": "compare", "times": "compare", "confidence": "compare",
         "deviations": "reference", "of": "expr"}  # fmt: skip
_QUOTED = re.compile(r"\s*(\S+)\s*<=?\s*(?:([\d.]+)\s*\*\s*)?(\S+)\s*")


def check_whole(tree: dict[str, Any]) -> list[Experiment]:
    """Checks the file, and gives its cells. Raises WrongFile with every mistake."""
    problems: list[Problem] = []
    factors = tree.get("factors") or {}
    levels: dict[str, list[str]] = {}
    for name, of_factor in factors.items() if isinstance(factors, dict) else [("", None)]:
        levels[str(name)] = [str(v) for v in of_factor] if isinstance(of_factor, (list, dict)) else []
        if name == "seed":
            problems.append(Problem("factors.seed", "seeds are not a factor: say seeds: N"))
        for level in dict.fromkeys(v for v in levels[str(name)] if levels[str(name)].count(v) > 1):
            problems.append(Problem(f"factors.{name}", f"has the level {level} twice"))
    if not isinstance(factors, dict):
        problems.append(Problem("factors", "is not a mapping of names to levels"))
    metadata = tree.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(name, str) and not NAME.fullmatch(name):  # a folder is called so
        problems.append(Problem("metadata.name", f"{name!r} is no name: letters, digits, hyphens, dots"))
    expect = tree.get("expect")
    for n, one in enumerate(expect if isinstance(expect, list) else ()):
        if isinstance(one, dict):
            _expectation(one, f"expect[{n}]", levels, problems)
    try:
        listed = cells(tree)
    except WrongFile as error:
        raise WrongFile([*problems, *error.problems]) from None
    examinations = [examined(cell.tree) for cell in listed]
    problems += [problem for _, of_cell in examinations for problem in of_cell]
    experiments = [e for e, _ in examinations if e is not None]
    if len(experiments) == len(listed):
        _files(experiments, list(levels), problems)
        check_names(experiments, problems)
        check_with_server(experiments, problems)
    if problems:
        raise WrongFile(list(dict.fromkeys(problems)))
    return experiments


def _files(experiments: Sequence[Experiment], factors: Sequence[str], problems: list[Problem]) -> None:
    """Reads the traces and results of others that cells name, each once."""
    reads: dict[Any, tuple[str, Callable[[], Any]]] = {}
    for e in experiments:
        named: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
            (f"cluster.nodes[{n}].trace", traces.nodes, (Path(group.trace), group.format))
            for n, group in enumerate(e.cluster.nodes) if group.trace and group.format in traces.FORMATS
        ]  # fmt: skip
        named += [
            (f"workload[{n}].trace.file", traces.pods, (Path(w.trace.file), w.trace.format))
            for n, w in enumerate(e.workload) if w.trace is not None and w.trace.format in traces.FORMATS
        ]  # fmt: skip
        if e.reference is not None:
            named.append(("reference.file", published, (e.reference, tuple(factors))))
        reads |= {f"{call.__name__} {arguments}": (path, partial(call, *arguments)) for path, call, arguments in named}
    for path, read in reads.values():
        try:
            read()
        except (OSError, ValueError, LookupError) as error:
            problems.append(Problem(path, str(error)))


def _expectation(one: Mapping[str, Any], path: str, levels: Mapping[str, list[str]], problems: list[Problem]) -> None:
    fields = Expectation.__struct_encode_fields__
    for key in (k for k in one if k not in fields):
        text = _instead(str(key), one, levels) or f"there is no such field{meant(str(key), fields)}"
        problems.append(Problem(f"{path}.{key}", text))
    instead = any(_instead(str(key), one, levels) for key in one if key not in fields)
    for key, of in NEEDS.items():
        if key in one and of not in one and not instead:
            problems.append(Problem(f"{path}.{key}", f"has no meaning without {of}"))
    where = one.get("where")
    for factor, level in where.items() if isinstance(where, dict) else ():
        _level(factor, level, f"{path}.where.{factor}", levels, problems)
    if "compare" in one:
        for key in (k for k in ("factor", "less", "than") if k not in one):
            problems.append(Problem(f"{path}.{key}", "is required beside compare"))
        for key in (k for k in ("less", "than") if k in one and "factor" in one):
            _level(one["factor"], one[key], f"{path}.{key}", levels, problems)


def _level(factor: Any, level: Any, path: str, levels: Mapping[str, list[str]], problems: list[Problem]) -> None:
    if str(factor) not in levels:
        problems.append(Problem(path, f"there is no factor {factor!r}{meant(str(factor), levels)}"))
    elif str(level) not in levels[str(factor)]:
        problems.append(Problem(path, f"{factor} has no level {level!r}{meant(str(level), levels[str(factor)])}"))


def _instead(key: str, one: Mapping[str, Any], levels: Mapping[str, list[str]]) -> str:
    """The line to write instead of ``{wait.p95: "cheapest <= 1.1 * default"}``; "" if it is nothing of that kind."""
    match = _QUOTED.fullmatch(str(one[key]))
    factor = next((f for f, listed in levels.items() if match and match[1] in listed and match[3] in listed), "")
    if not match or not factor:
        return ""
    times = f", times: {match[2]}" if match[2] else ""
    sure = f", confidence: {one['confidence']}" if "confidence" in one else ""
    return f"write {{compare: {key}, factor: {factor}, less: {match[1]}, than: {match[3]}{times}{sure}}}"
