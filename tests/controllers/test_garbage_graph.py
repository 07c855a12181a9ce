"""The ownership graph: whatever the order of events, the same work is found in the end."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.garbage.graph import FOREGROUND, ORPHAN, REPORT_WORK, Graph, Identity, Work
from navarch.api.types.meta_v1 import OwnerReference


def identity(uid: str, kind: str = "Thing", namespace: str = "ns") -> Identity:
    return Identity("g", "v1", kind, namespace, f"name-{uid}", uid)


def ref(uid: str, *, block: bool = False, name: str | None = None) -> OwnerReference:
    return OwnerReference(
        api_version="g/v1", kind="Thing", name=name or f"name-{uid}", uid=uid, block_owner_deletion=block or None
    )


def delete(*uids: str) -> list[Work]:
    return [Work("delete", uid) for uid in uids]


def test_an_owner_that_goes_takes_its_dependents() -> None:
    graph = Graph()
    assert graph.observe(identity("a"), None, None, False) == []
    assert graph.observe(identity("b"), [ref("a")], None, False) == []
    assert graph.observe(identity("c"), [ref("b")], None, False) == []
    assert graph.forget("a") == delete("b")
    assert graph.forget("b") == delete("c")
    assert graph.forget("c") == [] and not graph.vertices


def test_an_owner_that_was_never_seen_is_looked_for() -> None:
    graph = Graph()
    assert graph.observe(identity("b"), [ref("a")], None, False) == delete("a")
    assert graph.vertices["a"].virtual and graph.vertices["a"].identity == identity("a")
    assert graph.forget("a") == delete("b")  # the server did not know it


def test_an_owner_that_appears_later() -> None:
    graph = Graph()
    graph.observe(identity("b"), [ref("a")], None, False)
    graph.observe(identity("c"), [ref("a", name="another")], None, False)
    assert graph.observe(identity("a"), None, None, False) == delete("c")  # it meant an object that does not exist
    assert not graph.vertices["a"].virtual


def test_a_dependent_with_wrong_coordinates() -> None:
    graph = Graph()
    graph.observe(identity("a", namespace="elsewhere"), None, None, False)
    report = Work(REPORT_WORK, "b a")
    assert graph.observe(identity("b"), [ref("a")], None, False) == [report, *delete("b")]


def test_an_owner_that_proves_to_live_elsewhere_is_reported() -> None:
    graph = Graph()
    graph.observe(identity("b", namespace=""), [ref("a")], None, False)
    assert graph.observe(identity("a"), None, None, False) == [Work(REPORT_WORK, "b a"), *delete("b")]


def test_foreground() -> None:
    graph = Graph()
    graph.observe(identity("a"), None, None, False)
    graph.observe(identity("b"), [ref("a", block=True)], None, False)
    graph.observe(identity("c"), [ref("a")], None, False)
    assert graph.observe(identity("a"), None, [FOREGROUND], True) == delete("b", "c", "a")
    assert [v.identity.uid for v in graph.vertices["a"].blockers] == ["b"]
    assert graph.observe(identity("a"), None, [FOREGROUND], True) == []
    assert graph.observe(identity("d"), [ref("a")], None, False) == delete("d")
    assert graph.observe(identity("b"), [ref("a")], None, False) == delete("a")  # it does not block any more
    assert graph.forget("c") == delete("a")


def test_orphan() -> None:
    graph = Graph()
    graph.observe(identity("b"), [ref("a")], None, False)
    assert graph.observe(identity("a"), None, [ORPHAN], False) == []
    assert graph.observe(identity("a"), None, [ORPHAN], True) == [Work("orphan", "a")]
    assert graph.observe(identity("b"), None, None, False) == []
    assert graph.forget("a") == []
    assert list(graph.vertices) == ["b"]


UIDS = st.integers(0, 7).map(str)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(UIDS, st.none() | st.lists(UIDS, max_size=3, unique=True)), max_size=30))
def test_edges_match_both_ways(events: list[tuple[str, list[str] | None]]) -> None:
    graph = Graph()
    owners: dict[str, list[str]] = {}
    for uid, named in events:
        if named is None:
            work = graph.forget(uid)
            for other, theirs in owners.items():
                if uid in theirs and uid in owners and other != uid:
                    assert Work("delete", other) in work
            owners.pop(uid, None)
        else:
            graph.observe(identity(uid), [ref(o) for o in named], None, False)
            owners[uid] = named
        for uid_, vertex in graph.vertices.items():
            for dependent in vertex.dependents.values():
                assert uid_ in [r.uid for r in dependent.owners]
            assert vertex.dependents if vertex.virtual else [r.uid for r in vertex.owners] == owners[uid_]
        assert set(owners) <= set(graph.vertices)
