"""The parameters of operations, and what each of them means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Parameter(NamedTuple):
    name: str
    text: str
    type: str = "string"
    where: str = "query"


def _parameters() -> Iterator[Parameter]:
    path = "path"
    yield Parameter("namespace", "The namespace, for teams and projects, in which the object lives.", where=path)
    yield Parameter("name", "The name of the object.", where=path)
    yield Parameter("path", "The part of the URL that is passed on.", where=path)
    yield Parameter("pretty", "If 'true', the answer is indented. Browsers, curl and wget get it so unless they say 'false'.")
    yield Parameter("dryRun", "'All' goes through every stage of a request and stores nothing.")
    yield Parameter(
        "fieldManager", "Who makes these changes, as metadata.managedFields will tell: at most 128 printable characters. "
        "Required for apply; other requests without one take the first word of the User-Agent."
    )  # fmt: skip
    yield Parameter(
        "fieldValidation", "What becomes of fields that are unknown or given twice: Ignore drops them, Warn (the default) "
        "also warns, Strict refuses the request."
    )  # fmt: skip
    yield Parameter("force", "Apply only: takes over fields that other managers own.", "boolean")
    yield Parameter(
        "allowWatchBookmarks", "Watch only: also send BOOKMARK events, which tell from time to time how far the watch is.",
        "boolean",
    )  # fmt: skip
    yield Parameter("continue", "The token of the page before, to get the next page of the same list.")
    yield Parameter("fieldSelector", "Only objects whose fields have these values.")
    yield Parameter("labelSelector", "Only objects whose labels match.")
    yield Parameter("limit", "At most so many objects; metadata.continue leads to the rest.", "integer")
    yield Parameter(
        "resourceVersion", "The version that is to be read, or from which a watch starts. Empty: the most recent; 0: any."
    )
    yield Parameter("resourceVersionMatch", "How resourceVersion is meant: Exact or NotOlderThan.")
    yield Parameter(
        "sendInitialEvents", "Watch only: begin with an ADDED event for each object there is, and a bookmark behind them. "
        "Takes resourceVersionMatch=NotOlderThan.", "boolean",
    )  # fmt: skip
    yield Parameter("timeoutSeconds", "How long a list or watch may take.", "integer")
    yield Parameter("watch", "Send what changes as a stream of events in place of a list.", "boolean")
    yield Parameter(
        "gracePeriodSeconds", "Seconds that the object has to end; 0 deletes it at once. Its own default if absent.",
        "integer",
    )  # fmt: skip
    yield Parameter(
        "orphanDependents", "Old form of propagationPolicy; only one of them may be given. Whether dependents stay.",
        "boolean",
    )  # fmt: skip
    yield Parameter(
        "propagationPolicy", "What becomes of dependents: Orphan lets them live, Background deletes them afterwards, "
        "Foreground before.",
    )  # fmt: skip
    yield Parameter("container", "The container; may be left out in a pod that has one.")
    yield Parameter("follow", "Go on with what the container will write.", "boolean")
    yield Parameter("previous", "The log of the container's predecessor, which ended.", "boolean")
    yield Parameter("sinceSeconds", "Only lines of the last so many seconds.", "integer")
    yield Parameter("sinceTime", "Only lines after this time.")
    yield Parameter("timestamps", "Begin each line with its time.", "boolean")
    yield Parameter("tailLines", "Only so many lines from the end.", "integer")
    yield Parameter("limitBytes", "At most so many bytes.", "integer")
    yield Parameter("stream", "All (the default), Stdout or Stderr.")
    yield Parameter("command", "A word of the command line; may be given several times.")
    yield Parameter("stdin", "Pass standard input.", "boolean")
    yield Parameter("stdout", "Pass standard output.", "boolean")
    yield Parameter("stderr", "Pass standard error.", "boolean")
    yield Parameter("tty", "Give the command a terminal.", "boolean")
    yield Parameter("ports", "The ports to forward, over WebSocket.", "integer")


PARAMETERS = {p.name: p for p in _parameters()}

WRITE = ("dryRun", "fieldManager", "fieldValidation")
PATCH = (*WRITE, "force")
LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch",
)  # fmt: skip
DELETE = ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
SELECT = tuple(p for p in LIST if p not in ("allowWatchBookmarks", "watch"))
CONNECT = {
    "log": (
        "container", "follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream",
    ),
    "exec": ("command", "container", "stderr", "stdin", "stdout", "tty"),
    "attach": ("container", "stderr", "stdin", "stdout", "tty"),
    "portforward": ("ports",),
}  # fmt: skip


def v3(name: str) -> dict[str, Any]:
    """A parameter as OpenAPI v3 writes it."""
    p = PARAMETERS[name]
    out: dict[str, Any] = {"name": name, "in": p.where, "description": p.text, "schema": {"type": p.type}}
    return out | {"required": True} if p.where == "path" else out


def v2(name: str) -> dict[str, Any]:
    """A parameter as OpenAPI v2 writes it."""
    p = PARAMETERS[name]
    out: dict[str, Any] = {"name": name, "in": p.where, "description": p.text, "type": p.type}
    return out | {"required": True} if p.where == "path" else out
