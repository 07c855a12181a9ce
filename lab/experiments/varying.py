"""Other values for any fields of a file: a grid of lists, or samples drawn from lists and distributions. Pure.

Each field that varies becomes a factor of its path's name, and the field itself its variable, so what comes out is an ordinary
file that says it all:

    varied(tree, {"cluster.nodes[0].count": [3, 6], "behaviour.default.ready": ["1s", "9s"]})       four cells
    varied(tree, {"cluster.nodes[0].count": [3, 6], "behaviour.default.ready": "uniform(1s, 9s)"}, samples=20)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from lab.experiments.fields import put
from lab.experiments.schema import Problem, WrongFile
from navarch.world import chance
from nodeagent.runtime.spread import Spread, spread


def varied(
    tree: Mapping[str, Any], fields: Mapping[str, Sequence[Any] | str], samples: int = 0, seed: str = "samples"
) -> dict[str, Any]:
    """A file whose cells have these values. Without ``samples``: all combinations of the lists; with it so many points, each a
    draw of every list or distribution, equal for equal ``seed``. Raises WrongFile."""
    out = copy.deepcopy(dict(tree))
    if out.get("factors") and samples:
        raise WrongFile([Problem("factors", "a file with factors of its own cannot be sampled: vary these as fields, too")])
    problems: list[Problem] = []
    levels: dict[str, Sequence[Any]] = {}
    own = chance(f"{seed} of a sweep")
    for path, values in fields.items():
        name = path.replace("[", ".").replace("]", "")
        try:
            levels[name] = _draws(values, samples, own) if samples else _list(values)
        except ValueError as error:
            problems.append(Problem(path, str(error)))
        put(out, path, f"${{{name}}}", problems)
    if problems:
        raise WrongFile(problems)
    factors = dict(out.get("factors") or {})
    factors |= {name: list({str(v): v for v in values}.values()) for name, values in levels.items()}
    out["factors"] = factors
    if samples:
        out["design"] = [{name: values[n] for name, values in levels.items()} for n in range(samples)]
    return out


def _list(values: Sequence[Any] | str) -> Sequence[Any]:
    if not isinstance(values, list | tuple | range) or not values:
        raise ValueError(f"{values!r}: a list of values is needed; a distribution needs --samples")
    return values


def _draws(values: Sequence[Any] | str, count: int, own: Any) -> list[Any]:
    """So many draws of a list, or of a distribution (seconds or plain numbers, to four digits)."""
    if not isinstance(values, str):
        return [own.choice(list(_list(values))) for _ in range(count)]
    of = spread(values)
    if not isinstance(of, Spread):
        raise ValueError(f"{values!r} is neither a list nor a distribution such as uniform(1s, 9s)")
    numbers = (float(f"{of.draw(own):.4g}") for _ in range(count))
    return [int(n) if n == int(n) else n for n in numbers]
