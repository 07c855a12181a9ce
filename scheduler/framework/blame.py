"""Blame for an exception: the plugin in whose code it was raised, and at which extension point.

Plugins are called in a hundred places, some a million times a minute. So nobody wraps the calls: the traceback of what was
raised tells afterwards. The innermost frame that belongs to a plugin is to blame (preemption asks other plugins), and the
outermost frame of that plugin from there on says which of its methods was asked.
"""

from __future__ import annotations

from typing import NamedTuple

from navarch.world import describe
from scheduler.framework.plugin import Plugin

POINTS = {
    "order": "QueueSort", "pre_enqueue": "PreEnqueue", "named": "PreFilter", "pre_filter": "PreFilter", "filter": "Filter",
    "refuses": "Filter", "pre_score": "PreScore", "score": "Score", "score_rows": "Score", "score_row": "Score",
    "normalize": "NormalizeScore", "reserve": "Reserve", "unreserve": "Unreserve", "permit": "Permit",
    "pre_bind_needed": "PreBind", "pre_bind": "PreBind", "bind": "Bind", "post_bind": "PostBind",
    "post_filter": "PostFilter", "helps": "QueueingHint", "own_change_helps": "QueueingHint",
    "reach": "Reach", "apart": "Apart", "placed": "Placed", "left": "Left",
}  # fmt: skip
"""Kubernetes' names of the extension points, by method; the last line has those that are our own."""


EXTENDER = "Extender"
"""The point of a fault that an extender is to blame for."""


class Fault(NamedTuple):
    """A mistake and its place. ``plugin`` and ``point`` are "" if no plugin had a part in it."""

    plugin: str
    point: str
    error: str  # in one line

    def __str__(self) -> str:
        """As kube-scheduler words it."""
        if self.point == EXTENDER:
            return self.error
        if not self.plugin:
            return f"internal error: {self.error}"
        return f'running {self.point} plugin "{self.plugin}": {self.error}'


def blame(error: BaseException) -> Fault:
    """Reads the traceback of ``error``."""
    plugin: Plugin | None = None
    method = ""
    frame = error.__traceback__
    while frame is not None:
        owner = frame.tb_frame.f_locals.get("self")
        if isinstance(owner, Plugin):
            if owner is not plugin:
                plugin, method = owner, frame.tb_frame.f_code.co_name
            elif method not in POINTS:
                method = frame.tb_frame.f_code.co_name
        frame = frame.tb_next
    text = describe(error)
    return Fault(plugin.name, POINTS.get(method, method), text) if plugin is not None else Fault("", "", text)
