"""How an extension point says that a pod cannot go on."""

from __future__ import annotations


class Rejected(Exception):
    """Raised by pre_enqueue, pre_filter, reserve, permit or pre_bind: the pod cannot be scheduled now."""


class Failed(Exception):
    """Raised by pre_bind or bind: it went wrong, and the pod is to be tried again after a while."""
