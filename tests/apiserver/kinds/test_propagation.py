"""What a delete that names no propagation policy does, kind by kind."""

from __future__ import annotations

import pytest

from tests.apiserver.kinds.samples import SAMPLES, path_of
from tests.apiserver.kinds.served import Asker
from tests.apiserver.kinds.support import CATALOG

WARNING = (
    '299 - "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or '
    'set propagationPolicy=Orphan to suppress this warning"'
)
DEFAULTS = {"Job": "Orphan", "ReplicationController": "Orphan", "Event": ""}


def test_table() -> None:
    """Every kind's default; those that began before the garbage collector orphan what they own."""
    for strategy in CATALOG.values():
        assert strategy.default_propagation == DEFAULTS.get(strategy.kind.kind, "Background"), strategy.kind


@pytest.mark.parametrize(
    ("kind", "finalizers", "warned"),
    [
        ("Job", ["orphan"], True), ("ReplicationController", ["orphan"], False), ("Deployment", None, False),
        ("ReplicaSet", None, False), ("StatefulSet", None, False), ("DaemonSet", None, False), ("CronJob", None, False),
        ("ConfigMap", None, False),
    ],
)  # fmt: skip
async def test_plain_delete(ask: Asker, kind: str, finalizers: list[str] | None, warned: bool) -> None:
    """Without a body, with an empty one, and as a collection."""
    sample = next(s for s in SAMPLES if s["kind"] == kind)
    resource = next(s.kind.resource for s in CATALOG.values() if s.kind.kind == kind)

    path = path_of(sample, resource, True)
    for way in (None, {}, "collection"):
        await ask("POST", path, sample)
        if way == "collection":
            await ask("DELETE", path, query="fieldSelector=metadata.name=sample")
        else:
            await ask("DELETE", f"{path}/sample", way)
        assert ask.warnings == ([WARNING] if warned else [])
        left = await ask("GET", f"{path}/sample", code=200 if finalizers else 404)
        assert left.get("metadata", {}).get("finalizers") == finalizers
        if finalizers:
            assert left["metadata"]["deletionTimestamp"]
            await ask("PATCH", f"{path}/sample", {"metadata": {"finalizers": None}})
    for policy, expected in (("Background", None), ("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"])):
        await ask("POST", path, sample)
        await ask("DELETE", f"{path}/sample", {"propagationPolicy": policy})
        assert not ask.warnings
        left = await ask("GET", f"{path}/sample", code=200 if expected else 404)
        assert left.get("metadata", {}).get("finalizers") == expected
        if expected:
            await ask("PATCH", f"{path}/sample", {"metadata": {"finalizers": None}})
    # What the object carries decides before the kind's default.
    marked = {**sample, "metadata": {**sample["metadata"], "finalizers": ["foregroundDeletion"]}}
    await ask("POST", path, marked)
    await ask("DELETE", f"{path}/sample")
    assert (await ask("GET", f"{path}/sample"))["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_events_have_no_dependents(ask: Asker) -> None:
    sample = next(s for s in SAMPLES if s["kind"] == "Event")

    path = path_of(sample, "events", True)
    await ask("POST", path, sample)
    await ask("DELETE", f"{path}/sample", {"propagationPolicy": "Foreground"})
    await ask("GET", f"{path}/sample", code=404)
