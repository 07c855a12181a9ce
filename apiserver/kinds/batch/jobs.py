"""Jobs: pods that run to an end, a number of times."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.apps.workloads import WIDE, wide_cells
from apiserver.kinds.batch.jobs_policies import validate_failure_policy, validate_success_policy
from apiserver.kinds.cells import age_cell, at, condition, fill, kind, meta_of, name_cell, spec_of, status_of
from apiserver.kinds.checks import (
    MAX_INT32,
    domain_path,
    immutable,
    non_negative,
    validate_label_selector,
)
from apiserver.kinds.core.pods.defaults import default_pod_spec
from apiserver.kinds.core.pods.validation import validate_template
from apiserver.kinds.core.pods.warnings import template_warnings
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api.durations import human_duration
from navarch.api.errors import Cause, invalid, not_supported, required, too_long
from navarch.api.selectors import selector_matches
from navarch.api.times import parse_time

NAME_LABELS = ("job-name", "batch.kubernetes.io/job-name")
UID_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid")
MODES = ("Indexed", "NonIndexed")
REPLACEMENT = ("Failed", "TerminatingOrFailed")
NUMBERS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip
MAX_MANAGER = 63
MAX_INDEXED_PARALLELISM = 100_000
# Fields of a pod template that may still change while a Job that never started is suspended.
SCHEDULING = ("nodeSelector", "affinity", "tolerations", "schedulingGates")
UNCHANGEABLE = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
# What kubectl shows, the first condition that holds; "" is where a deletion comes in.
STATES = ("Complete", "Failed", "", "Suspended", "FailureTarget", "SuccessCriteriaMet")


def default_job_spec(spec: Tree) -> None:
    """Sets the defaults of a Job's spec that a CronJob's template does not have."""
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    fill(spec, parallelism=1)
    fill(spec, backoffLimit=MAX_INT32 if spec.get("backoffLimitPerIndex") is not None else 6)
    fill(spec, completionMode="NonIndexed", suspend=False, manualSelector=False)
    fill(spec, podReplacementPolicy="Failed" if spec.get("podFailurePolicy") is not None else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"


def default_job_template(spec: Tree) -> None:
    if spec.get("template") is not None:
        default_pod_spec(spec["template"].setdefault("spec", {}))


class JobStrategy(Strategy):
    kind = kind("batch/v1", "Job")
    has_status = True
    selectable_fields = ("status.successful",)
    default_propagation = "Orphan"  # as batch/v1 began, before there was a garbage collector
    deletion_warning = (
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
        "propagationPolicy=Orphan to suppress this warning"
    )
    columns = (
        NAME_COLUMN, Column("Status"), Column("Completions"), Column("Duration"), AGE_COLUMN, *WIDE,
    )  # fmt: skip

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        default_job_spec(spec)
        default_job_template(spec)
        labels = at(spec, "template", "metadata", "labels")
        if labels and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)

    def prepare_create(self, context: Context, obj: Tree) -> None:
        obj["status"] = {}
        spec = obj["spec"]
        if spec.get("manualSelector") or spec.get("template") is None:
            return
        metadata = obj["metadata"]
        template = spec["template"].setdefault("metadata", {})
        fill(template, labels={})
        for key in NAME_LABELS:
            template["labels"].setdefault(key, metadata.get("name", ""))
        for key in UID_LABELS:
            template["labels"].setdefault(key, metadata.get("uid", ""))
        fill(spec, selector={})
        fill(spec["selector"], matchLabels={})
        spec["selector"]["matchLabels"].setdefault(UID_LABELS[1], metadata.get("uid", ""))

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        out = _generated(obj, spec) + validate_job_spec(spec, "spec")
        selector = spec.get("selector")
        labels = at(spec, "template", "metadata", "labels") or {}
        if selector is None:
            return [*out, required("spec.selector")]
        wrong = validate_label_selector(selector, "spec.selector")
        if not wrong and not selector_matches(selector, labels):
            text = "`selector` does not match template `labels`"
            wrong = [invalid("spec.template.metadata.labels", labels, text)]
        return out + wrong

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        new, was = spec_of(obj), spec_of(old)
        out = self.validate(obj)
        completions = new.get("completions")
        if completions != was.get("completions"):
            if new.get("completionMode") != "Indexed":
                out += immutable(completions, was.get("completions"), "spec.completions")
            elif completions != new.get("parallelism"):
                text = "can only be modified in tandem with spec.parallelism"
                out.append(invalid("spec.completions", completions, text))
        for field in UNCHANGEABLE:
            out += immutable(new.get(field), was.get(field), f"spec.{field}")
        templates = [new.get("template"), was.get("template")]
        if was.get("suspend") and not status_of(old).get("startTime"):
            templates = [_without_scheduling(t or {}) for t in templates]
        return out + immutable(templates[0], templates[1], "spec.template")

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        was = spec_of(old).get("template") or {} if old is not None else None
        return template_warnings(spec_of(obj).get("template"), was, "spec.template")

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        status, out = status_of(obj), []
        for field in ("active", "succeeded", "failed", "ready", "terminating"):
            out += non_negative(status.get(field), f"status.{field}")
        ended = [t for t in ("Complete", "Failed") if (condition(obj, t) or {}).get("status") == "True"]
        if len(ended) == 2:
            out.append(invalid("status.conditions", ended, "cannot set Complete=True and Failed=True conditions"))
        for type_ in ("Complete", "Failed"):
            if (condition(old, type_) or {}).get("status") == "True" and type_ not in ended:
                text = f"cannot disable the terminal {type_}=True condition"
                out.append(invalid("status.conditions", status.get("conditions") or [], text))
        return out

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"status.successful": str(status_of(obj).get("succeeded") or 0)}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec, status = spec_of(obj), status_of(obj)
        done, needed, parallel = status.get("succeeded") or 0, spec.get("completions"), spec.get("parallelism") or 0
        completions = f"{done}/{1 if needed is None else needed}"
        if needed is None and parallel > 1:
            completions += f" of {parallel}"
        duration = ""
        if status.get("startTime"):
            ended = status.get("completionTime")
            duration = human_duration((parse_time(ended) if ended else now) - parse_time(status["startTime"]))
        return [name_cell(obj), _state(obj), completions, duration, age_cell(obj, now), *wide_cells(spec)]


def _state(obj: Tree) -> str:
    for state in STATES:
        if not state and meta_of(obj).get("deletionTimestamp"):
            return "Terminating"
        if state and (condition(obj, state) or {}).get("status") == "True":
            return state
    return "Running"


def _without_scheduling(template: Tree) -> Tree:
    metadata = {k: v for k, v in (template.get("metadata") or {}).items() if k not in ("labels", "annotations")}
    spec = {k: v for k, v in (template.get("spec") or {}).items() if k not in SCHEDULING}
    return {**template, "metadata": metadata, "spec": spec}


def _generated(obj: Tree, spec: Tree) -> list[Cause]:
    """A selector that is made by the server selects by the Job's own uid, and the template carries name and uid."""
    metadata, selector = meta_of(obj), spec.get("selector")
    if spec.get("manualSelector") or selector is None:
        return []
    name, uid = metadata.get("name") or "", metadata.get("uid") or ""
    out = [] if uid else [required("metadata.uid")]
    labels = at(spec, "template", "metadata", "labels") or {}
    expected = {**{k: uid for k in UID_LABELS}, **{k: name for k in NAME_LABELS}}
    for key, value in expected.items():
        path = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            out.append(required(path, f"must be '{value}'"))
        elif labels[key] != value:
            out.append(invalid(path, labels, f"must be '{value}'"))
    if not validate_label_selector(selector, "spec.selector") and not selector_matches(selector, expected):
        out.append(invalid("spec.selector", selector, "`selector` not auto-generated"))
    return out


def validate_job_spec(spec: Tree, path: str) -> list[Cause]:
    """Validates a Job's spec, or that of the template in a CronJob."""
    out = [c for field in NUMBERS for c in non_negative(spec.get(field), f"{path}.{field}")]
    mode, completions, parallelism = spec.get("completionMode"), spec.get("completions"), spec.get("parallelism")
    if mode is not None and mode not in MODES:
        out.append(not_supported(f"{path}.completionMode", mode, MODES))
    if mode == "Indexed":
        if completions is None:
            out.append(required(f"{path}.completions", "when completion mode is Indexed"))
        if (parallelism or 0) > MAX_INDEXED_PARALLELISM:
            text = f"must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed"
            out.append(invalid(f"{path}.parallelism", parallelism, text))
        if completions is not None and (spec.get("maxFailedIndexes") or 0) > completions:
            out.append(
                invalid(f"{path}.maxFailedIndexes", spec["maxFailedIndexes"], "must be less than or equal to completions")
            )
    else:
        for field in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy"):
            if spec.get(field) is not None:
                out.append(invalid(f"{path}.{field}", spec[field], "requires indexed completion mode"))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        out.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    manager = spec.get("managedBy")
    if manager is not None:
        out += domain_path(manager, f"{path}.managedBy")
        if len(manager) > MAX_MANAGER:
            out.append(too_long(f"{path}.managedBy", MAX_MANAGER))
    template, failure = spec.get("template") or {}, spec.get("podFailurePolicy")
    out += validate_failure_policy(failure, f"{path}.podFailurePolicy", spec)
    out += validate_success_policy(spec.get("successPolicy"), f"{path}.successPolicy", completions)
    replacement = spec.get("podReplacementPolicy")
    allowed = REPLACEMENT if failure is None else REPLACEMENT[:1]
    if replacement is not None and replacement not in allowed:
        out.append(not_supported(f"{path}.podReplacementPolicy", replacement, allowed))
    out += validate_template(template, f"{path}.template")
    restart, here = (template.get("spec") or {}).get("restartPolicy"), f"{path}.template.spec.restartPolicy"
    if restart in (None, "", "Always"):
        out.append(required(here, 'valid values: "OnFailure", "Never"'))
    elif restart not in ("OnFailure", "Never"):
        out.append(not_supported(here, restart, ("OnFailure", "Never")))
    elif failure is not None and restart != "Never":
        out.append(invalid(here, restart, 'only "Never" is supported when podFailurePolicy is specified'))
    return out
