"""A snapshot: all objects of a cluster at one time, read from a live cluster or from a recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lab.experiments.recording import Recording
from lab.experiments.state import State
from lab.recording.reading import chosen, cleaned, key_of, verbs
from navarch.api.errors import Expired, Forbidden, StatusError
from navarch.api.times import parse_time
from navarch.client.client import Client
from navarch.client.discovery import discover

Tree = dict[str, Any]

PAGE = 500


@dataclass
class Snapshot:
    """``now`` in Unix seconds; ``objects`` by key, without resourceVersion; ``missing``: what could not be listed."""

    now: float
    objects: dict[str, Tree] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    source: str = ""
    version: str = ""

    @property
    def is_navarch(self) -> bool:
        """Whether navarch's own API server told it."""
        return "navarch" in self.version

    def of(self, resource: str) -> list[Tree]:
        """The objects of a built-in resource such as ``pods``, in the order of their keys."""
        prefix = f"/registry/{resource}/"
        return [self.objects[key] for key in sorted(self.objects) if key.startswith(prefix)]

    @classmethod
    def at(cls, recording: Recording, time: float) -> Snapshot:
        """The state of a recording at a time in seconds since its start."""
        state: dict[str, Tree] = {}
        for change in recording.changes:
            if change.time > time:
                break
            if change.type == "DELETED":
                state.pop(change.key, None)
            else:
                state[change.key] = change.object
        return cls(started(recording) + time, state, source=str(recording.header.get("source", "a recording")))

    def state(self) -> State:
        """The same objects, as experiments look at them."""
        out = State()
        for key, tree in self.objects.items():
            out.apply("ADDED", key, tree)
        return out


def started(recording: Recording) -> float:
    """When a recording began, in Unix seconds: what its header says, else the first object's age."""
    if text := recording.header.get("start"):
        return parse_time(str(text))
    stamps = (c.object.get("metadata", {}).get("creationTimestamp") for c in recording.changes[:100])
    return next((parse_time(text) for text in stamps if text), 0.0)


async def take(client: Client, source: str = "", say: Callable[[str], None] = lambda text: None) -> Snapshot:
    """Lists all objects of a cluster, page by page. What may not be listed is told in ``missing``. Raises StatusError and
    TransportError if not even discovery works."""
    snapshot = Snapshot(client.world.now(), source=source)
    for resource in chosen(await discover(client), without=("leases",)):
        say(resource.full)
        try:
            for tree in await _all(client, resource.kind):
                snapshot.objects[key_of(resource.kind, tree)] = tree
        except Forbidden:
            snapshot.missing.append(f"{resource.full}: not allowed")
        except StatusError as error:
            snapshot.missing.append(f"{resource.full}: {error.message}")
    snapshot.version = str((await client.get_json("/version")).get("gitVersion", ""))
    snapshot.now = client.world.now()
    return snapshot


async def _all(client: Client, kind: Any) -> list[Tree]:
    reader = verbs(client, kind)
    out: list[Tree] = []
    token: str | None = None
    while True:
        try:
            page = await reader.list(limit=PAGE, continue_=token)
        except Expired:
            if token is None:
                raise
            out, token = [], None  # compacted between two pages: from the beginning
            continue
        out += (without_revision(cleaned(kind, item)) for item in page.items)
        token = page.continue_
        if not token:
            return out


def without_revision(tree: Tree) -> Tree:
    tree["metadata"].pop("resourceVersion", None)
    return tree


def names(trees: Iterable[Tree]) -> list[str]:
    return [t["metadata"]["name"] for t in trees]
