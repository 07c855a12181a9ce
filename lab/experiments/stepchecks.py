"""Mistakes in the steps of an experiment that types do not show."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from apiserver.cel.engine import CelError, compile_cel
from lab.experiments import load as loads
from lab.experiments.blank import try_condition
from lab.experiments.expressions import Expression, ExpressionError, meant
from lab.experiments.faults import OPTIONS
from lab.experiments.model import COMPONENTS, CONDITIONS, DEEDS, FAULTS, Experiment, Step
from lab.experiments.schema import Problem, attempt, expression, one_of, seconds_of
from lab.experiments.state import CEL, split
from lab.simulation.faultystore import FAILURES

BY_REFERENCE = {
    "scale": "{deployment/web: 5}", "set-image": '{deployment/web: "web:v2"}', "patch": "{deployment/web: {spec: ...}}",
}  # fmt: skip
_DEFAULTS = {f.encode_name: f.default for f in msgspec.structs.fields(Step)}
OF_ONE = ("delete", "restart", "pause", "resume", "evict")
OF_NODES = ("cordon", "uncordon", "drain", "power-on", "heal")


def check_steps(e: Experiment, problems: list[Problem]) -> list[str]:
    """Adds the problems of all steps; gives their marks."""
    marks: list[str] = []
    beside = any(step.after for step in e.steps)
    names = [step.name for step in e.steps if step.name]
    everywhere = [step.mark for step in e.steps if step.mark]
    for n, step in enumerate(e.steps):
        path = f"steps[{n}]"
        if step.name in names[: names.index(step.name)] or step.name == "begin" if step.name else False:
            problems.append(Problem(f"{path}.name", f"{step.name!r} is another step's name"))
        if step.after and step.after not in ("begin", *(s.name for s in e.steps[:n] if s.name)):
            text = f"there is no step {step.after!r} before this one{meant(step.after, ('begin', *names))}"
            problems.append(Problem(f"{path}.after", text))
        if step.mark in marks and step.mark:
            problems.append(Problem(f"{path}.mark", f"{step.mark!r} is the mark of another step"))
        if not step.until and not step.when:
            unused = [k for k, v in (("within", step.within), ("on-timeout", step.on_timeout)) if v != _DEFAULTS[k]]
            problems += [Problem(f"{path}.{k}", "has no meaning without when or until") for k in unused]
        check_step(step, path, everywhere if beside else marks, problems)
        _do(step, path, e, problems)
        _fault(step, path, problems)
        if step.mark:
            marks.append(step.mark)
    return marks


def check_step(step: Step, path: str, marks: list[str], problems: list[Problem]) -> None:
    """When it begins and ends."""
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
            before = len(problems)
            expression(text, f"{path}.{name}", CONDITIONS, (), problems)
            _cel(text, f"{path}.{name}", problems)
            if len(problems) == before:
                attempt(partial(try_condition, text), f"{path}.{name}", problems)
    if step.do and step.fault:
        problems.append(Problem(path, "has do and fault: make two steps of it"))
    if step.wait:
        seconds_of(step.wait, f"{path}.wait", problems)
    seconds_of(step.within, f"{path}.within", problems)
    one_of(f"{path}.on-timeout", step.on_timeout, ("record", "fail"), problems)


def _do(step: Step, path: str, e: Experiment, problems: list[Problem]) -> None:
    loaded = [work.load.service for work in e.workload if work.load is not None]
    for deed, value in step.do.items():
        where = f"{path}.do.{deed}"
        if deed not in DEEDS:
            hint = "; it is a fault: write fault instead of do" if deed in FAULTS else meant(deed, DEEDS)
            problems.append(Problem(where, f"there is no such deed{hint}"))
        elif deed in BY_REFERENCE or (deed == "undo" and isinstance(value, dict)):
            if not isinstance(value, dict):
                problems.append(Problem(where, f"a mapping is expected, such as {BY_REFERENCE[deed]}"))
            for reference, more in value.items() if isinstance(value, dict) else ():
                _reference(reference, where, problems)
                if deed in ("scale", "undo") and (not isinstance(more, int) or more < 0):
                    problems.append(Problem(f"{where}.{reference}", f"{more!r} is not a whole number"))
        elif deed in (*OF_ONE, "undo"):
            _reference(value, where, problems)
        elif deed in OF_NODES:
            _node(value, where, problems)
        elif deed in ("start", "mend"):
            one_of(where, str(value), COMPONENTS, problems)
        elif deed == "load":
            for service, rate in value.items() if isinstance(value, dict) else ():
                if service not in loaded:
                    text = f"there is no load on {service!r} in workload{meant(service, loaded)}"
                    problems.append(Problem(f"{where}.{service}", text))
                attempt(partial(loads.rate, rate), f"{where}.{service}", problems)
            if not isinstance(value, dict):
                problems.append(Problem(where, "a mapping is expected, such as {web: 100/s}"))
        elif deed == "run" and not e.allow_commands:
            text = "a file may run commands only if you say so: navarch experiment run --allow-commands FILE"
            problems.append(Problem(where, text))


def _fault(step: Step, path: str, problems: list[Problem]) -> None:
    where = f"{path}.fault"
    for fault, value in step.fault.items():
        if fault not in (*FAULTS, *OPTIONS):
            hint = "; it is a deed: write do instead of fault" if fault in DEEDS else meant(fault, (*FAULTS, *OPTIONS))
            problems.append(Problem(f"{where}.{fault}", f"there is no such fault{hint}"))
        elif fault in ("crash", "cut", "slow"):
            choices = COMPONENTS if fault != "crash" else tuple(c for c in COMPONENTS if c != "nodes")
            one_of(f"{where}.{fault}", str(value), choices, problems)
        elif fault == "fail-store":
            one_of(f"{where}.{fault}", str(value), FAILURES, problems)
        elif fault in (*OPTIONS, "delay-store"):
            seconds_of(value, f"{where}.{fault}", problems)
        elif fault == "kill":
            _reference(value, f"{where}.{fault}", problems)
        else:
            _node(value, f"{where}.{fault}", problems)
    if not step.fault:
        return
    if len([f for f in step.fault if f not in OPTIONS]) != 1:
        problems.append(Problem(where, f"needs exactly one of {', '.join(FAULTS)}"))
    if ("by" in step.fault) != ("slow" in step.fault):
        problems.append(Problem(f"{where}.by", "belongs to slow, which needs it: {slow: scheduler, by: 200ms}"))


def _node(value: Any, path: str, problems: list[Problem]) -> None:
    text = str(value)
    if text.startswith("node-of:"):
        reference = text.removeprefix("node-of:")
        if "/" in reference:
            _reference(reference, path, problems)
    elif "/" in text.removeprefix("node/") or not text or isinstance(value, dict | list):
        words = "a name, busiest-node, random-node, or node-of:deployment/web"
        problems.append(Problem(path, f"{text!r} is no node: {words}"))


def _reference(text: Any, path: str, problems: list[Problem]) -> None:
    attempt(lambda: split(str(text)), path, problems)


def _cel(text: str, path: str, problems: list[Problem]) -> None:
    """Compiles what ``cel`` calls of a condition say."""
    try:
        sources = Expression(text).constants("cel", 1)
    except ExpressionError:
        return  # told already
    for source in sources:
        attempt(partial(_compiled, str(source)), path, problems)


def _compiled(source: str) -> None:
    try:
        returns = compile_cel(source, CEL).returns
    except CelError as error:
        raise ValueError(str(error)) from None
    if returns not in ("bool", "dyn"):
        raise ValueError(f"{source!r} is neither true nor false: it gives {returns}; compare it")
