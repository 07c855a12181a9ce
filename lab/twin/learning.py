"""Learning how long pods take to start, to get ready, to run and to stop, from what a cluster tells of those it has.

The sources are conditions, container states and Events; a recording also shows how long pods take to stop. Times in the API are
whole seconds: differences of them are right in the mean, and so are draws from them. What a (workload, container, image) never
did is taken from the nearest that is alike: the workload with another image, the image elsewhere, all pods, and at last from
the values in FALLBACK, which are guesses. The answer tells of guesses (``Learned.explained``).
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.experiments.recording import Recording
from lab.twin import calibration
from lab.twin.snapshot import Snapshot
from navarch.api.times import parse_time
from navarch.api.types import core_v1
from nodeagent.runtime.spread import Spread, spread
from nodeagent.runtime.stages import Stages, Time

Tree = dict[str, Any]
Key = tuple[str, str, str]  # workload, container, image; "" stands for any

FALLBACK: dict[str, str] = {
    "pull": "lognormal(4s, 0.6)", "start": "uniform(0.5s, 1.5s)", "ready": "lognormal(3s, 0.6)", "stop": "uniform(0.2s, 2s)",
}  # fmt: skip
NEVER = 1e9  # seconds
MAX_SAMPLES = 200  # of one distribution: more tell no more
FAILING = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
BROKEN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
PULLED = re.compile(r'Successfully pulled image "([^"]+)" in ([0-9.hmµus]+)')
_PRESENT = re.compile(r'Container image "([^"]+)" already present')
_JOB_OF_CRON = re.compile(r"(.+)-\d{8,10}$")
WORDS = {"pull": "to pull", "start": "to start", "ready": "to get ready", "run": "to run", "stop": "to stop"}


def workload_of(pod: Tree) -> str:
    """``Deployment default/web`` of a pod that one owns, however many objects stand between; the pod itself if none does."""
    meta = pod["metadata"]
    namespace = meta.get("namespace", "")
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if owner is None:
        return f"Pod {namespace}/{meta['name']}"
    kind, name = owner["kind"], owner["name"]
    template = (meta.get("labels") or {}).get("pod-template-hash")
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return f"Deployment {namespace}/{name.removesuffix(f'-{template}')}"
    if kind == "Job" and (match := _JOB_OF_CRON.match(name)):
        return f"CronJob {namespace}/{match[1]}"
    return f"{kind} {namespace}/{name}"


def typed_workload(pod: core_v1.Pod) -> str:
    """:func:`workload_of` for a struct."""
    meta = pod.metadata
    owners = [{"kind": o.kind, "name": o.name, "controller": o.controller} for o in meta.owner_references or ()]
    return workload_of(
        {"metadata": {"namespace": meta.namespace, "name": meta.name, "labels": meta.labels, "ownerReferences": owners}}
    )


@dataclass
class Learned:
    """``samples``: stage -> (workload, container, image) -> seconds. ``own``: what is known of single pods, by uid and
    container. ``present``: images by node."""

    samples: dict[str, dict[Key, list[float]]] = field(default_factory=dict)
    own: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    broken: dict[Key, dict[str, Any]] = field(default_factory=dict)
    present: dict[str, dict[str, None]] = field(default_factory=dict)
    knows_images: bool = False
    calibrated: dict[str, str] = field(default_factory=dict)
    calibrated_images: dict[str, dict[str, str]] = field(default_factory=dict)
    _chosen: dict[Key, Stages] = field(default_factory=dict)

    def add(self, stage: str, workload: str, container: str, image: str, seconds: float) -> None:
        """One observation; it counts for itself and for all that are less exact."""
        for key in _levels(workload, container, image):
            result = self.samples.setdefault(stage, {}).setdefault(key, [])
            if len(result) < MAX_SAMPLES:
                result.append(max(0.0, round(seconds, 3)))

    def behaviour(self, pod: core_v1.Pod, container: str) -> Stages:
        """The stages of a container of a pod ("" for the pod itself), for a fleet of simulated nodes."""
        if not container:
            return Stages(sandbox=0.0)
        image = next((c.image for c in _containers(pod) if c.name == container), "") or ""
        workload = typed_workload(pod)
        key = workload, container, image
        if key not in self._chosen:
            self._chosen[key] = self._stages(key)
        stages = self._chosen[key]
        own = self.own.get((pod.metadata.uid or "", container))
        return Stages(**{**vars(stages), **own}) if own else stages

    def _stages(self, key: Key) -> Stages:
        result: dict[str, Any] = {"sandbox": 0.0}
        for stage in ("pull", "start", "ready", "startup", "stop"):
            result[stage] = self.time(stage, key)
        if run := self._exact("run", key):
            result["run"] = _of(run)
        return Stages(**(result | self.broken.get(key, {})))

    def _exact(self, stage: str, key: Key) -> list[float]:
        levels = self.samples.get(stage, {})
        workload, container, _ = key
        return levels.get(key) or levels.get((workload, container, ""), [])

    def time(self, stage: str, key: Key) -> Time:
        levels = self.samples.get(stage, {})
        workload, container, image = key
        if stage == "pull" and not self.knows_images and not levels:
            return 0.0
        for level in _levels(workload, container, image):
            if stage in ("pull", "stop") and level[0] and level != key:
                continue
            if values := levels.get(level):
                return _of(values)
        if stage == "startup":
            return 0.0
        by_image = self.calibrated_images.get(image, {})
        return spread(by_image.get(stage) or self.calibrated.get(stage, FALLBACK[stage]))

    def calibrate(self, path: Path) -> None:
        """Takes the times of a file of ``navarch calibrate`` where nothing is known. Raises OSError, ValueError."""
        times = calibration.load(path)
        self.calibrated |= times.stages
        self.calibrated_images |= times.images

    def explained(self, workloads: Iterable[str], images: Iterable[str] = ()) -> list[str]:
        """Where the times of these workloads' pods come from, if not from themselves, a line each. ``images``: those that the
        change brings. Works out the times anew, for the runs did so in processes of their own."""
        workload_names = {*workloads}
        earlier = {image for levels in self.samples.values() for _, _, image in levels}
        out = [
            f"{image} has never run here: that it can be pulled, and starts, is assumed"
            for image in images
            if image not in earlier
        ]
        guesses: dict[tuple[str, str], list[str]] = {}
        for stage in WORDS:
            for workload in sorted(workload_names):
                if stage in ("run", "ready") or workload.startswith("Pod "):
                    continue
                levels = self.samples.get(stage, {})
                if not any(name == workload for name, _, _ in levels) and not levels.get(("", "", "")):
                    how = (
                        "counted as part of the start"
                        if stage == "pull" and not self.knows_images
                        else self._fallback(stage)
                    )
                    guesses.setdefault((stage, how), []).append(workload)
        for (stage, how), names in guesses.items():
            out.append(f"how long pods take {WORDS[stage]}: {how}: {', '.join(names[:6])}")
        return out

    def _fallback(self, stage: str) -> str:
        return f"calibrated, {self.calibrated[stage]}" if stage in self.calibrated else f"a guess, {FALLBACK[stage]}"


def _levels(workload: str, container: str, image: str) -> list[Key]:
    return [
        (workload, container, image),
        (workload, container, ""),
        ("", container, image),
        ("", "", image),
        ("", "", ""),
    ]


def _of(values: list[float]) -> Time:
    return values[0] if len(set(values)) == 1 else Spread("choice", tuple(values))


def _containers(pod: core_v1.Pod) -> list[Any]:
    return [*(pod.spec.init_containers or ()), *pod.spec.containers]


def learn(snapshot: Snapshot, recording: Recording | None = None) -> Learned:
    """From the pods, Events and nodes of a snapshot, and from a recording of the same cluster if there is one."""
    learned = Learned()
    pulls, present = _pulls(snapshot.of("events"))
    by_uid: dict[str, Tree] = {}
    if recording is not None:
        _from_recording(learned, recording, by_uid)
    for pod in snapshot.of("pods"):
        by_uid[pod["metadata"].get("uid", "")] = pod
    for uid, pod in by_uid.items():
        _times(learned, pod, pulls.get(uid, 0.0))
    for (image, seconds), uid in _pull_samples(snapshot.of("events")):
        puller = by_uid.get(uid)
        learned.add("pull", workload_of(puller) if puller else "", _container_of(puller, image), image, seconds)
    for pod in snapshot.of("pods"):
        _states(learned, pod, snapshot.now)
    _drop_outliers(learned)
    for node in snapshot.of("nodes"):
        name, images = node["metadata"]["name"], node.get("status", {}).get("images") or ()
        listed = [text for image in images for text in image.get("names") or ()]
        learned.present[name] = dict.fromkeys([*listed, *map(familiar, listed)])
    for uid, there in present.items():
        result = by_uid.get(uid)
        if result is not None and (home := result["spec"].get("nodeName")):
            learned.present.setdefault(home, {}).update(dict.fromkeys(there))
    learned.knows_images = any(learned.present.values())
    return learned


def familiar(image: str) -> str:
    """``nginx:1`` of ``docker.io/library/nginx:1``: as pods write it."""
    return image.removeprefix("docker.io/").removeprefix("library/")


def _pulls(events: Iterable[Tree]) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Seconds of pulling, and images that were there already, by pod uid."""
    pulls: dict[str, float] = {}
    present: dict[str, list[str]] = {}
    for event in events:
        uid = (event.get("involvedObject") or {}).get("uid", "")
        text = event.get("message") or ""
        if match := PULLED.search(text):
            pulls[uid] = pulls.get(uid, 0.0) + _seconds(match[2])
            present.setdefault(uid, []).append(match[1])
        elif match := _PRESENT.search(text):
            present.setdefault(uid, []).append(match[1])
    return pulls, present


def _pull_samples(events: Iterable[Tree]) -> list[tuple[tuple[str, float], str]]:
    out = []
    for event in events:
        if match := PULLED.search(event.get("message") or ""):
            out.append(((match[1], _seconds(match[2])), (event.get("involvedObject") or {}).get("uid", "")))
    return out


def _seconds(text: str) -> float:
    result = spread(text)
    return result if isinstance(result, float) else 0.0


def _container_of(pod: Tree | None, image: str) -> str:
    if pod is None:
        return ""
    spec = pod["spec"]
    return next(
        (c["name"] for c in [*spec.get("containers", ()), *spec.get("initContainers", ())] if c.get("image") == image),
        "",
    )


def _since(pod: Tree, condition: str) -> float | None:
    """When a condition came true; None if it is not."""
    for one in pod.get("status", {}).get("conditions") or ():
        if one.get("type") == condition and one.get("status") == "True" and one.get("lastTransitionTime"):
            return parse_time(one["lastTransitionTime"])
    return None


def _times(learned: Learned, pod: Tree, pulled: float) -> None:
    """Start, readiness and run times of one pod's containers, as far as its status tells them."""
    workload, status, spec = workload_of(pod), pod.get("status", {}), pod["spec"]
    bound = _since(pod, "PodScheduled")
    last = bound
    for state in status.get("initContainerStatuses") or ():
        ended = (state.get("state") or {}).get("terminated")
        if ended and ended.get("startedAt") and ended.get("finishedAt"):
            began, over = parse_time(ended["startedAt"]), parse_time(ended["finishedAt"])
            learned.add("run", workload, state["name"], state.get("image", ""), over - began)
            last = max(last or over, over)
    containers = {c["name"]: c for c in spec.get("containers", ())}
    states = [s for s in status.get("containerStatuses") or () if s["name"] in containers]
    first = [s for s in states if not s.get("restartCount")]
    starts = {s["name"]: _started(s) for s in first}
    levels = [at for at in starts.values() if at is not None]
    if last is not None and levels and len(levels) == len(containers):
        share = (max(levels) - last - pulled) / len(containers)
        for name, container in containers.items():
            learned.add("start", workload, name, container.get("image", ""), share)
    # Not Ready: that one is taken from the pods of a node that is not heard, and given back when it is.
    ready = _since(pod, "ContainersReady")
    for state in states:
        container = containers[state["name"]]
        since = starts.get(state["name"])
        if ready is not None and since is not None and ready >= since:
            waited = ready - since
            for probe, stage in (("startupProbe", "startup"), ("readinessProbe", "ready")):
                if declared := container.get(probe):
                    # The probe's own rhythm comes on top of what is learned: half a period back lies between two questions.
                    period = float(declared.get("periodSeconds", 10))
                    waited -= period * (int(declared.get("successThreshold", 1)) - 1 + 0.5)
                    learned.add(stage, workload, container["name"], container.get("image", ""), waited)
        ended = (state.get("state") or {}).get("terminated") or {}
        well = status.get("phase") == "Succeeded" or ended.get("exitCode") == 0
        if well and ended.get("startedAt") and ended.get("finishedAt"):
            took = parse_time(ended["finishedAt"]) - parse_time(ended["startedAt"])
            learned.add("run", workload, container["name"], container.get("image", ""), took)


def _started(state: Tree) -> float | None:
    now = state.get("state") or {}
    text = (now.get("running") or now.get("terminated") or {}).get("startedAt")
    return parse_time(text) if text else None


def _states(learned: Learned, pod: Tree, now: float) -> None:
    """Pods that are sick stay so: containers that crash, images that cannot be pulled, probes that fail."""
    meta, status, workload = pod["metadata"], pod.get("status", {}), workload_of(pod)
    containers = {c["name"]: c for c in pod["spec"].get("containers", ())}
    for state in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
        uid, name = meta.get("uid", ""), state["name"]
        key = workload, name, (containers.get(name) or state).get("image", "")
        waiting = (state.get("state") or {}).get("waiting") or {}
        last = (state.get("lastState") or {}).get("terminated") or {}
        sick: dict[str, Any] = {}
        if waiting.get("reason") in FAILING:
            sick = {"fail": "pull"}
        elif waiting.get("reason") in BROKEN:
            sick = {"fail": "create"}
        elif waiting.get("reason") == "CrashLoopBackOff" and last.get("finishedAt") and last.get("startedAt"):
            ran = parse_time(last["finishedAt"]) - parse_time(last["startedAt"])
            sick = {"run": max(0.0, ran), "exit_code": int(last.get("exitCode", 1))}
        running = (state.get("state") or {}).get("running") or {}
        if running.get("startedAt") and state.get("ready"):
            learned.own[uid, name] = {"ready": 0.0, "startup": 0.0}  # it is ready: the probes found it so
            learned.broken.pop(key, None)
            learned.broken[key] = {}
        elif running.get("startedAt") and name in containers and containers[name].get("readinessProbe"):
            earlier = learned.samples.get("ready", {}).get(key, [])
            if now - parse_time(running["startedAt"]) > 60 + 3 * max(earlier, default=0.0):
                sick = {"ready": NEVER}
        if sick:
            learned.own[uid, name] = sick
            learned.broken.setdefault(key, sick)  # unless a sister is well


def _drop_outliers(learned: Learned) -> None:
    """A pod that became ready anew after hours looks as if it had taken hours; others of its kind show that it had not.
    Readiness is only ever seen too late, and may be of most pods: the quicker quarter is its measure."""
    for stage, levels in learned.samples.items():
        for key, values in levels.items():
            if stage in ("ready", "startup"):
                most = 5 * sorted(values)[(len(values) - 1) // 4] + 15
            elif len(values) >= 3:
                most = 5 * statistics.median(values) + 30
            else:
                continue
            levels[key] = [v for v in values if v <= most]


def _from_recording(learned: Learned, recording: Recording, by_uid: dict[str, Tree]) -> None:
    """Times to stop, and pods that are gone by now."""
    leaving: dict[str, float] = {}
    for change in recording.of("pods"):
        pod = change.object
        uid = pod["metadata"].get("uid", "")
        by_uid[uid] = pod
        if "deletionTimestamp" in pod["metadata"]:
            leaving.setdefault(uid, change.time)
        if change.type == "DELETED" and uid in leaving and change.time > leaving[uid]:
            for container in pod["spec"].get("containers", ()):
                took = change.time - leaving[uid]
                learned.add("stop", workload_of(pod), container["name"], container.get("image", ""), took)
