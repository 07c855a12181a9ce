"""Mistakes in an experiment's file that types do not show: words, times, rates, expressions, and what excludes what."""

from __future__ import annotations

import re
from functools import partial

import yaml

from lab.experiments import kwok, limits, nodefiles, nodegroups, serving, traces
from lab.experiments import load as loads
from lab.experiments.expressions import meant
from lab.experiments.manifests import VARIABLE, drawable, filled, of_text, written
from lab.experiments.measurechecks import check_expectations, check_measures
from lab.experiments.model import FIGURES, FILES, KIND, MAX_COUNT, MODES, VERSION, Experiment, Trace, Work
from lab.experiments.schema import Problem, above_0, attempt, one_of, part_of, rate_of, seconds_of, time_of
from lab.experiments.stepchecks import check_steps
from navarch.world import chance
from nodeagent.runtime import stages
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.profiles import load_plugin
from scheduler.framework.ties import RULES


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
    _manifests(e, problems)
    marks = check_steps(e, problems)
    seconds_of(e.for_, "for", problems)
    check_measures(e, marks, problems)
    check_expectations(e, problems)
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
    one_of("cluster.scheduler.tie-break", e.cluster.scheduler.tie_break, RULES, problems)
    plugins = []
    for n, text in enumerate(e.cluster.scheduler.plugins):
        try:
            plugins.append(load_plugin(text))
        except Exception as error:  # whatever a user's file raises
            bad(f"cluster.scheduler.plugins[{n}]", f"{type(error).__name__}: {error}")
    if len(plugins) == len(e.cluster.scheduler.plugins):
        try:
            SchedulerConfig.load(e.cluster.scheduler.config, plugins)
        except Exception as error:  # a plugin may raise whatever it likes when it is made
            bad("cluster.scheduler.config" if e.cluster.scheduler.config else "cluster.scheduler.plugins", str(error))


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
    if work.generate is not None and not 1 <= work.generate.count <= MAX_COUNT:
        problems.append(Problem(f"{path}.generate.count", f"must be 1 to {MAX_COUNT}"))
    if work.trace is not None:
        _check_trace(work.trace, f"{path}.trace", problems)
    if work.arrivals is not None:
        seconds_of(work.arrivals.for_, f"{path}.arrivals.for", problems)
        if bool(work.arrivals.poisson) == bool(work.arrivals.every):
            problems.append(Problem(f"{path}.arrivals", "needs poisson (such as 12/min) or every (such as 5s)"))
        elif work.arrivals.poisson:
            rate_of(work.arrivals.poisson, f"{path}.arrivals.poisson", problems)
        else:
            above_0(work.arrivals.every, f"{path}.arrivals.every", problems)
        if work.arrivals.count < 0:
            problems.append(Problem(f"{path}.arrivals.count", "must not be negative"))
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
            if not least <= getattr(work.load, name) <= MAX_COUNT:
                problems.append(Problem(f"{path}.load.{name}", f"must be {least} to {MAX_COUNT}"))


def _manifests(e: Experiment, problems: list[Problem]) -> None:
    """That a text is YAML, and each of its objects has what an object must have; the rest is the API server's to say."""
    for path, what, draw in written(e):
        before = len(problems)
        for name, value in (draw or {}).items():
            attempt(partial(drawable, value), f"{path.removesuffix('template')}draw.{name}", problems)
        drawn = {"n", *(f"draw.{name}" for name in draw or ())}
        text = what if isinstance(what, str) else str(what)
        if draw is None and "${draw." in text:
            problems.append(Problem(path, "${draw...} is for templates of arrivals and generate"))
        for name in dict.fromkeys(VARIABLE.findall(text)) if draw is not None else ():
            if name not in drawn:
                problems.append(Problem(path, f"nothing is drawn for ${{{name}}}{meant(name, drawn)}"))
        if len(problems) > before:
            continue
        try:
            listed = of_text(what if draw is None else filled(what, draw, chance("check"), 1))
        except yaml.YAMLError as error:
            problems.append(Problem(path, f"is no YAML: {' '.join(str(error).split())}"))
            continue
        for n, one in enumerate(listed):
            where = f"{path}[{n}]" if len(listed) > 1 else path
            if not isinstance(one, dict) or not one.get("apiVersion") or not one.get("kind"):
                problems.append(Problem(where, "is no object: apiVersion and kind are needed"))
            elif not isinstance(meta := one.get("metadata"), dict) or not (meta.get("name") or meta.get("generateName")):
                problems.append(Problem(where, f"{one['kind']}: metadata.name is required"))
        if not listed:
            problems.append(Problem(path, "has no object in it"))


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
