"""Mistakes in an experiment's file that types do not show: words, times, rates, expressions, and what excludes what."""

from __future__ import annotations

import re
from typing import Any

import yaml

from lab.experiments import kwok, limits, measures, nodefiles, nodegroups, serving, traces
from lab.experiments import load as loads
from lab.experiments.expressions import Expression, ExpressionError, meant
from lab.experiments.library import own
from lab.experiments.model import FIGURES, FILES, KIND, MODES, VERSION, Experiment, Trace, Work
from lab.experiments.schema import Problem, expression, one_of, part_of, rate_of, seconds_of, time_of
from lab.experiments.stepchecks import check_steps
from nodeagent.runtime import stages
from scheduler.framework.profiles import load_plugin

MAX_COUNT = 100_000  # seeds, or nodes of a group


def check(e: Experiment, problems: list[Problem]) -> None:
    """Adds every problem of a file whose types are right."""
    if e.api_version != VERSION or e.kind != KIND:
        problems.append(Problem("apiVersion", f"{e.api_version} {e.kind} is not {VERSION} {KIND}"))
    if not 1 <= e.seeds <= MAX_COUNT:
        problems.append(Problem("seeds", f"must be 1 to {MAX_COUNT}"))
    _cluster(e, problems)
    _behaviour(e, problems)
    for n, work in enumerate(e.workload):
        _work(work, f"workload[{n}]", problems)
    marks = check_steps(e, problems)
    seconds_of(e.for_, "for", problems)
    _measures(e, marks, problems)
    _expectations(e, problems)
    _report(e, problems)
    problems += limits.refusals(e)


def _cluster(e: Experiment, problems: list[Problem]) -> None:
    def bad(path: str, text: str) -> None:
        problems.append(Problem(path, text))

    one_of("cluster.mode", e.cluster.mode, MODES, problems)
    if e.cluster.mode == "cycle":
        for n, work in enumerate(e.workload):
            if work.trace is None:
                bad(f"workload[{n}]", "in mode cycle pods come from a trace: there is nothing but the scheduler's decisions")
        parts = {"steps": e.steps, "behaviour": e.behaviour, "stages": e.stages, "cluster.objects": e.cluster.objects}
        for part in (p for p, value in parts.items() if value):
            bad(part, "has no meaning in mode cycle: nothing but the scheduler's decisions happens")
        if len(e.workload) != 1:
            bad("workload", "needs exactly one trace in mode cycle")
    one_of("cluster.heartbeats", e.cluster.heartbeats, ("full", "elided"), problems)
    nodegroups.check(e.cluster, problems)
    if not e.cluster.nodes and not any(g.min for g in (e.cluster.autoscaler.groups if e.cluster.autoscaler else ())):
        bad("cluster.nodes", "is required: at least one group")
    for n, group in enumerate(e.cluster.nodes):
        if not 1 <= group.count <= MAX_COUNT:
            bad(f"cluster.nodes[{n}].count", f"must be 1 to {MAX_COUNT}")
        nodefiles.check(group, f"cluster.nodes[{n}]", problems)
        if group.trace:
            one_of(f"cluster.nodes[{n}].format", group.format, traces.FORMATS, problems)
    for n, text in enumerate(e.cluster.scheduler.plugins):
        try:
            load_plugin(text)
        except Exception as error:  # whatever a user's file raises
            bad(f"cluster.scheduler.plugins[{n}]", f"{type(error).__name__}: {error}")


def _behaviour(e: Experiment, problems: list[Problem]) -> None:
    kwok.read(e.stages, "stages", problems)
    fields = stages.Stages.__dataclass_fields__
    names = tuple(f.replace("_", "-") for f in fields)
    for selector, declared in e.behaviour.items():
        if selector != "default" and "=" not in selector and not selector.startswith("image:"):
            problems.append(Problem(f"behaviour.{selector}", "is neither default, nor label=value, nor image:NAME"))
        for key, value in declared.items():
            try:
                if key in serving.FIELDS:
                    serving.value(key, value)
                elif key.replace("-", "_") not in fields:
                    raise ValueError(f"there is no such stage{meant(key, (*names, *serving.FIELDS))}")
                else:
                    stages.value(key.replace("-", "_"), str(value))
            except ValueError as error:
                problems.append(Problem(f"behaviour.{selector}.{key}", str(error)))


def _work(work: Work, path: str, problems: list[Problem]) -> None:
    sorts = [k for k in Work.__struct_fields__ if getattr(work, k) is not None]
    if len(sorts) != 1:
        has = ", ".join(sorts) or "none"
        problems.append(Problem(path, f"needs exactly one of {', '.join(Work.__struct_fields__)}, and has {has}"))
    if work.apply is not None:
        _manifests(work.apply, f"{path}.apply", problems)
    if work.generate is not None and work.generate.count < 1:
        problems.append(Problem(f"{path}.generate.count", "must be at least 1"))
    if work.trace is not None:
        _check_trace(work.trace, f"{path}.trace", problems)
    if work.arrivals is not None:
        seconds_of(work.arrivals.for_, f"{path}.arrivals.for", problems)
        if bool(work.arrivals.poisson) == bool(work.arrivals.every):
            problems.append(Problem(f"{path}.arrivals", "needs poisson (such as 12/min) or every (such as 5s)"))
        elif work.arrivals.poisson:
            rate_of(work.arrivals.poisson, f"{path}.arrivals.poisson", problems)
    if work.load is not None:
        try:
            loads.rate(work.load.rate)
        except ValueError as error:
            problems.append(Problem(f"{path}.load.rate", str(error)))
        if work.load.cpu:
            seconds_of(work.load.cpu, f"{path}.load.cpu", problems)
        if work.load.metric and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,47}", work.load.metric):
            problems.append(Problem(f"{path}.load.metric", "must be a metric's name of at most 48 letters, digits and _"))
        if not work.load.path.startswith("/"):
            problems.append(Problem(f"{path}.load.path", "must begin with /"))
        rate_of(work.load.capacity, f"{path}.load.capacity", problems)
        for name in ("timeout", "latency", "backoff"):
            seconds_of(getattr(work.load, name), f"{path}.load.{name}", problems)
        time_of(work.load.programming, f"{path}.load.programming", problems)
        one_of(f"{path}.load.connections", work.load.connections, ("new", "kept"), problems)
        if work.load.from_ != "outside" and not re.fullmatch(r"node/\S+", work.load.from_):
            problems.append(Problem(f"{path}.load.from", f"{work.load.from_!r} is neither outside nor node/NAME"))
        for name, least in (("clients", 1), ("retries", 0)):
            if getattr(work.load, name) < least:
                problems.append(Problem(f"{path}.load.{name}", f"must be at least {least}"))


def _manifests(what: Any, path: str, problems: list[Problem]) -> None:
    """That a text is YAML, and each of its objects has what an object must have; the rest is the API server's to say."""
    try:
        listed = list(yaml.safe_load_all(what)) if isinstance(what, str) else what if isinstance(what, list) else [what]
    except yaml.YAMLError as error:
        problems.append(Problem(path, f"is no YAML: {' '.join(str(error).split())}"))
        return
    for n, one in enumerate(o for o in listed if o is not None):
        where = f"{path}[{n}]" if len(listed) > 1 else path
        if not isinstance(one, dict) or not one.get("apiVersion") or not one.get("kind"):
            problems.append(Problem(where, "is no object: apiVersion and kind are needed"))
    if "${draw." in str(what):
        problems.append(Problem(path, "${draw...} is for templates of arrivals and generate"))


def _measures(e: Experiment, marks: list[str], problems: list[Problem]) -> None:
    """Series, plots and measures, each of which may name those before it."""
    services = [work.load.service for work in e.workload if work.load is not None]
    names = ["begin", "finish", *marks, *measures.RESOURCES, *services]
    for name, text in e.series.items():
        _measure(text, f"series.{name}", names, problems)
        names.append(name)
    for n, plot in enumerate(e.plots):
        path = f"plots[{n}]"
        for key in ("y", "x"):
            if text := getattr(plot, key):
                expression(text, f"{path}.{key}", measures.FUNCTIONS, names, problems)
        for key in ("x_range", "y_range"):
            if (limits := getattr(plot, key)) and (len(limits) != 2 or limits[0] >= limits[1]):
                problems.append(Problem(f"{path}.{key.replace('_', '-')}", "needs two numbers, the smaller one first"))
        if plot.step <= 0:
            problems.append(Problem(f"{path}.step", "must be above 0"))
        if not re.fullmatch(r"[\w-]+", plot.name) or plot.name in [p.name for p in e.plots[:n]]:
            problems.append(Problem(f"{path}.name", "must be a name of its own: letters, digits, hyphens"))
    for name, text in e.measure.items():
        _measure(text, f"measure.{name}", names, problems)
        names += measures.names_of(name, text)


def _measure(text: str, path: str, names: list[str], problems: list[Problem]) -> None:
    try:
        if own.function(text) is None:
            expression(text, path, measures.FUNCTIONS, names, problems)
            Expression(text).listed("quantiles", 1)
    except ExpressionError as error:
        if not problems or problems[-1].path != path:
            problems.append(Problem(path, str(error)))


def _expectations(e: Experiment, problems: list[Problem]) -> None:
    values = [n for name, text in e.measure.items() for n in measures.names_of(name, text)]

    def bad(path: str, text: str) -> None:
        problems.append(Problem(path, text))

    for n, one in enumerate(e.expect):
        path = f"expect[{n}]"
        if isinstance(one, str):
            expression(one, path, (), values, problems)
        elif sum(map(bool, (one.expr, one.compare, one.reference))) != 1:
            bad(path, "needs exactly one of expr, compare and reference")
        elif one.reference:
            if e.reference is None:
                bad(f"{path}.reference", "there is no reference in this file")
            if one.reference not in values:
                bad(f"{path}.reference", f"there is no measure {one.reference!r}{meant(one.reference, values)}")
        elif one.expr:
            expression(one.expr, f"{path}.expr", (), values, problems)
            one_of(f"{path}.of", one.of, ("every", "mean"), problems)
        elif one.compare not in values:
            bad(f"{path}.compare", f"there is no measure {one.compare!r}{meant(one.compare, values)}")
        elif one.confidence and not _is_share(one.confidence):
            bad(f"{path}.confidence", f"{one.confidence!r} is no confidence such as 95%")


def _is_share(value: Any) -> bool:
    try:
        return part_of(value) < 1
    except ValueError:
        return False


def _check_trace(trace: Trace, path: str, problems: list[Problem]) -> None:
    one_of(f"{path}.format", trace.format, traces.FORMATS, problems)
    one_of(f"{path}.order", trace.order, ("recorded", "shuffled"), problems)
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


def _report(e: Experiment, problems: list[Problem]) -> None:
    for n, form in enumerate(e.report.formats):
        one_of(f"report.formats[{n}]", form, FILES, problems)
    if isinstance(e.report.plots, str):
        one_of("report.plots", e.report.plots, ("default", "all", "none"), problems)
    else:
        for n, kind in enumerate(e.report.plots):
            one_of(f"report.plots[{n}]", kind, FIGURES, problems)
    if e.report.pareto and len(e.report.pareto) != 2:
        problems.append(Problem("report.pareto", f"needs two measures, and has {len(e.report.pareto)}"))
    for name, goal in e.report.pareto.items():
        if name not in e.measure:
            problems.append(Problem(f"report.pareto.{name}", f"there is no measure {name!r}{meant(name, e.measure)}"))
        one_of(f"report.pareto.{name}", goal, ("least", "most"), problems)
