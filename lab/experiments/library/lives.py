"""The life of each pod of a recording: when it was made, bound, ready, gone, and how it ended."""

from __future__ import annotations

from typing import Any, NamedTuple

from lab.experiments.recording import Recording
from lab.experiments.state import Tree, is_ready


class Life(NamedTuple):
    """One pod's; times in seconds since the start, None for what did not happen."""

    name: str
    node: str
    owner: str
    image: str
    created: float
    bound: float | None
    ready: float | None
    deleted: float | None
    restarts: int
    evicted: bool
    disruption: str = ""
    """The reason of its DisruptionTarget condition, such as PreemptionByScheduler; "" if it has none."""
    unready: float | None = None
    """When it was about to go, or not ready any more, for the last time."""


def lives(recording: Recording) -> list[tuple[Life, Tree]]:
    """All pods in the order in which they were made, each with its last state."""
    by_uid: dict[str, dict[str, Any]] = {}
    for change in recording.of("pods"):
        pod = change.object
        uid = pod["metadata"].get("uid", change.key)
        one = by_uid.setdefault(uid, {"created": change.time, "bound": None, "ready": None, "deleted": None, "reason": ""})
        if pod["spec"].get("nodeName") and one["bound"] is None:
            one["bound"] = change.time
        good = is_ready(pod) and change.type != "DELETED"
        if one["ready"] is None and good:
            one["ready"] = change.time
        if one.get("good") and not good:
            one["unready"] = change.time
        one["good"] = good
        if change.type == "DELETED":
            one["deleted"] = change.time
        reasons = [c.get("reason") for c in pod.get("status", {}).get("conditions") or () if c["type"] == "DisruptionTarget"]
        one["reason"] = (reasons and reasons[0]) or one["reason"] or ("" if not reasons else "unknown")
        one["evicted"] = one.get("evicted") or bool(reasons) or pod.get("status", {}).get("reason") == "Evicted"
        one["tree"] = pod
    return [(_life(one), one["tree"]) for one in by_uid.values()]


def _life(one: dict[str, Any]) -> Life:
    pod = one["tree"]
    owner = next((o["name"] for o in pod["metadata"].get("ownerReferences") or () if o.get("controller")), "")
    restarts = sum(int(s.get("restartCount", 0)) for s in pod.get("status", {}).get("containerStatuses") or ())
    return Life(
        pod["metadata"]["name"], pod["spec"].get("nodeName", ""), owner, pod["spec"]["containers"][0].get("image", ""),
        one["created"], one["bound"], one["ready"], one["deleted"], restarts, one["evicted"], one["reason"],
        None if one["good"] else one.get("unready"),
    )  # fmt: skip
