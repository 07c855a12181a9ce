"""Counting pods that have finished, each once, though they may be deleted at any time.

Every pod of a Job carries a finalizer, so that it cannot go before it was counted. First its uid is written into
status.uncountedTerminatedPods, then the finalizer is taken away, then the uid gives way to a count: whatever is lost
in between can be done again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from navarch.api.types import batch_v1, core_v1

Pod = core_v1.Pod
FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"


class Tracked(NamedTuple):
    """``succeeded`` and ``failed`` are settled counts; ``new_*`` the uids that wait to be; ``indexes`` are complete,
    ``failed_indexes`` given up."""

    succeeded: int
    failed: int
    new_succeeded: list[str]
    new_failed: list[str]
    indexes: list[int]
    failed_indexes: list[int] = []

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.new_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.new_failed)

    @property
    def uncounted(self) -> batch_v1.UncountedTerminatedPods:
        return batch_v1.UncountedTerminatedPods(
            succeeded=self.new_succeeded or None, failed=self.new_failed or None
        )


def has_failed(job: batch_v1.Job, pod: Pod) -> bool:
    """A pod that is being deleted has failed too, unless only failed pods are to be replaced."""
    if pod.status.phase == "Failed":
        return True
    if job.spec.pod_replacement_policy == "Failed":
        return False
    return pod.metadata.deletion_timestamp is not None and pod.status.phase != "Succeeded"


def is_tracked(pod: Pod) -> bool:
    return FINALIZER in (pod.metadata.finalizers or ())


def completion_index(pod: Pod) -> int | None:
    text = (pod.metadata.annotations or {}).get(INDEX, "")
    return int(text) if text.isdecimal() else None


def track(job: batch_v1.Job, pods: Sequence[Pod], ignored: Iterable[str] = ()) -> Tracked:
    """``ignored``: uids of failed pods that do not count (podFailurePolicy)."""
    status = job.status
    before = status.uncounted_terminated_pods or batch_v1.UncountedTerminatedPods()
    tracked_pods = {pod.metadata.uid or "": pod for pod in pods if is_tracked(pod)}
    indexed = job.spec.completion_mode == "Indexed"
    indexes = parse_indexes(status.completed_indexes or "")
    succeeded, failed = status.succeeded or 0, status.failed or 0
    new: tuple[list[str], list[str]] = ([], [])
    for number, listed in enumerate((before.succeeded or [], before.failed or [])):
        for uid in listed:
            if uid in tracked_pods:
                new[number].append(uid)
            elif number == 0:
                succeeded += 1
            else:
                failed += 1
    skip = list(ignored)
    for uid, pod in tracked_pods.items():
        if pod.status.phase == "Succeeded":
            if uid not in new[0]:
                new[0].append(uid)
        elif has_failed(job, pod) and uid not in new[1] and uid not in skip:
            new[1].append(uid)
    if indexed:
        for pod in pods:
            index = completion_index(pod)
            if pod.status.phase == "Succeeded" and index is not None and index not in indexes:
                indexes.append(index)
        indexes = sorted(i for i in indexes if i < (job.spec.completions or 0))
        # Of an index counts one success, however many pods had it.
        succeeded, new = len(indexes), ([], new[1])
    return Tracked(succeeded, failed, new[0], new[1], indexes)


def parse_indexes(text: str) -> list[int]:
    """``1,3-5`` as a list."""
    out: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        out += range(int(first), int(last or first) + 1)
    return out


def write_indexes(indexes: Sequence[int]) -> str:
    """The inverse of :func:`parse_indexes`; two neighbours are two numbers, as Kubernetes writes them."""
    parts: list[str] = []
    at = 0
    while at < len(indexes):
        end = at
        while end + 1 < len(indexes) and indexes[end + 1] == indexes[end] + 1:
            end += 1
        first, last = indexes[at], indexes[end]
        parts.append(str(first) if first == last else f"{first},{last}" if last == first + 1 else f"{first}-{last}")
        at = end + 1
    return ",".join(parts)
