"""KWOK's Stage resources as behaviour of simulated pods and nodes. Pure.

A Stage says: an object that matches goes, a delay later, into another state. The states that stages of Pods lead to are those
through which a simulated pod goes anyway, so a Stage becomes the time, the choice and the exit code of one of these ways:

    next.statusTemplate with phase Running      from its sandbox to running                start
    ... with phase Succeeded, or Failed         it ends by itself, with this exit code     run
    next.delete                                 from its deletion to gone                  stop

The status itself is written by the simulated kubelet, with all of its fields; of the template only ``phase`` and a literal
``exitCode`` are read, and a template that sets anything which a kubelet would not is refused. Of several that match one way
one is drawn by weight, once for each pod. Stages of Nodes: those that initialize a node or renew its status; the delay of the
latter is the period of the nodes' statuses. Not taken: ``event``, kinds other than Pod and Node, ``finalizers`` but ``empty:
true`` beside ``delete`` (a pod keeps finalizers until their owners take them off), jq beyond the paths ``.metadata...`` and
``.spec...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from lab.experiments.expressions import meant
from lab.experiments.schema import Problem
from navarch.world import chance
from nodeagent.runtime.spread import Spread, seconds

VERSION, KIND = "kwok.x-k8s.io/v1alpha1", "Stage"
Tree = Mapping[str, Any]
STATUS = (
    "conditions", "containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses", "hostIP", "hostIPs", "podIP",
    "podIPs", "phase", "startTime", "qosClass",
)  # fmt: skip
NODE_STATUS = (
    "conditions", "addresses", "daemonEndpoints", "allocatable", "capacity", "nodeInfo", "phase", "images", "volumesInUse",
)  # fmt: skip
LIFE = {
    ".metadata.deletionTimestamp": ("Exists", "DoesNotExist"), ".status.podIP": ("Exists", "DoesNotExist"),
    ".status.phase": ("In", "NotIn"),
}  # fmt: skip
"""Keys about where in its life a pod is: the way says that already."""
WAYS = {"Running": "start", "Succeeded": "run", "Failed": "run"}
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_KEY = re.compile(r"\.(metadata|spec)((?:\.[A-Za-z]+(?:\.?\[\])?|\[\"[^\"]+\"\])+)")
_PART = re.compile(r"\.([A-Za-z]+)|(\.?\[\])|\[\"([^\"]+)\"\]")
_NOTE = re.compile(r"\.metadata\.annotations\[\"([^\"]+)\"\]")


class Rule(NamedTuple):
    """One Stage. ``delay`` and ``jitter`` in seconds; ``*_from``: an annotation of the pod that says it instead."""

    name: str
    kind: str
    way: str
    """start, run or stop; of a Node initialize or heartbeat."""
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...]
    weight: int
    delay: float
    jitter: float | None
    delay_from: str
    jitter_from: str
    exit_code: int

    def matches(self, pod: Tree) -> bool:
        return all(_holds(pod, *one) for one in self.expressions)

    def time(self, pod: Tree) -> float | Spread:
        """How long it takes: the delay, or drawn between delay and jitter."""
        notes = pod.get("metadata", {}).get("annotations") or {}
        low = _time(notes.get(self.delay_from), self.delay)
        high = _time(notes.get(self.jitter_from), self.jitter)
        return low if high is None or low is None or high <= low else Spread("uniform", (low, high))  # type: ignore[return-value]


def _time(note: str | None, other: float | None) -> float | None:
    try:
        return other if note is None else seconds(note)
    except ValueError:
        return other


def chosen(rules: list[Rule], pod: Tree, seed: str) -> dict[str, Rule]:
    """By way, the rule that a pod goes by: of those that match, one by weight (all alike if no weight is above 0)."""
    meta, out = pod.get("metadata", {}), dict[str, Rule]()
    for way in ("start", "run", "stop"):
        fitting = [r for r in rules if r.kind == "Pod" and r.way == way and r.matches(pod)]
        if fitting:
            weights = [max(0, r.weight) for r in fitting]
            own = chance(f"{seed} stage {way} {meta.get('namespace')}/{meta.get('name')}")
            out[way] = own.choices(fitting, weights if any(weights) else None)[0]
    return out


def stages_of(rules: list[Rule], pod: Tree, seed: str) -> dict[str, Any]:
    """The fields of Stages (nodeagent/runtime/stages.py) that the rules decide on for a pod."""
    out: dict[str, Any] = {}
    for way, rule in chosen(rules, pod, seed).items():
        out[way] = rule.time(pod)
        if way == "run":
            out["exit_code"] = rule.exit_code
    return out


def status_period(rules: list[Rule]) -> float | None:
    """Seconds between two statuses of a node, if a stage says so."""
    beats = [r for r in rules if r.way == "heartbeat"]
    return (beats[0].delay + (beats[0].jitter or beats[0].delay)) / 2 if beats else None


def read(listed: list[Any], path: str, problems: list[Problem]) -> list[Rule]:
    """The rules of Stages: objects, or texts of some. Adds a problem for everything that is not taken."""
    out = []
    for n, one in enumerate(listed):
        where = f"{path}[{n}]"
        try:
            trees = [t for t in yaml.safe_load_all(one) if t is not None] if isinstance(one, str) else [one]
        except yaml.YAMLError as error:
            problems.append(Problem(where, f"is no YAML: {' '.join(str(error).split())}"))
            continue
        for m, tree in enumerate(trees):
            before = len(problems)
            rule = _rule(tree, f"{where}[{m}]" if len(trees) > 1 else where, problems)
            if rule is not None and len(problems) == before:
                out.append(rule)
    return out


def _rule(tree: Any, path: str, problems: list[Problem]) -> Rule | None:
    if not isinstance(tree, dict) or tree.get("apiVersion") != VERSION or tree.get("kind") != KIND:
        problems.append(Problem(path, f"is no {KIND} of {VERSION}"))
        return None
    spec = _fields(tree.get("spec"), f"{path}.spec", ("resourceRef", "selector", "weight", "delay", "next"), problems)
    ref = _fields(spec.get("resourceRef"), f"{path}.spec.resourceRef", ("apiGroup", "kind"), problems)
    kind = str(ref.get("kind"))
    if kind not in ("Pod", "Node") or ref.get("apiGroup", "v1") not in ("v1", ""):
        problems.append(Problem(f"{path}.spec.resourceRef", f"{kind}: only Stages of Pods and Nodes are taken"))
    fields = ("durationMilliseconds", "jitterDurationMilliseconds", "durationFrom", "jitterDurationFrom")
    delay = _fields(spec.get("delay"), f"{path}.spec.delay", fields, problems)
    for name in fields[:2]:
        if name in delay and (not isinstance(delay[name], int) or delay[name] < 0):
            problems.append(Problem(f"{path}.spec.delay.{name}", f"{delay[name]!r} is no number of milliseconds"))
    if not isinstance(spec.get("weight", 0), int):
        problems.append(Problem(f"{path}.spec.weight", f"{spec['weight']!r} is not a whole number"))
    expressions = tuple(_expressions(spec.get("selector"), kind, f"{path}.spec.selector", problems))
    way, code = _next(spec.get("next"), kind, f"{path}.spec.next", problems)
    jitter = delay.get("jitterDurationMilliseconds")
    if way == "initialize" and delay:
        problems.append(Problem(f"{path}.spec.delay", "is not taken where nodes are initialized: they are ready at the start"))
    if any(not isinstance(v, int) for k, v in delay.items() if k in fields[:2]) or not isinstance(spec.get("weight", 0), int):
        return None
    return Rule(
        str(tree.get("metadata", {}).get("name")), kind, way, expressions, spec.get("weight", 0),
        delay.get("durationMilliseconds", 0) / 1000, None if jitter is None else jitter / 1000,
        _annotation(delay.get("durationFrom"), f"{path}.spec.delay.durationFrom", problems),
        _annotation(delay.get("jitterDurationFrom"), f"{path}.spec.delay.jitterDurationFrom", problems), code,
    )  # fmt: skip


def _fields(tree: Any, path: str, names: tuple[str, ...], problems: list[Problem]) -> dict[str, Any]:
    """A mapping that has none but these fields."""
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        problems.append(Problem(path, "a mapping is expected"))
        return {}
    for key in tree:
        if key not in names:
            problems.append(Problem(f"{path}.{key}", f"is not taken{meant(str(key), names)}"))
    return tree


def _annotation(tree: Any, path: str, problems: list[Problem]) -> str:
    """The annotation that ``expressionFrom`` reads."""
    text = str(_fields(tree, path, ("expressionFrom",), problems).get("expressionFrom", ""))
    match = _NOTE.fullmatch(text)
    if text and match is None:
        problems.append(Problem(f"{path}.expressionFrom", f'{text!r}: only .metadata.annotations["NAME"] is taken'))
    return match[1] if match else ""


def _expressions(tree: Any, kind: str, path: str, problems: list[Problem]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    selector = _fields(tree, path, ("matchLabels", "matchAnnotations", "matchExpressions"), problems)
    for field, place in (("matchLabels", "labels"), ("matchAnnotations", "annotations")):
        for key, value in (selector.get(field) or {}).items():
            yield f'.metadata.{place}["{key}"]', "In", (str(value),)
    for n, one in enumerate(selector.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{n}]"
        listed = _fields(one, where, ("key", "operator", "values"), problems)
        key, operator = str(listed.get("key", "")), str(listed.get("operator", ""))
        if operator not in OPERATORS:
            problems.append(Problem(f"{where}.operator", f"{operator!r} is none of {', '.join(OPERATORS)}"))
        elif kind == "Node" and key.startswith(".status."):
            continue  # whether it is Ready: the way says that
        elif key in LIFE:
            if operator not in LIFE[key]:
                problems.append(Problem(f"{where}.operator", f"{operator} of {key} is not taken: {' or '.join(LIFE[key])}"))
        elif _KEY.fullmatch(key):
            yield key, operator, tuple(str(v) for v in listed.get("values") or ())
        else:
            text = f"{key!r} is not taken: a path in .metadata or .spec such as .metadata.labels[\"app\"], or {', '.join(LIFE)}"
            problems.append(Problem(f"{where}.key", text))


def _next(tree: Any, kind: str, path: str, problems: list[Problem]) -> tuple[str, int]:
    """The way that a stage is about, and the exit code."""
    names = ("statusTemplate", "statusSubresource", "finalizers", "delete")
    if isinstance(tree, dict) and "event" in tree:
        problems.append(Problem(f"{path}.event", "is not taken: the simulated kubelet has Events of its own"))
        tree = {k: v for k, v in tree.items() if k != "event"}
    after = _fields(tree, path, names, problems)
    if "finalizers" in after and (after["finalizers"] != {"empty": True} or not after.get("delete")):
        problems.append(Problem(f"{path}.finalizers", "is taken beside delete only, as {empty: true}"))
    if after.get("delete") is True:
        return "stop", 0
    template = str(after.get("statusTemplate", ""))
    keys = re.findall(r"^([A-Za-z]+):", template, re.MULTILINE)
    for key in keys:
        if key not in (STATUS if kind == "Pod" else NODE_STATUS):
            text = f"sets {key}, which is not taken: the status is written by the simulated kubelet"
            problems.append(Problem(f"{path}.statusTemplate", text))
    if kind == "Node":
        if "conditions" not in keys:
            text = "sets no conditions: only stages that initialize or renew are taken"
            problems.append(Problem(f"{path}.statusTemplate", text))
        if re.search(r"status:\s*\"?(False|Unknown)", template):
            text = "makes a node not ready: write a step {fault: {power-off: NODE}} instead"
            problems.append(Problem(f"{path}.statusTemplate", text))
        return "initialize" if "capacity" in keys else "heartbeat", 0
    phases = re.findall(r"^phase:\s*\"?([A-Za-z]+)\"?\s*$", template, re.MULTILINE)
    if len(phases) != 1 or phases[0] not in WAYS:
        problems.append(Problem(f"{path}.statusTemplate", f"needs one literal phase of {', '.join(WAYS)}, or delete: true"))
        return "", 0
    codes = set(re.findall(r"exitCode:\s*(\S+)", template)) if WAYS[phases[0]] == "run" else {"0"}
    literal = [int(c) for c in codes if c.isdigit()]
    if len(codes) > 1 or (codes and not literal):
        text = f"exitCode: one literal number is taken, not {', '.join(sorted(codes))}"
        problems.append(Problem(f"{path}.statusTemplate", text))
        return "", 0
    return WAYS[phases[0]], literal[0] if literal else int(phases[0] == "Failed")


def _holds(pod: Tree, key: str, operator: str, values: tuple[str, ...]) -> bool:
    looked = [str(v) for v in _values(pod, key)]
    if operator in ("Exists", "DoesNotExist"):
        return bool(looked) == (operator == "Exists")
    return any(v in values for v in looked) == (operator == "In")


def _values(tree: Any, key: str) -> list[Any]:
    """All that a path such as ``.metadata.ownerReferences.[].kind`` leads to; none of what is not there."""
    values = [tree]
    for name, every, quoted in _PART.findall(key):
        if every:
            values = [one for value in values if isinstance(value, list) for one in value]
        else:
            values = [v for value in values if isinstance(value, dict) and (v := value.get(name or quoted)) is not None]
    return values
