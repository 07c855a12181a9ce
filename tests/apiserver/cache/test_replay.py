"""Whatever is written, a list plus the events of a watch gives the next list; for any selector, from any revision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.cache.cache import Cache, Watcher
from apiserver.cache.encoded import decode, encode
from apiserver.cache.history import Event
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Batch, Put
from navarch.world import RealWorld
from tests.apiserver.cache.test_cache import PODS, Equals, pod, running

NAMES = st.sampled_from(["a/p", "a/q", "a-b/p", "b/p"])
WRITES = st.tuples(NAMES, st.sampled_from(["", "n1", "n2"]), st.sampled_from(["red", "blue"]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(WRITES, min_size=1, max_size=3, unique_by=lambda write: write[0])),
        st.tuples(st.just("delete"), st.lists(NAMES, min_size=1, max_size=2, unique=True)),
        st.tuples(
            st.just("watch"),
            st.fixed_dictionaries(
                {},
                optional={
                    "namespace": st.sampled_from(["a", "b"]),
                    "labels": st.builds(lambda color: Equals(color=color), st.sampled_from(["red", "blue"])),
                    "fields": st.one_of(
                        st.builds(lambda node: Equals(spec__nodeName=node), st.sampled_from(["", "n1", "n2"])),
                        st.just(Equals(metadata__name="p")),
                    ),
                },
            ),
        ),
        st.tuples(st.just("reload"), st.none()),
    ),
    min_size=10,
    max_size=40,
)


class Follower:
    """Keeps a copy of a list by a watch, and objects to events that make no sense."""

    def __init__(self, watcher: Watcher, selection: dict[str, Any], known: dict[str, int], revision: int) -> None:
        self.watcher, self.selection, self.known = watcher, selection, known
        self.last = (revision, "~")  # events come in the order of revisions, and none twice

    def take(self, event: Event) -> None:
        assert event.entry is not None and (event.revision, event.entry.key) > self.last
        self.last = event.revision, event.entry.key
        frame = decode(event.frame)
        assert frame["type"] == event.type
        assert frame["object"]["metadata"]["resourceVersion"] == str(event.revision)
        key = event.entry.key
        assert (event.type == "ADDED") == (key not in self.known)
        if event.type == "DELETED":
            del self.known[key]
        else:
            self.known[key] = event.revision


def contents(cache: Cache, **selection: Any) -> dict[str, int]:
    return {entry.key: entry.revision for entry in cache.list(PODS, **selection).entries}


class Forgetful(MemoryStore):
    """A store whose watch can be broken as if it had fallen behind a compaction."""

    breaking = False

    async def watch(self, prefix: str, from_revision: int, *, previous: bool = True) -> AsyncIterator[Batch]:
        async for batch in super().watch(prefix, from_revision, previous=previous):
            if self.breaking:
                self.breaking = False
                await self.compact(self._revision)
                async for _ in super().watch(prefix, 1):
                    raise AssertionError("not compacted")
            yield batch


class Story:
    """A cache to which steps happen: the watches opened on the way, and the contents at each revision (key -> revision)."""

    def __init__(self, store: Forgetful, cache: Cache) -> None:
        self.store, self.cache = store, cache
        self.followers: list[Follower] = []
        self.past: dict[int, dict[str, int]] = {}

    async def happen(self, kind: str, what: Any) -> None:
        match kind:
            case "write":
                puts = []
                for key, node, color in sorted(what):
                    namespace, name = key.split("/")
                    puts.append(Put(PODS + key, encode(pod(name, namespace, node, color=color))))
                await self.store.txn([], puts)
            case "delete":
                await self.store.txn([], [], [PODS + key for key in sorted(what)])
            case "watch":
                self.follow(await self.cache.current(), what, contents(self.cache, **what))
            case "reload":
                self.store.breaking = True
                await self.store.txn([], [Put("/registry/other/x", b"{}")])
                await self.cache.current()
                self.past.clear()
        revision = await self.cache.current()
        self.past[revision] = contents(self.cache)
        stored = {item.key.removeprefix(PODS): item.revision for item in (await self.store.list(PODS)).items}
        assert contents(self.cache) == stored

    def follow(self, revision: int, selection: dict[str, Any], known: dict[str, int]) -> None:
        watcher = self.cache.watch(PODS, from_revision=revision, **selection)
        self.followers.append(Follower(watcher, selection, known, revision))

    async def check_list(self, revision: int, expected: dict[str, int]) -> None:
        """A list of the past, as a whole and in pages of one, shows what was there then."""
        whole = await self.cache.list_at(PODS, revision)
        assert {entry.key: entry.revision for entry in whole.entries} == expected
        keys = sorted(key for key in expected if key.startswith("a/"))
        pages, after = [], ""
        while True:
            page = await self.cache.list_at(PODS, revision, "a", start_after=after, limit=1)
            pages += page.entries
            if not page.more:
                break
            after = page.entries[-1].key
            assert page.remaining == sum(key > after for key in keys)
        assert [entry.key for entry in pages] == keys

    def check_follower(self, follower: Follower) -> None:
        # Something that all see would end the batch; nothing may be there, so look without waiting.
        for event in follower.watcher.take():
            follower.take(event)
        assert follower.known == contents(self.cache, **follower.selection)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_list_and_watch_agree(steps: list[tuple[str, Any]]) -> None:
    async def main() -> None:
        store = Forgetful()
        async with running(store, history_least=1000) as cache:
            story = Story(store, cache)
            for kind, what in steps:
                await story.happen(kind, what)
            for revision, known in story.past.items():
                story.follow(revision, {}, dict(known))
                await story.check_list(revision, known)
            for follower in story.followers:
                if follower.watcher.closed:
                    assert ("reload", None) in steps
                else:
                    story.check_follower(follower)
        await store.close()

    RealWorld().run(main)


async def test_a_restarted_cache_knows_the_recent_past() -> None:
    store = MemoryStore()
    for n in range(20):
        await store.txn([], [Put(f"{PODS}a/p{n % 3}", encode(pod(f"p{n % 3}", "a", n=str(n))))])
    await store.txn([], [], [f"{PODS}a/p0"])
    async with running(store, replay=10) as cache:
        assert cache.revision == 22
        with cache.watch(PODS, from_revision=15) as watcher:
            events = await watcher.batch()
        assert [(e.type, e.revision) for e in events] == [("MODIFIED", r) for r in range(16, 22)] + [
            ("DELETED", 22)
        ]
    await store.close()
