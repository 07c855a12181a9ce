"""Jobs whose indexes fail each by itself (spec.backoffLimitPerIndex), and Jobs that may succeed early (spec.successPolicy).

How often an index has failed is written on its pods: each new one carries the number of failures before it. So the last
failed pod of an index must not go before there is a next one; see :func:`held`. Source: KEP-3850, KEP-3998.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from controllers.job.tracking import completion_index, has_failed, parse_indexes
from navarch.api import pods as podrules
from navarch.api.types import batch_v1, core_v1

Pod = core_v1.Pod
Job = batch_v1.Job
FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
TOO_MANY = ("MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes")
SOME = ("FailedIndexes", "Job has failed indexes")


class Failures(NamedTuple):
    """Of one index: failures that count, and those that podFailurePolicy says to ignore."""

    counted: int = 0
    ignored: int = 0


def per_index(job: Job) -> bool:
    return job.spec.backoff_limit_per_index is not None


def _written(pod: Pod) -> Failures:
    annotations = pod.metadata.annotations or {}
    counted, ignored = (annotations.get(name, "") for name in (FAILURES, IGNORED))
    return Failures(int(counted) if counted.isdecimal() else 0, int(ignored) if ignored.isdecimal() else 0)


def failures(pod: Pod, action: str) -> Failures:
    """The failures of the failed ``pod`` with those before it; ``action``: what podFailurePolicy says of it."""
    before = _written(pod)
    if action == "Ignore":
        return Failures(before.counted, before.ignored + 1)
    return Failures(before.counted + 1, before.ignored)


def last_failed(job: Job, pods: Iterable[Pod]) -> dict[int, Pod]:
    """The newest failed pod of each index, as far as it is still there."""
    out: dict[int, Pod] = {}
    for pod in pods:
        index = completion_index(pod)
        if index is None or not has_failed(job, pod):
            continue
        if index not in out or _written(pod) >= _written(out[index]):
            out[index] = pod
    return out


def failed_indexes(job: Job, pods: Sequence[Pod], done: Iterable[int], action: Callable[[Pod], str]) -> list[int]:
    """The indexes that are given up: failed more often than the limit, or at once by a FailIndex rule."""
    limit = job.spec.backoff_limit_per_index
    if limit is None:
        return []
    failed = parse_indexes(job.status.failed_indexes or "")
    for index, pod in last_failed(job, pods).items():
        said = action(pod)
        if said == "FailIndex" or failures(pod, said).counted > limit:
            failed.append(index)
    succeeded = dict.fromkeys(done)
    return sorted(i for i in dict.fromkeys(failed) if i not in succeeded)


def uids_to_hold(job: Job, pods: Sequence[Pod], over: Iterable[int]) -> list[str]:
    """Uids of pods whose finalizer has to stay: nobody has taken on their count. ``over``: indexes that are decided."""
    if not per_index(job):
        return []
    decided = dict.fromkeys(over)
    for pod in pods:
        index = completion_index(pod)
        if index is not None and not podrules.is_terminal(pod) and not has_failed(job, pod):
            decided[index] = None
    return [pod.metadata.uid or "" for index, pod in last_failed(job, pods).items() if index not in decided]


def succeeds_early(job: Job, done: Sequence[int]) -> int | None:
    """The first rule of successPolicy that the succeeded indexes ``done`` satisfy."""
    policy = job.spec.success_policy
    for number, rule in enumerate(policy.rules if policy is not None else ()):
        good = list(done)
        needed = rule.succeeded_count
        if rule.succeeded_indexes is not None:
            named = dict.fromkeys(parse_indexes(rule.succeeded_indexes))
            good = [i for i in done if i in named]
            needed = len(named) if needed is None else needed
        if needed is not None and len(good) >= needed:
            return number
    return None
