"""Plans a Job: whether it has ended, which pods to make and to delete, what to report. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from controllers.job import indexes
from controllers.job.tracking import FINALIZER, INDEX, Tracked, completion_index, is_tracked, write_indexes
from navarch.api import pods as podrules
from navarch.api.conditions import get_condition, is_true, set_condition
from navarch.api.times import format_time, parse_time
from navarch.api.types import batch_v1, core_v1, meta_v1

Pod = core_v1.Pod
Job = batch_v1.Job
BURST = 500
FIRST_DELAY, MAX_DELAY = 10.0, 600.0
BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")
INDEX_ENV = "JOB_COMPLETION_INDEX"


class Verdict(NamedTuple):
    """Why a Job ends. ``failed`` says how."""

    failed: bool
    reason: str
    message: str


class New(NamedTuple):
    """A pod to make. ``failures``: of its completion index so far."""

    completion_index: int = -1  # -1: without one
    failures: indexes.Failures | None = None


class Plan(NamedTuple):
    """``again``: seconds until something is due."""

    create: list[New]
    delete: list[Pod]
    again: float | None


def is_finished(job: Job) -> bool:
    return is_true(job.status.conditions, "Complete") or is_true(job.status.conditions, "Failed")


def is_active(job: Job, pod: Pod) -> bool:
    return not podrules.is_terminal(pod) and pod.metadata.deletion_timestamp is None


def policy_action(job: Job, pod: Pod) -> tuple[str, str]:
    """The verdict of podFailurePolicy on a failed pod: (FailJob, FailIndex, Ignore, Count or "", message)."""
    policy = job.spec.pod_failure_policy
    if policy is None or pod.status.phase != "Failed":
        return "", ""
    name = f"{pod.metadata.namespace}/{pod.metadata.name}"
    for number, rule in enumerate(policy.rules):
        if rule.on_exit_codes is not None:
            exit_codes = rule.on_exit_codes
            for status in [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]:
                ended = status.state.terminated if status.state is not None else None
                if exit_codes.container_name not in (None, status.name) or ended is None or ended.exit_code == 0:
                    continue
                if (ended.exit_code in exit_codes.values) == (exit_codes.operator == "In"):
                    text = f"Container {status.name} for pod {name} failed with exit code {ended.exit_code}"
                    return rule.action, f"{text} matching {rule.action} rule at index {number}"
        for pattern in rule.on_pod_conditions or ():
            condition = get_condition(pod.status.conditions, pattern.type)
            if condition is not None and condition.status == pattern.status:
                text = f"Pod {name} has condition {pattern.type} matching {rule.action} rule at index {number}"
                return rule.action, text
    return "", ""


def verdict(job: Job, pods: Sequence[Pod], tracked: Tracked, now: float) -> Verdict | None:
    """How the Job ends, None while it goes on."""
    spec, status = job.spec, job.status
    for type_, failed in (("FailureTarget", True), ("SuccessCriteriaMet", False)):
        condition = get_condition(status.conditions, type_)
        if condition is not None and condition.status == "True":
            return Verdict(failed, condition.reason or "", condition.message or "")
    for pod in pods:
        action, message = policy_action(job, pod)
        if action == "FailJob":
            return Verdict(True, "PodFailurePolicy", message)
    limit = 6 if spec.backoff_limit is None else spec.backoff_limit
    if tracked.all_failed > limit or _restarted(job, pods, limit):
        return Verdict(True, *BACKOFF)
    remaining = _deadline(job, now)
    if remaining is not None and remaining <= 0:
        return Verdict(True, *DEADLINE)
    given_up = len(tracked.failed_indexes)
    if given_up and spec.max_failed_indexes is not None and given_up > spec.max_failed_indexes:
        return Verdict(True, *indexes.TOO_MANY)
    rule = indexes.succeeds_early(job, tracked.indexes)
    if rule is not None:
        return Verdict(False, "SuccessPolicy", f"Matched rules at index {rule}")
    if given_up and spec.completions is not None and given_up + tracked.all_succeeded >= spec.completions:
        return Verdict(True, *indexes.SOME)
    active = sum(is_active(job, pod) for pod in pods)
    if spec.completions is None:
        done = tracked.all_succeeded > 0 and active == 0
    else:
        done = tracked.all_succeeded >= spec.completions and (spec.completions > 0 or active == 0)
    return Verdict(False, *REACHED) if done else None


def _restarted(job: Job, pods: Sequence[Pod], limit: int) -> bool:
    """Pods that restart their containers themselves count each restart."""
    if job.spec.template.spec.restart_policy != "OnFailure":
        return False
    total = 0
    for pod in pods:
        if pod.status.phase in ("Running", "Pending"):
            statuses = [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
            total += sum(s.restart_count for s in statuses)
    return total > 0 if limit == 0 else total >= limit


def plan(job: Job, pods: Sequence[Pod], tracked: Tracked, ends: bool, now: float) -> Plan:
    """Plans what to do about the pods; ``ends``: the Job has its verdict."""
    spec = job.spec
    active = [pod for pod in pods if is_active(job, pod)]
    if ends or spec.suspend:
        return Plan([], active, None)  # a deadline that is over comes no second time: what is left to wait for are pods
    again = _deadline(job, now)
    parallelism = 1 if spec.parallelism is None else spec.parallelism
    if spec.completions is None:
        desired = len(active) if tracked.all_succeeded else parallelism
    else:
        to_complete = spec.completions - tracked.all_succeeded - len(tracked.failed_indexes)
        desired = max(0, min(parallelism, to_complete))
    extra = len(active) - desired
    if extra > 0:
        return Plan([], sorted(active, key=lambda p: podrules.deletion_rank(p, 0, now))[:extra], again)
    # Where only failed pods are replaced, those that still end take their place.
    leaving = 0
    if spec.pod_replacement_policy == "Failed":
        leaving = sum(p.metadata.deletion_timestamp is not None and not podrules.is_terminal(p) for p in pods)
    missing = min(desired - len(active) - leaving, BURST)
    if missing <= 0:
        return Plan([], [], again)
    if indexes.per_index(job):
        return _plan_indexes(job, pods, tracked, missing, again, now)
    wait = backoff(pods, now)
    if wait > 0:
        return Plan([], [], _sooner(wait, again))
    if spec.completion_mode != "Indexed":
        return Plan([New()] * missing, [], again)
    return Plan([New(i) for i in _free(job, active, tracked)[:missing]], [], again)


def _free(job: Job, active: Sequence[Pod], tracked: Tracked) -> list[int]:
    """The indexes that nobody works on, has done or has given up."""
    busy = [i for p in active if (i := completion_index(p)) is not None]
    unavailable = dict.fromkeys([*tracked.indexes, *tracked.failed_indexes, *busy])
    return [i for i in range(job.spec.completions or 0) if i not in unavailable]


def _plan_indexes(
    job: Job, pods: Sequence[Pod], tracked: Tracked, missing: int, again: float | None, now: float
) -> Plan:
    """As :func:`plan`, where each index waits after its own failures only."""
    active = [pod for pod in pods if is_active(job, pod)]
    last = indexes.last_failed(job, pods)
    create: list[New] = []
    for index in _free(job, active, tracked):
        if len(create) == missing:
            break
        before, pod = indexes.Failures(), last.get(index)
        if pod is not None:
            before = indexes.failures(pod, policy_action(job, pod)[0])
            wait = _ended(pod) + delay(sum(before)) - now
            if wait > 0:
                again = _sooner(wait, again)
                continue
        create.append(New(index, before))
    return Plan(create, [], again)


def _sooner(wait: float, again: float | None) -> float:
    return wait if again is None else min(wait, again)


def delay(failures: int) -> float:
    """Seconds to wait after that many failures in a row: 10, 20, 40 ... 600."""
    return min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 10)) if failures else 0.0


def _deadline(job: Job, now: float) -> float | None:
    limit, began = job.spec.active_deadline_seconds, job.status.start_time
    if limit is None or not began or job.spec.suspend:
        return None
    return parse_time(began) + limit - now


def backoff(pods: Sequence[Pod], now: float) -> float:
    """Seconds to wait until a pod is made again."""
    ended = sorted((_ended(pod), pod.status.phase == "Succeeded") for pod in pods if podrules.is_terminal(pod))
    failures = 0
    for _, good in reversed(ended):
        if good:
            break
        failures += 1
    return ended[-1][0] + delay(failures) - now if failures else 0.0


def _ended(pod: Pod) -> float:
    times = [
        parse_time(s.state.terminated.finished_at)
        for s in pod.status.container_statuses or ()
        if s.state is not None and s.state.terminated is not None and s.state.terminated.finished_at
    ]
    if times:
        return max(times)
    ready = get_condition(pod.status.conditions, "Ready")
    at = (ready.last_transition_time if ready is not None else None) or pod.metadata.creation_timestamp
    return parse_time(at) if at else 0.0


def new_pod(job: Job, owner: meta_v1.OwnerReference, new: New) -> Pod:
    """A pod of the Job's template, tracked."""
    index = new.completion_index
    template, name = job.spec.template, job.metadata.name or ""
    meta, spec = template.metadata, template.spec
    labels, annotations = dict(meta.labels or {}), dict(meta.annotations or {})
    prefix = f"{name}-"
    if index >= 0:
        prefix = f"{name}-{index}-"
        labels[INDEX] = annotations[INDEX] = str(index)
        if new.failures is not None:
            annotations[indexes.FAILURES] = str(new.failures.counted)
            if new.failures.ignored:
                annotations[indexes.IGNORED] = str(new.failures.ignored)
        where = core_v1.EnvVarSource(field_ref=core_v1.ObjectFieldSelector(field_path=f"metadata.labels['{INDEX}']"))
        env = core_v1.EnvVar(name=INDEX_ENV, value_from=where)
        with_env = {
            field: [
                msgspec.structs.replace(c, env=[*(c.env or ()), env])
                if all(e.name != INDEX_ENV for e in c.env or ()) else c
                for c in getattr(spec, field) or ()
            ]
            or None
            for field in ("containers", "init_containers")
        }  # fmt: skip
        spec = msgspec.structs.replace(spec, hostname=spec.hostname or f"{name}-{index}", **with_env)
    return Pod(
        metadata=meta_v1.ObjectMeta(
            generate_name=prefix,
            namespace=job.metadata.namespace,
            labels=labels,
            annotations=annotations or None,
            finalizers=[*(meta.finalizers or ()), FINALIZER],
            owner_references=[owner],
        ),
        spec=spec,
    )


def report(job: Job, pods: Sequence[Pod], tracked: Tracked, end: Verdict | None, now: float) -> batch_v1.JobStatus:
    """The status; the last word is only said when all pods are counted and gone or finished."""
    at = format_time(now)
    active = [pod for pod in pods if is_active(job, pod)]
    leaving = [p for p in pods if p.metadata.deletion_timestamp is not None and not podrules.is_terminal(p)]
    conditions, start, completed = list(job.status.conditions or ()), job.status.start_time, job.status.completion_time

    def say(type_: str, status: str, reason: str, message: str) -> None:
        nonlocal conditions
        new = batch_v1.JobCondition(type=type_, status=status, reason=reason, message=message, last_probe_time=at)
        old = get_condition(conditions, type_)
        if old is None or old.status != status:
            conditions, _ = set_condition(conditions, new, at)

    if end is not None:
        say("FailureTarget" if end.failed else "SuccessCriteriaMet", "True", end.reason, end.message)
        settled = not tracked.new_succeeded and not tracked.new_failed and not any(map(is_tracked, pods))
        if not active and not leaving and settled:
            say("Failed" if end.failed else "Complete", "True", end.reason, end.message)
            completed = completed or (None if end.failed else at)
    elif job.spec.suspend:
        say("Suspended", "True", "JobSuspended", "Job suspended")
        start = None
    else:
        if is_true(conditions, "Suspended"):
            say("Suspended", "False", "JobResumed", "Job resumed")
            start = None
        start = start or at
    ready = sum(podrules.is_ready(pod) for pod in active)
    return msgspec.structs.replace(
        job.status,
        active=len(active) or None,
        ready=ready,
        terminating=len(leaving),
        succeeded=tracked.succeeded or None,
        failed=tracked.failed or None,
        uncounted_terminated_pods=tracked.uncounted,
        completed_indexes=write_indexes(tracked.indexes) or None,
        failed_indexes=write_indexes(tracked.failed_indexes) if indexes.per_index(job) else None,
        conditions=conditions or None,
        start_time=start,
        completion_time=completed,
    )


