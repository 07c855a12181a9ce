"""The limits of each mode: what it refuses, with its path, and what it does not apply, which the report tells.

Nothing that a file says is passed over in silence. ``refusals`` are mistakes; ``notes`` are differences that one has to know
when runs of two modes are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import yaml

from lab import settings as labsettings
from lab.addresses import MAX_NODES
from lab.experiments.images import images_of, is_here
from lab.experiments.model import FAULTS, Experiment, Load
from lab.experiments.schema import Problem
from lab.paths import LabError
from navarch import egress
from nodeagent.hollow.roster import number_of

FAULTS_OF = {
    "simulated": frozenset(FAULTS),
    "hollow": frozenset({"power-off", "partition", "crash", "kill"}),
    "real": frozenset({"power-off", "partition", "crash", "kill"}),
}
"""The faults that the driver of each mode has methods for (a test compares)."""
INSTEAD = dict.fromkeys(("cut", "slow", "mend"), "no link that could be cut lies between processes of one machine; use crash")
INSTEAD |= dict.fromkeys(("delay-store", "fail-store", "restore-store"), "a lab's store is etcd, which has no such switch")
COMPONENTS = {
    "simulated": ("controllers", "scheduler"), "cycle": ("scheduler",), "hollow": ("apiserver", "controllers", "scheduler"),
    "real": ("agent", "apiserver", "controllers", "proxy", "scheduler"),
}  # fmt: skip
"""Those with settings that ``cluster.set`` reaches."""
OF_LAB = {"scheduler.config", "scheduler.plugin", "scheduler.tie-break"}
ANNOTATIONS = ("hollow.navarch.dev/", "lab.navarch.dev/serves-after")


def refusals(e: Experiment) -> Iterator[Problem]:
    """Lists what the file's mode cannot do."""
    mode = e.cluster.mode
    if mode in FAULTS_OF:
        for n, step in enumerate(e.steps):
            names = [("fault", f) for f in step.fault if f in FAULTS and f not in FAULTS_OF[mode]]
            names += [("do", d) for d in step.do if d in INSTEAD and mode != "simulated"]  # which end such a fault
            for part, name in names:
                yield Problem(f"steps[{n}].{part}.{name}", f"is not possible in mode {mode}: {INSTEAD[name]}")
    if e.cluster.autoscaler is not None and mode != "simulated":
        yield Problem("cluster.autoscaler", f"is not possible in mode {mode}: it adds and removes nodes of a simulation")
    yield from _settings(e)
    if mode == "real":
        yield from _real(e)


def _settings(e: Experiment) -> Iterator[Problem]:
    components = COMPONENTS.get(e.cluster.mode, ())
    for name, value in e.cluster.set.items():
        path = f"cluster.set.{name}"
        if name in OF_LAB:
            yield Problem(path, "say it in cluster.scheduler")
        elif name.partition(".")[0] not in components:
            yield Problem(path, f"in mode {e.cluster.mode} only {', '.join(f'{c}.*' for c in components)} can be set")
        else:
            try:
                labsettings.checked({name: str(value)})
            except LabError as error:
                yield Problem(path, str(error))


def _real(e: Experiment) -> Iterator[Problem]:
    count = 0
    for n, group in enumerate(e.cluster.nodes):
        path = f"cluster.nodes[{n}]"
        count += group.count
        for name in ("trace", "cluster"):
            if getattr(group, name):
                yield Problem(f"{path}.{name}", "machines of others cannot be made of namespaces; use mode hollow")
        if number_of(f"{group.prefix}1"):
            yield Problem(f"{path}.prefix", "names of simulated nodes begin so")
        for resource in group.resources:
            if resource in ("cpu", "memory", "pods"):
                yield Problem(f"{path}.resources.{resource}", f"of a real node, say {resource} beside resources")
            elif resource.startswith("hugepages-"):
                yield Problem(f"{path}.resources.{resource}", "real nodes have no huge pages of their own")
    if count > MAX_NODES:
        yield Problem("cluster.nodes", f"are {count}; a lab has room for {MAX_NODES} real nodes; use mode hollow")
    for n, work in enumerate(e.workload):
        if work.trace is not None:
            yield Problem(f"workload[{n}].trace", "pods of a trace have no program to run; use mode hollow")


def missing_images(e: Experiment) -> Iterator[Problem]:
    """The images that real pods need from the start, and the machine neither has nor may pull. Not part of the check of a file,
    which is read where its runs were not made, too."""
    if e.cluster.mode == "real" and not egress.machine_allows():
        for path, image in images_of(e):
            if not path.startswith("steps") and not is_here(image):
                yield Problem(path, f"there is no image {image}; make it: navarch image build -t {image} DIRECTORY")


def all_notes(experiments: Iterable[Experiment]) -> list[str]:
    """The notes of all cells of a file, each once."""
    return list(dict.fromkeys(note for e in experiments for note in notes(e)))


def notes(e: Experiment) -> list[str]:
    """Lists what the file says and its mode does not apply, each with its path."""
    return list(_notes(e))


def _notes(e: Experiment) -> Iterator[str]:
    mode = e.cluster.mode
    for n, load in [(n, w.load) for n, w in enumerate(e.workload) if w.load is not None]:
        for name in ("latency", "capacity", "programming", "cpu") if mode == "real" else ("path",):
            if getattr(load, name) != _default(name):
                why = "requests are real" if mode == "real" else "simulated pods have one answer"
                yield f"workload[{n}].load.{name} is not applied: {why}"
    if mode == "cycle":
        named = {"cluster.heartbeats": e.cluster.heartbeats != "full", "cluster.events": not e.cluster.events}
        yield from (f"{path} is not applied: there are decisions and nothing else" for path, is_set in named.items() if is_set)
    if mode not in ("hollow", "real"):
        return
    if e.cluster.heartbeats == "elided":
        yield "cluster.heartbeats: elided is not applied: real components need them; Leases are left out of the recording"
    if not e.cluster.events:
        yield "cluster.events: false is not applied: components write Events"
    if e.cluster.scheduler.tie_break == "random":
        yield "cluster.scheduler.tie-break: the scheduler's chance is not drawn from the seed"
    if uses := [k for k, text in (e.series | e.measure).items() if "gauge(" in text]:
        yield f"gauge() in {', '.join(uses)} has no values: a scheduler in another process cannot be asked"
    if mode == "real":
        yield from _real_notes(e)


def _real_notes(e: Experiment) -> Iterator[str]:
    if e.stages:
        yield "stages is not applied: containers are real"
    if e.behaviour:
        yield "behaviour is not applied: containers are real, and take the time they take"
    for n, group in enumerate(e.cluster.nodes):
        for resource in group.resources:
            if resource != "ephemeral-storage":
                yield f"cluster.nodes[{n}].resources.{resource} is announced by real nodes, but containers get no device"
    for n, work in enumerate(e.workload):
        text = yaml.safe_dump(msgspec.to_builtins(work))
        for annotation in ANNOTATIONS:
            if annotation in text:
                yield f"workload[{n}]: annotations {annotation} are not applied: containers are real"
    for path, image in images_of(e):
        if not is_here(image):
            yield f"{path}: there is no image {image} here: its pods wait for it"


def _default(name: str) -> Any:
    return next(f.default for f in msgspec.structs.fields(Load) if f.name == name)
