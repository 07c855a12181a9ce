"""Mistakes in the steps of an experiment that types do not show."""

from __future__ import annotations

from typing import Any

from apiserver.cel.engine import CelError, compile_cel
from lab.experiments.expressions import Expression, ExpressionError, meant
from lab.experiments.model import CONDITIONS, DEEDS, FAULTS, Step
from lab.experiments.schema import Problem, expression, one_of, seconds_of
from lab.experiments.state import CEL, split


def check_step(step: Step, path: str, marks: list[str], problems: list[Problem]) -> None:
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
            expression(text, f"{path}.{name}", CONDITIONS, (), problems)
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
    one_of(f"{path}.on-timeout", step.on_timeout, ("record", "fail"), problems)


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
