"""Names that a file speaks of and does not have: nodes, workloads, containers, services of its steps, load and measures.

Names that only a run decides are let pass: pods and ReplicaSets of a workload, Jobs of a CronJob, nodes that the autoscaler
adds, pods of a trace. A step fails on what is not there, so it is asked of each cell; a condition or a measure counts nothing,
so it is enough if another cell has it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.experiments import traces
from lab.experiments.expressions import Expression, ExpressionError, meant, reference_arguments
from lab.experiments.images import images_of
from lab.experiments.library.own import named as named_own
from lab.experiments.manifests import VARIABLE, manifests
from lab.experiments.measures import METHODS, Measures
from lab.experiments.model import CONDITIONS, MAX_COUNT, Experiment, Step
from lab.experiments.schema import Problem
from lab.experiments.state import RESOURCES, State, split
from lab.experiments.stepchecks import BY_REFERENCE, OF_NODES, OF_ONE

_KINDS = {resource: kind for kind, resource in RESOURCES.items()}
_MAKERS = {
    "pods": ("deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "cronjobs", "replicationcontrollers"),
    "replicasets": ("deployments",), "jobs": ("cronjobs",),
}  # fmt: skip
"""By resource, the resources whose controllers name its objects after their own."""
_OWN_LABELS = (
    "pod-template-hash", "controller-revision-hash", "pod-template-generation", "job-name", "controller-uid",
    "statefulset.kubernetes.io/", "apps.kubernetes.io/", "batch.kubernetes.io/", "topology.kubernetes.io/",
)  # fmt: skip
"""Labels that controllers set."""
_MEASURED = re.compile(r"choice\((\d+\.\d{3}s(, )?)+\)")
"""Times as calibrations have them."""
_ANYWHERE = ("busiest-node", "random-node")


class Names:
    """The names that one cell has."""

    def __init__(self, e: Experiment) -> None:
        self._names: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}  # by resource, then namespace and name
        self.labels: set[tuple[str, str]] = set()
        self.of_pods: set[tuple[str, str]] = set()
        """Labels that pods have."""
        self.images = {image for _, image in images_of(e)}
        self.traced = any(work.trace is not None for work in e.workload)
        self.open = bool(e.allow_commands) and any("run" in step.do for step in e.steps)
        """Whether commands may make objects."""
        for one in manifests(e):
            meta, resource = one.tree["metadata"], f"{str(one.tree.get('kind')).lower()}s"
            name = str(meta.get("name") or f"{meta.get('generateName')}${{n}}")
            where = "" if resource == "nodes" else str(meta.get("namespace") or "default")
            self._names.setdefault(resource, {})[where, name] = one.tree
            self.labels |= set(_labels(one.tree))
            self.of_pods |= set(_of_pods(one.tree))
        for step in e.steps:
            self.labels |= (patched := set(_labels(step.do.get("patch"))))
            self.of_pods |= patched
        self._nodes(e)

    def _nodes(self, e: Experiment) -> None:
        nodes = self._names.setdefault("nodes", {})
        first = 1
        for group in e.cluster.nodes:
            if group.trace:
                try:
                    named = [one.name for one in traces.nodes(Path(group.trace), group.format)]
                except (OSError, ValueError, LookupError):
                    named = []  # told elsewhere
            elif group.listed:
                named = [str(one.get("name")) for one in group.listed]
            else:
                named = [f"{group.prefix}{n}" for n in range(first, first + min(group.count, MAX_COUNT))]
            nodes |= {("", name): {} for name in named}
            first += len(named)
        for more in e.cluster.autoscaler.groups if e.cluster.autoscaler else ():
            nodes["", f"{more.name}-${{n}}"] = {}

    def has(self, namespace: str, resource: str, name: str) -> bool:
        where = "" if resource == "nodes" else namespace
        if self.open or (resource == "pods" and self.traced) or (where, name) in self._names.get(resource, ()):
            return True
        drawn = [(ns, own) for ns, own in self._names.get(resource, ()) if "${" in own]
        makers = [(ns, f"{own}-${{n}}") for maker in _MAKERS.get(resource, ()) for ns, own in self._names.get(maker, ())]
        return any(ns == where and _pattern(own).fullmatch(name) for ns, own in (*drawn, *makers))

    def others(self, namespace: str, resource: str, name: str) -> str:
        """A hint at what was meant instead of a name."""
        listed = self._names.get(resource, {})
        elsewhere = [f"{ns}:{_KINDS[resource]}/{name}" for ns, own in listed if own == name and ns != namespace]
        if elsewhere and resource != "nodes":
            return f"; did you mean {elsewhere[0]!r}?"
        return meant(name, [own.replace("${n}", "1") for ns, own in listed if ns in ("", namespace)])

    def containers(self, reference: str) -> list[str] | None:
        """The containers of a workload or pod; None if the file does not tell."""
        namespace, resource, name = split(reference)
        tree = self._names.get(resource, {}).get((namespace, name))
        spec = (tree or {}).get("spec") or {}
        spec = spec if resource == "pods" else (spec.get("template") or {}).get("spec") or {}
        listed = spec.get("containers")
        return [str(c.get("name")) for c in listed if isinstance(c, dict)] if isinstance(listed, list) else None

    def missing(self, reference: str) -> str:
        """The mistake of a reference; "" if the file has it. Nothing is said of what is no reference."""
        if "/" not in reference:
            if self._may_be(reference, self.labels):
                return ""
            return f"nothing in this file has the label {reference}{meant(reference, [f'{k}={v}' for k, v in self.labels])}"
        try:
            namespace, resource, name = split(reference)
        except ValueError:
            return ""
        if self.has(namespace, resource, name):
            return ""
        where = f" in namespace {namespace}" if namespace != "default" else ""
        return f"there is no {_KINDS[resource]} {name!r} in this file{where}{self.others(namespace, resource, name)}"

    def _may_be(self, reference: str, labels: Collection[tuple[str, str]]) -> bool:
        """Whether an object may have a label, as ``key=value``, of those that the file writes."""
        key, equals, value = reference.partition("=")
        return (
            not equals or self.open or self.traced or (key, value) in labels or key.startswith(_OWN_LABELS)
            or any(own == key and VARIABLE.search(text) for own, text in labels)
        )  # fmt: skip

    def no_pod(self, selector: str, stages: Iterable[Any]) -> str:
        """The mistake of a selector of ``behaviour``; "" if a pod may be meant."""
        if selector.startswith("image:"):
            image = selector.removeprefix("image:")
            if self.open or self.traced or image in self.images or any("${" in own for own in self.images):
                return ""
            if all(_MEASURED.fullmatch(str(text)) for text in stages):
                return ""  # a calibration has times of images that this file does not run
            return f"no pod of this file has the image {image!r}{meant(image, self.images)}"
        if self._may_be(selector, self.of_pods):
            return ""
        return f"no pod of this file has the label {selector}{meant(selector, [f'{k}={v}' for k, v in self.of_pods])}"

    def no_node(self, text: str) -> str:
        """The mistake of a step's node; "" if it may be there."""
        if text.startswith("node-of:"):
            return self.missing(text.removeprefix("node-of:"))
        name = text.removeprefix("node/")
        return "" if name in _ANYWHERE or "/" in name or not name else self.missing(f"node/{name}")


@functools.lru_cache(4096)
def _pattern(name: str) -> re.Pattern[str]:
    """All names that one with variables in it may become."""
    return re.compile(".+".join(map(re.escape, re.split(r"\$\{[^}]*\}", name))))


def _labels(tree: Any) -> Iterator[tuple[str, str]]:
    """All pairs of all ``labels`` in a tree."""
    if isinstance(tree, list):
        for one in tree:
            yield from _labels(one)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == "labels" and isinstance(value, dict):
                yield from ((str(k), str(v)) for k, v in value.items())
            else:
                yield from _labels(value)


def _of_pods(tree: Any) -> Iterator[tuple[str, str]]:
    """The labels of a Pod, and of all templates of pods in a tree."""
    if not isinstance(tree, dict):
        return
    for one in (tree if tree.get("kind") == "Pod" else None, tree.get("template")):
        if isinstance(one, dict) and isinstance(meta := one.get("metadata"), dict):
            yield from _labels({"labels": meta.get("labels")})
    for value in tree.values():
        yield from _of_pods(value)


def check_names(experiments: Sequence[Experiment], problems: list[Problem]) -> None:
    """Adds what the cells speak of and do not have."""
    every = [Names(e) for e in experiments]
    for e, has in zip(experiments, every, strict=True):
        for n, step in enumerate(e.steps):
            problems += [Problem(f"steps[{n}].{path}", text) for path, text in _of_step(step, has) if text]
        for n, work in enumerate(e.workload):
            load = work.load
            if load is None:
                continue
            if text := has.missing(f"service/{load.service}"):
                problems.append(Problem(f"workload[{n}].load.service", text))
            if load.from_.startswith("node/") and (text := has.no_node(load.from_)):
                problems.append(Problem(f"workload[{n}].load.from", text))
    for selector, stages in {s: v for e in experiments for s, v in e.behaviour.items()}.items():
        answers = [has.no_pod(selector, stages.values()) for has in every]
        if all(answers):
            problems.append(Problem(f"behaviour.{selector}", answers[0]))
    for e in experiments:
        for path, expression, owner in _expressions(e):
            for text in _unknown(expression, owner, every):
                problems.append(Problem(path, text))


def _of_step(step: Step, has: Names) -> Iterator[tuple[str, str]]:
    for deed, value in step.do.items():
        if deed in BY_REFERENCE or (deed == "undo" and isinstance(value, dict)):
            for reference, more in value.items() if isinstance(value, dict) else ():
                yield f"do.{deed}.{reference}", has.missing(str(reference))
                if deed == "set-image" and isinstance(more, dict):
                    yield f"do.{deed}.{reference}", _no_container(str(reference), more, has)
        elif deed in (*OF_ONE, "undo"):
            yield f"do.{deed}", has.missing(str(value))
        elif deed in OF_NODES:
            yield f"do.{deed}", has.no_node(str(value))
    for fault, value in step.fault.items():
        if fault in ("power-off", "partition"):
            yield f"fault.{fault}", has.no_node(str(value))
        elif fault == "kill":
            namespace, _, rest = str(value).rpartition(":")
            kind, _, rest = rest.partition("/")
            name, _, container = rest.partition("/")
            reference = f"{namespace}:{kind}/{name}" if namespace else f"{kind}/{name}"
            yield f"fault.{fault}", has.missing(reference)
            if container and kind in RESOURCES:
                yield f"fault.{fault}", _no_container(reference, (container,), has)


def _no_container(reference: str, names: Iterable[str], has: Names) -> str:
    try:
        listed = has.containers(reference)
    except ValueError:
        return ""
    wrong = [name for name in names if listed is not None and name not in listed]
    return f"{reference} has no container {wrong[0]!r}{meant(wrong[0], listed or ())}" if wrong else ""


def _expressions(e: Experiment) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Conditions and measures, each with the functions that it may call."""
    conditions = {name: getattr(State, name) for name in CONDITIONS}
    functions = {name: getattr(Measures, name) for name in METHODS}
    for n, step in enumerate(e.steps):
        for key in ("when", "until"):
            if text := getattr(step, key):
                yield f"steps[{n}].{key}", text, conditions
    for part in ("series", "measure"):
        for name, text in getattr(e, part).items():
            if named_own(text) is None:
                yield f"{part}.{name}", text, functions
    for n, plot in enumerate(e.plots):
        for key in ("y", "x"):
            if text := getattr(plot, key):
                yield f"plots[{n}].{key}", text, functions


def _unknown(text: str, functions: Mapping[str, Any], every: Sequence[Names]) -> Iterator[str]:
    """A line for each argument that no cell has."""
    try:
        arguments = list(reference_arguments(Expression(text), functions))
    except ExpressionError:
        return  # told elsewhere
    for name, value in arguments:
        if name == "image":
            if not any(h.open or value in h.images or any("${" in i for i in h.images) for h in every):
                yield f"no pod of this file has the image {value!r}{meant(value, {i for h in every for i in h.images})}"
            continue
        answers = [h.no_node(value) if name == "name" else h.missing(value) for h in every]
        if all(answers):
            yield answers[0]
