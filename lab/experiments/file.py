"""The file of an experiment: what it may say, and every mistake in it at once.

``load`` reads a file into a tree in which manifests are inlined, so that a run needs nothing beside it; ``cells`` are its
combinations of levels; ``parse`` makes one cell's tree into an Experiment.
"""

from __future__ import annotations

import copy
import csv
import itertools
import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from apiserver.cel.engine import CelError, compile_cel
from lab.experiments import load as loads
from lab.experiments import measures, traces
from lab.experiments.expressions import Expression, ExpressionError, meant
from lab.experiments.schema import Problem, Strict, Words, WrongFile, read, seconds_of
from lab.experiments.state import CEL, State, split
from lab.twin import calibration
from nodeagent.runtime import stages
from scheduler.framework.profiles import load_plugin

VERSION, KIND = "lab.navarch.dev/v1", "Experiment"
MODES = ("simulated", "cycle")
DESIGNS = ("full", "one-at-a-time", "pairs")

CONDITIONS = (
    "cel", "ready", "desired", "unavailable", "total", "pending", "succeeded", "running_image", "nodes_ready", "available",
    "rolled_out", "stuck", "node_ready",
)  # fmt: skip
"""The functions of State that ``until`` and ``when`` may call."""
assert all(hasattr(State, name) for name in CONDITIONS)

FAULTS = ("power-off", "partition", "crash", "cut", "kill")
DEEDS = (
    "apply", "delete", "scale", "set-image", "restart", "pause", "resume", "cordon", "uncordon", "drain", "evict", "patch",
)  # fmt: skip


class Metadata(Strict):
    name: str


class Taint(Strict):
    key: str
    value: str = ""
    effect: str = "NoSchedule"


class Nodes(Strict):
    """A group of nodes that are alike; or those of a ``trace``, a file of a ``format`` (see lab/experiments/traces.py)."""

    count: int = 1
    trace: str = ""
    """A file of nodes; then only ``format`` and ``pods`` count beside it."""
    format: str = "csv"
    prefix: str = "node-"
    """Of the names: node-1, node-2 and so on."""
    cpu: Words = "4"
    memory: Words = "16Gi"
    pods: int = 110
    zones: int = 0
    """In so many zones they lie in turn (zone-1, zone-2 and so on)."""
    labels: dict[str, Words] = {}
    resources: dict[str, Words] = {}
    taints: list[Taint] = []


class SchedulerPart(Strict):
    plugins: list[str] = []
    """``file.py:Class``, ``module:Class``, or the name of one that comes with navarch."""
    config: str = ""
    """A KubeSchedulerConfiguration: a file, or its text."""
    tie_break: str = "random"
    """Among equal nodes: random, name, or shuffled (one order from the seed)."""


class ClusterPart(Strict):
    nodes: list[Nodes] = []
    mode: str = "simulated"
    heartbeats: str = "full"
    """Or elided, with the same outcome at less cost."""
    events: bool = True
    """Whether Event objects are written."""
    set: dict[str, Words] = {}
    """Settings of components, such as controllers.node-monitor-grace-period."""
    scheduler: SchedulerPart = msgspec.field(default_factory=SchedulerPart)


class Arrivals(Strict):
    """Objects that come over time: ``poisson`` or ``every``; ``draw`` gives ``${draw.NAME}`` in the template its values."""

    template: Any
    for_: Words
    poisson: str = ""
    every: Words = ""
    count: int = 0
    draw: dict[str, Words] = {}


class Trace(Strict):
    """Pods of a file. ``window``: from and to, in the trace's time; ``sample``: so large a part of them, such as 10%;
    ``speed``: so many seconds of the trace go by in one; ``order``: recorded or shuffled; ``demand``: of a resource, the part
    of the cluster's capacity (such as 130%) until which more pods are drawn. ``one-by-one``: each arrives once the one before
    is decided upon, none leaves, and those that fit nowhere are dropped."""

    file: str
    format: str = "csv"
    speed: float = 1.0
    window: list[Words] = []
    sample: Words = "100%"
    order: str = "recorded"
    demand: dict[str, Words] = {}
    one_by_one: bool = False


class Load(Strict):
    """Requests to a service. ``rate``: also a shape (see lab/experiments/load.py); ``latency``: the way there and back;
    ``capacity``: requests a second that one pod can answer; ``cpu``: time of a core that a request takes; pods use so much, by
    the annotation hollow.navarch.dev/cpu that metrics read."""

    service: str
    rate: Words
    timeout: Words = "2s"
    latency: Words = "10ms"
    capacity: Words = "100/s"
    programming: Words = "50ms"
    """How long after a change of the endpoints the proxies know of it."""
    for_: Words = ""
    cpu: Words = ""


class Work(Strict):
    """Exactly one of these."""

    apply: Any = None
    """Manifests: a file, a text, an object, a list, ``{helm: CHART, name, values}`` or ``{kustomize: FOLDER}``; at the
    start."""
    arrivals: Arrivals | None = None
    load: Load | None = None
    trace: Trace | None = None


class Step(Strict):
    """At most one of ``do`` and ``fault``. It begins at ``at``, once ``when`` holds, and ends after ``wait``, once ``until``
    holds."""

    at: Words = ""
    when: str = ""
    do: dict[str, Any] = {}
    fault: dict[str, Words] = {}
    wait: Words = ""
    until: str = ""
    within: Words = "10m"
    on_timeout: str = "record"
    mark: str = ""


class Expectation(Strict):
    """``expr`` holds for every run, or for the mean over the seeds of each cell (``of: mean``); ``where`` picks levels.

    Or a measure that is in the ``reference``: the mean of each cell is not further from its than so many of its ``deviations``.

    Or ``compare`` a measure between two levels of a factor: ``less`` is below ``than``, in the mean over all pairs of runs that
    differ in this factor only.
    """

    expr: str = ""
    of: str = "every"
    where: dict[str, Words] = {}
    compare: str = ""
    factor: str = ""
    less: Words = ""
    than: Words = ""
    reference: str = ""
    deviations: float = 1.0


class Plot(Strict):
    """A series over another, or over time: a line for each cell, with its spread over the seeds. ``step``: of x."""

    name: str
    y: str
    x: str = ""
    title: str = ""
    step: float = 1.0
    x_label: str = ""
    y_label: str = ""
    x_range: list[float] = []
    y_range: list[float] = []


class Reference(Strict):
    """Results of others, to be set beside ours: CSV with a column for each factor, and measure, mean, deviation."""

    file: str
    title: str = "Reference"


class Experiment(Strict):
    metadata: Metadata
    """``name``, after which the folder of results is called."""
    api_version: str = ""
    """``lab.navarch.dev/v1``."""
    kind: str = ""
    """``Experiment``."""
    question: str = ""
    """Stands at the head of the report."""
    cluster: ClusterPart = msgspec.field(default_factory=ClusterPart)
    behaviour: dict[str, dict[str, Words]] = {}
    """Stages of simulated containers: by ``default``, ``label=value`` or ``image:NAME``; times,
    distributions, empirical(file)."""
    workload: list[Work] = []
    factors: dict[str, Any] = {}
    """By name, the levels: a list of values, or a map of level to values (``${name.key}``) and ``patch``, which
    changes the file."""
    design: str | list[Any] = "full"
    """The combinations of levels that are run; see Words."""
    seeds: int = 1
    """Of each cell, so many runs, with seeds from 1 on."""
    steps: list[Step] = []
    """One after another."""
    for_: Words = "0s"
    """How long a run goes on after its last step."""
    series: dict[str, str] = {}
    """Names for values over time, which measures and plots use."""
    measure: dict[str, str] = {}
    """By name, an expression that gives a number."""
    plots: list[Plot] = []
    reference: Reference | None = None
    expect: list[str | Expectation] = []
    """Expectations; the exit code of ``run`` is 1 if something is not. A text is an ``expr``."""


class Cell(NamedTuple):
    """One combination of levels, and what the file says with it."""

    levels: Mapping[str, str]
    tree: dict[str, Any]

    @property
    def name(self) -> str:
        return ",".join(f"{k}={v}" for k, v in self.levels.items()) or "all"


def load(path: Path, overrides: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The tree of a file with manifests inlined. Raises WrongFile, OSError."""
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise WrongFile([Problem("", f"is no YAML: {' '.join(str(error).split())}")]) from error
    if not isinstance(tree, dict):
        raise WrongFile([Problem("", "a mapping is expected")])
    problems: list[Problem] = []
    for where, value in overrides.items():
        _put(tree, where.split("."), value, where, problems)
    _inline(tree, path.parent, "", problems)
    behaviour = tree.get("behaviour")
    if isinstance(behaviour, dict) and isinstance(name := behaviour.get("calibrated"), str):
        del behaviour["calibrated"]
        try:
            behaviour["default"] = calibration.load(path.parent / name) | (behaviour.get("default") or {})
        except (OSError, ValueError) as error:
            problems.append(Problem("behaviour.calibrated", str(error)))
    design = tree.get("design")
    if isinstance(design, str) and design.endswith(".csv"):
        try:
            with (path.parent / design).open(newline="") as points:
                tree["design"] = list(csv.DictReader(points))
        except OSError as error:
            problems.append(Problem("design", f"{design}: {error.strerror}"))
    if problems:
        raise WrongFile(problems)
    return tree


def _put(tree: Any, path: list[str], value: Any, where: str, problems: list[Problem]) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {}) if isinstance(tree, dict) else None
    if not isinstance(tree, dict):
        problems.append(Problem(where, "cannot be set: what is above it is no mapping"))
        return
    tree[path[-1]] = value


def _inline(tree: Any, folder: Path, path: str, problems: list[Problem]) -> None:
    """Reads the files that ``apply``, ``template`` and ``config`` name; paths of traces, plugins and references stay paths."""
    if isinstance(tree, list):
        for n, one in enumerate(tree):
            _inline(one, folder, f"{path}[{n}]", problems)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            where = f"{path}.{key}".lstrip(".")
            if key in ("apply", "template", "config") and isinstance(value, str) and "\n" not in value and value:
                try:
                    tree[key] = (folder / value).read_text()
                except OSError as error:
                    problems.append(Problem(where, f"{value}: {error.strerror}"))
            elif key == "apply" and isinstance(value, dict) and ("helm" in value or "kustomize" in value):
                tree[key] = _rendered(value, folder, where, problems)
            elif isinstance(value, str) and (call := _FILE.fullmatch(value.strip())):
                try:
                    if call[1] == "trace":
                        tree[key] = loads.shape_of(folder / call[2].strip())
                    else:
                        tree[key] = f"choice({', '.join((folder / call[2].strip()).read_text().split())})"
                except OSError as error:
                    problems.append(Problem(where, f"{call[2]}: {error.strerror}"))
                except ValueError as error:
                    problems.append(Problem(where, str(error)))
            elif key in ("trace", "file") and isinstance(value, str) and value:
                tree[key] = str(folder / value) if not Path(value).is_absolute() else value
                if not Path(tree[key]).is_file():
                    problems.append(Problem(where, f"there is no file {value}"))
            elif key == "plugins" and isinstance(value, list):
                tree[key] = [
                    str(folder / one) if isinstance(one, str) and ".py:" in one and not one.startswith("/") else one
                    for one in value
                ]
            else:
                _inline(value, folder, where, problems)


_FILE = re.compile(r"(trace|empirical)\((.+)\)")


def _rendered(what: Mapping[str, Any], folder: Path, path: str, problems: list[Problem]) -> str:
    """The manifests that helm or kustomize make of a folder: ``{helm: chart, name: web, values: file or mapping}`` or
    ``{kustomize: folder}``."""
    program, fields = ("helm", ("helm", "name", "values")) if "helm" in what else ("kustomize", ("kustomize",))
    for key in set(what) - set(fields):
        problems.append(Problem(f"{path}.{key}", f"there is no such field{meant(key, fields)}"))
    target = str(folder / str(what[program]))
    stdin: str | None = None
    if program == "helm":
        command = ["helm", "template", str(what.get("name", "web")), target]
        values = what.get("values")
        if isinstance(values, str):
            command += ["--values", str(folder / values)]
        elif values:
            command, stdin = [*command, "--values", "-"], yaml.safe_dump(values)
    else:
        command = ["kustomize", "build", target] if shutil.which("kustomize") else ["kubectl", "kustomize", target]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        problems.append(Problem(path, f"there is no program {command[0]!r} here: install it, or inline its output"))
        return ""
    except subprocess.TimeoutExpired:
        problems.append(Problem(path, f"{' '.join(command)} did not end within 60 s"))
        return ""
    if done.returncode:
        text = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        problems.append(Problem(path, f"{' '.join(command[:2])}: {text}"))
    return str(done.stdout)


def cells(tree: dict[str, Any]) -> list[Cell]:
    """All combinations of the factors' levels that the design asks for. Raises WrongFile."""
    problems: list[Problem] = []
    factors = tree.get("factors") or {}
    levels: dict[str, dict[str, Any]] = {}
    for name, levels_of in factors.items() if isinstance(factors, dict) else ():
        if isinstance(levels_of, list) and levels_of:
            levels[name] = {str(v): v for v in levels_of}
        elif isinstance(levels_of, dict) and levels_of:
            levels[name] = {str(k): v for k, v in levels_of.items()}
        else:
            text = "needs at least one level: a list of values, or a mapping of level to patch"
            problems.append(Problem(f"factors.{name}", text))
    design = tree.get("design", "full")
    if design not in DESIGNS and not isinstance(design, list):
        problems.append(Problem("design", f"there is no design {design!r}{meant(str(design), DESIGNS)}"))
    if problems:
        raise WrongFile(problems)
    if design == "full":
        combinations = [dict(zip(levels, choice, strict=True)) for choice in itertools.product(*(v for v in levels.values()))]
    elif design == "one-at-a-time":
        first = {name: next(iter(of_factor)) for name, of_factor in levels.items()}
        combinations = [first, *(first | {n: v} for n, of_factor in levels.items() for v in list(of_factor)[1:])]
    elif design == "pairs":
        combinations = pairs({name: list(of_factor) for name, of_factor in levels.items()})
    else:
        combinations = _points(design, levels, problems)
        if problems:
            raise WrongFile(problems)
    out = []
    for combination in combinations:
        base = copy.deepcopy({k: v for k, v in tree.items() if k != "factors"})
        values: dict[str, Any] = {}
        for name, level in combination.items():
            value = levels[name][level]
            if isinstance(value, dict):
                patch = value.get("patch")
                if isinstance(patch, dict):
                    _merge(base, patch)
                values |= {f"{name}.{k}": v for k, v in value.items() if k != "patch"}
            values[name] = level if isinstance(value, dict) else value
        out.append(Cell(combination, _substituted(base, values, "", problems)))
    if problems:
        raise WrongFile(list(dict.fromkeys(problems)))
    return out


def pairs(levels: Mapping[str, list[str]]) -> list[dict[str, str]]:
    """Few combinations in which every two levels of two factors meet at least once: the next one is always that which has the
    most pairs that have not met, the first in order among equals."""
    names = list(levels)
    open_: set[tuple[tuple[str, str], tuple[str, str]]] = {
        ((a, x), (b, y)) for n, a in enumerate(names) for b in names[n + 1 :] for x in levels[a] for y in levels[b]
    }
    if len(names) < 2:
        return [{n: v} for n in names for v in levels[n]] or [{}]

    def meets(one: Mapping[str, str]) -> set[tuple[tuple[str, str], tuple[str, str]]]:
        listed = [(n, one[n]) for n in names if n in one]
        return {(a, b) for k, a in enumerate(listed) for b in listed[k + 1 :]} & open_

    out = []
    while open_:
        chosen: dict[str, str] = dict(min(open_, key=lambda pair: [(names.index(n), levels[n].index(v)) for n, v in pair]))
        for name in names:
            if name not in chosen:
                chosen[name] = max(levels[name], key=lambda v: (len(meets(chosen | {name: v})), -levels[name].index(v)))
        out.append({n: chosen[n] for n in names})
        open_ -= meets(chosen)
    return out


def _points(rows: list[Any], levels: Mapping[str, Mapping[str, Any]], problems: list[Problem]) -> list[dict[str, str]]:
    """The combinations that a file of points lists: a column a factor. They were read as ``design``."""
    out: list[dict[str, str]] = []
    for n, row in enumerate(rows):
        one = {str(k): str(v) for k, v in row.items()} if isinstance(row, dict) else {}
        for name in levels:
            if name not in one:
                problems.append(Problem(f"design[{n}]", f"has no level for the factor {name}"))
            elif one[name] not in levels[name]:
                text = f"there is no level {one[name]!r}{meant(one[name], levels[name])}"
                problems.append(Problem(f"design[{n}].{name}", text))
        for name in set(one) - set(levels):
            problems.append(Problem(f"design[{n}].{name}", f"there is no such factor{meant(name, levels)}"))
        out.append({name: one.get(name, "") for name in levels})
    if not out:
        problems.append(Problem("design", "has no points"))
    return list({tuple(one.items()): one for one in out}.values())


def _merge(tree: dict[str, Any], patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = copy.deepcopy(value)


_VARIABLE = re.compile(r"\$\{([\w.-]+)\}")


def _substituted(tree: Any, values: Mapping[str, Any], path: str, problems: list[Problem]) -> Any:
    if isinstance(tree, dict):
        return {k: _substituted(v, values, f"{path}.{k}".lstrip("."), problems) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_substituted(v, values, f"{path}[{n}]", problems) for n, v in enumerate(tree)]
    if not isinstance(tree, str):
        return tree

    def value(match: re.Match[str]) -> str:
        if match[1].startswith(("draw.", "n")) and match[1] not in values:
            return match[0]  # of arrivals
        if match[1] not in values:
            problems.append(Problem(path, f"there is no factor {match[1]!r}{meant(match[1], values)}"))
        return str(values.get(match[1], ""))

    whole = _VARIABLE.fullmatch(tree)
    if whole and whole[1] in values:
        return values[whole[1]]
    return _VARIABLE.sub(value, tree)


def parse(tree: dict[str, Any]) -> Experiment:
    """One cell's tree as an Experiment. Raises WrongFile with every mistake."""
    problems: list[Problem] = []
    experiment = read(Experiment, {"api-version" if k == "apiVersion" else k: v for k, v in tree.items()}, "", problems)
    if experiment is None:
        raise WrongFile(problems)
    _check(experiment, problems)
    if problems:
        raise WrongFile(problems)
    return experiment


def _check(e: Experiment, problems: list[Problem]) -> None:
    """Checks what types do not say."""

    def bad(path: str, text: str) -> None:
        problems.append(Problem(path, text))

    def one_of(path: str, word: str, choices: tuple[str, ...]) -> None:
        if word not in choices:
            bad(path, f"{word!r} is none of {', '.join(choices)}{meant(word, choices) if len(choices) > 1 else ''}")

    if e.api_version != VERSION or e.kind != KIND:
        bad("apiVersion", f"{e.api_version} {e.kind} is not {VERSION} {KIND}")
    if e.cluster.mode not in MODES:
        bad("cluster.mode", f"{e.cluster.mode!r}: only simulated and cycle exist so far")
    if e.cluster.mode == "cycle":
        for n, work in enumerate(e.workload):
            if work.trace is None:
                bad(f"workload[{n}]", "in mode cycle pods come from a trace: there is nothing but the scheduler's decisions")
        for part in ("steps", "behaviour"):
            if getattr(e, part):
                bad(part, "has no meaning in mode cycle: nothing but the scheduler's decisions happens")
        if len(e.workload) != 1:
            bad("workload", "needs exactly one trace in mode cycle")
    one_of("cluster.heartbeats", e.cluster.heartbeats, ("full", "elided"))
    if e.seeds < 1:
        bad("seeds", "at least one is needed")
    if not e.cluster.nodes:
        bad("cluster.nodes", "is required: at least one group")
    for n, group in enumerate(e.cluster.nodes):
        if group.count < 1:
            bad(f"cluster.nodes[{n}].count", "must be at least 1")
        if group.trace:
            one_of(f"cluster.nodes[{n}].format", group.format, tuple(traces.FORMATS))
    for n, text in enumerate(e.cluster.scheduler.plugins):
        try:
            load_plugin(text)
        except Exception as error:  # whatever a user's file raises
            bad(f"cluster.scheduler.plugins[{n}]", f"{type(error).__name__}: {error}")
    for selector, stage_values in e.behaviour.items():
        stage_names = tuple(f.replace("_", "-") for f in stages.Stages.__dataclass_fields__)
        if selector != "default" and "=" not in selector and not selector.startswith("image:"):
            bad(f"behaviour.{selector}", "is neither default, nor label=value, nor image:NAME")
        for key, value in stage_values.items():
            try:
                if key.replace("-", "_") not in stages.Stages.__dataclass_fields__:
                    raise ValueError(f"there is no such stage{meant(key, stage_names)}")
                stages.value(key.replace("-", "_"), str(value))
            except ValueError as error:
                bad(f"behaviour.{selector}.{key}", str(error))
    for n, work in enumerate(e.workload):
        sorts = [k for k in ("apply", "arrivals", "load", "trace") if getattr(work, k) is not None]
        if len(sorts) != 1:
            has = ", ".join(sorts) or "none"
            bad(f"workload[{n}]", f"needs exactly one of apply, arrivals, load and trace, and has {has}")
        if work.trace is not None:
            _check_trace(work.trace, f"workload[{n}].trace", problems)
        if work.arrivals is not None:
            seconds_of(work.arrivals.for_, f"workload[{n}].arrivals.for", problems)
            if bool(work.arrivals.poisson) == bool(work.arrivals.every):
                bad(f"workload[{n}].arrivals", "needs poisson (such as 12/min) or every (such as 5s)")
            elif work.arrivals.poisson:
                rate_of(work.arrivals.poisson, f"workload[{n}].arrivals.poisson", problems)
        if work.load is not None:
            try:
                loads.rate(work.load.rate)
            except ValueError as error:
                bad(f"workload[{n}].load.rate", str(error))
            if work.load.cpu:
                seconds_of(work.load.cpu, f"workload[{n}].load.cpu", problems)
            rate_of(work.load.capacity, f"workload[{n}].load.capacity", problems)
            for name in ("timeout", "latency", "programming"):
                seconds_of(getattr(work.load, name), f"workload[{n}].load.{name}", problems)
    marks: list[str] = []
    for n, step in enumerate(e.steps):
        _check_step(step, f"steps[{n}]", marks, problems)
        if step.mark:
            marks.append(step.mark)
    seconds_of(e.for_, "for", problems)
    names = ["begin", "finish", *marks]
    for name, text in e.series.items():
        _expression(text, f"series.{name}", measures.FUNCTIONS, names, problems)
        names.append(name)
    for n, plot in enumerate(e.plots):
        for key in ("y", "x"):
            if text := getattr(plot, key):
                _expression(text, f"plots[{n}].{key}", measures.FUNCTIONS, names, problems)
        for key in ("x_range", "y_range"):
            if (limits := getattr(plot, key)) and (len(limits) != 2 or limits[0] >= limits[1]):
                bad(f"plots[{n}].{key.replace('_', '-')}", "needs two numbers, the smaller one first")
        if plot.step <= 0:
            bad(f"plots[{n}].step", "must be above 0")
        if not re.fullmatch(r"[\w-]+", plot.name) or plot.name in [p.name for p in e.plots[:n]]:
            bad(f"plots[{n}].name", "must be a name of its own: letters, digits, hyphens")
    for name, text in e.measure.items():
        _expression(text, f"measure.{name}", measures.FUNCTIONS, names, problems)
        names.append(name)
    for n, one in enumerate(e.expect):
        path = f"expect[{n}]"
        if isinstance(one, str):
            _expression(one, path, (), list(e.measure), problems)
        elif sum(map(bool, (one.expr, one.compare, one.reference))) != 1:
            bad(path, "needs exactly one of expr, compare and reference")
        elif one.reference:
            if e.reference is None:
                bad(f"{path}.reference", "there is no reference in this file")
            if one.reference not in e.measure:
                bad(f"{path}.reference", f"there is no measure {one.reference!r}{meant(one.reference, e.measure)}")
        elif one.expr:
            _expression(one.expr, f"{path}.expr", (), list(e.measure), problems)
            one_of(f"{path}.of", one.of, ("every", "mean"))
        elif one.compare not in e.measure:
            bad(f"{path}.compare", f"there is no measure {one.compare!r}{meant(one.compare, e.measure)}")


def part_of(value: Any) -> float:
    """0.1 of ``10%`` or 0.1. Raises ValueError."""
    text = str(value).strip()
    part = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    if not 0 < part < math.inf:
        raise ValueError
    return part


def _check_trace(trace: Trace, path: str, problems: list[Problem]) -> None:
    if trace.format not in traces.FORMATS:
        text = f"{trace.format!r} is none of {', '.join(traces.FORMATS)}{meant(trace.format, tuple(traces.FORMATS))}"
        problems.append(Problem(f"{path}.format", text))
    if trace.order not in ("recorded", "shuffled"):
        problems.append(Problem(f"{path}.order", f"{trace.order!r} is neither recorded nor shuffled"))
    if trace.speed <= 0:
        problems.append(Problem(f"{path}.speed", "must be above 0"))
    if trace.window and len(trace.window) != 2:
        problems.append(Problem(f"{path}.window", "needs two times, such as [0h, 6h]"))
    for n, one in enumerate(trace.window):
        seconds_of(one, f"{path}.window[{n}]", problems)
    for where, value in (("sample", trace.sample), *((f"demand.{k}", v) for k, v in trace.demand.items())):
        try:
            part_of(value)
        except ValueError:
            problems.append(Problem(f"{path}.{where}", f"{value!r} is no part such as 10%"))


def _check_step(step: Step, path: str, marks: list[str], problems: list[Problem]) -> None:
    if step.at:
        base, plus, offset = str(step.at).partition("+")
        if plus or base.strip() in marks:
            if base.strip() not in marks:
                text = f"there is no mark {base.strip()!r} before this step{meant(base.strip(), marks)}"
                problems.append(Problem(f"{path}.at", text))
            if plus:
                seconds_of(offset, f"{path}.at", problems)
        else:
            seconds_of(step.at, f"{path}.at", problems)
    for name in ("when", "until"):
        if text := getattr(step, name):
            _expression(text, f"{path}.{name}", CONDITIONS, (), problems)
            _cel(text, f"{path}.{name}", problems)
    if step.do and step.fault:
        problems.append(Problem(path, "has do and fault: make two steps of it"))
    for deed in step.do:
        if deed not in DEEDS:
            problems.append(Problem(f"{path}.do.{deed}", f"there is no such deed{meant(deed, DEEDS)}"))
        elif deed in ("scale", "set-image", "patch"):
            for reference in step.do[deed] if isinstance(step.do[deed], dict) else ("",):
                _reference(reference, f"{path}.do.{deed}", problems)
        elif deed in ("delete", "restart", "pause", "resume", "evict"):
            _reference(step.do[deed], f"{path}.do.{deed}", problems)
    fault_names = (*FAULTS, "for")
    for fault in step.fault:
        if fault not in fault_names:
            problems.append(Problem(f"{path}.fault.{fault}", f"there is no such fault{meant(fault, fault_names)}"))
    if step.fault and len([f for f in step.fault if f != "for"]) != 1:
        problems.append(Problem(f"{path}.fault", f"needs exactly one of {', '.join(FAULTS)}"))
    if step.wait:
        seconds_of(step.wait, f"{path}.wait", problems)
    seconds_of(step.within, f"{path}.within", problems)
    if step.on_timeout not in ("record", "fail"):
        problems.append(Problem(f"{path}.on-timeout", f"{step.on_timeout!r} is neither record nor fail"))


def _reference(text: Any, path: str, problems: list[Problem]) -> None:
    try:
        split(str(text))
    except ValueError as error:
        problems.append(Problem(path, str(error)))


def _cel(text: str, path: str, problems: list[Problem]) -> None:
    """Compiles what ``cel`` calls of a condition say."""
    try:
        sources = Expression(text).constants("cel", 1)
    except ExpressionError:
        return  # told already
    for source in sources:
        try:
            compile_cel(str(source), CEL)
        except CelError as error:
            problems.append(Problem(path, str(error)))


def _expression(text: str, path: str, functions: tuple[str, ...], names: Any, problems: list[Problem]) -> None:
    try:
        Expression(text).check(functions, names)
    except ExpressionError as error:
        problems.append(Problem(path, str(error)))


def rate_of(value: Any, path: str = "", problems: list[Problem] | None = None) -> float:
    """Of ``20/s``, ``12/min``, ``100/h``, a number a second. Raises WrongFile, or adds to ``problems``."""
    try:
        rate = loads.per_second(value)
        if not rate:
            raise ValueError
        return rate
    except ValueError:
        problem = Problem(path, f"{value!r} is no rate such as 20/s, 12/min, 100/h")
        if problems is None:
            raise WrongFile([problem]) from None
        problems.append(problem)
        return 1.0
