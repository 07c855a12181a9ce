"""Garbage collection of images: which go and which stay, and what is told on the Node. Needs root, as layers do."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.virtual import SimulatedWorld
from nodeagent.config import Config
from nodeagent.images import archive, layers
from nodeagent.images.collection import Candidate, Disk, bytes_to_free, candidates, collect
from nodeagent.images.store import ImageStore, Record
from nodeagent.node.imagegc import ImageGC
from nodeagent.runtime.runtime import CollectedImages, ImagePolicy
from tests.nodeagent.images.test_images import tar

NOW = time.time()


Blob = tuple[str, int]


def image(store: ImageStore, name: str, size: int, age: float, pulled: bool = True, base: Blob | None = None) -> Record:
    """An image whose own layer has so many bytes, used ``age`` seconds ago."""
    layer = store.add_blob(tar((name, os.urandom(1) * size)))
    blobs = [*([base] if base else []), layer]
    diff_ids = []
    for digest, _ in blobs:
        with layers.uncompressed(store.blob(digest)) as stream:
            reader = layers.Hashing(stream)
            reader.drain()
            diff_ids.append(reader.digest)
    config = store.add_blob(io.BytesIO(json.dumps({"rootfs": {"type": "layers", "diff_ids": diff_ids}, "name": name}).encode()))
    record = archive.add_image(store, config, blobs, [f"localhost/{name}"])
    if pulled:
        path = store.root / "images" / f"{record.id.removeprefix('sha256:')}.json"
        path.write_text(path.read_text().replace('"pulled":false', '"pulled":true'))
    os.utime(store.root / "images" / f"{record.id.removeprefix('sha256:')}.json", (NOW - age, NOW - age))
    again = store.record(record.id)
    assert again is not None and again.pulled == pulled
    return again


def names(store: ImageStore) -> set[str]:
    return {name.partition("/")[2].partition(":")[0] for own in store.names().values() for name in own}


def test_what_goes_and_what_stays(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    base = store.add_blob(tar(("base", b"b" * 500_000)))
    image(store, "oldest", 1_000_000, 9000, base=base)
    image(store, "older", 1_000_000, 8000, base=base)
    image(store, "newer", 1_000_000, 7000)
    image(store, "fresh", 1_000_000, 60)
    image(store, "built", 1_000_000, 9999, pulled=False)
    in_use = image(store, "used", 1_000_000, 9999)
    node = tmp_path / "node"
    node.mkdir()
    store.use(node, "container", in_use.id)
    os.utime(store.root / "images" / f"{in_use.id.removeprefix('sha256:')}.json", (NOW - 9999, NOW - 9999))

    def disk(available: int) -> object:
        return lambda store: Disk(100_000_000, available)

    assert collect(store, ImagePolicy(), NOW, disk(50_000_000)) == CollectedImages()  # type: ignore[arg-type]
    # 87 % are used: 2 million bytes are to be freed, which one image has, as blob and as layer.
    done = collect(store, ImagePolicy(87, 85), NOW, disk(13_000_000))  # type: ignore[arg-type]
    assert done.target == 2_000_000 and done.freed >= 2_000_000 and names(store) == {"older", "newer", "fresh", "built", "used"}
    assert store.find("localhost/older") and all(store.is_whole(r) for r in store.records()), "the shared layer is still there"
    done = collect(store, ImagePolicy(), NOW, disk(5_000_000))  # type: ignore[arg-type]
    assert done.target == 15_000_000 and 4_000_000 <= done.freed < 6_000_000 and len(done.removed) == 2
    assert names(store) == {"fresh", "built", "used"}
    store.release(node, "container")  # which counts as a use
    assert collect(store, ImagePolicy(), NOW, disk(0)).removed == ()  # type: ignore[arg-type]
    assert set(collect(store, ImagePolicy(max_age=30, min_age=0), NOW + 1e9, disk(50_000_000)).removed) != set()  # type: ignore[arg-type]
    assert names(store) == {"built"}


def test_two_agents_of_a_home_do_it_once(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    image(store, "one", 1000, 9000)
    lock = store.try_lock("garbage")
    assert lock is not None
    assert collect(store, ImagePolicy(), NOW, lambda store: Disk(100, 0)) == CollectedImages()
    os.close(lock)
    assert len(collect(store, ImagePolicy(), NOW, lambda store: Disk(100, 0)).removed) == 1


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(1, 100), st.integers(0, 99))
def test_how_much_is_to_be_freed(capacity: int, available: int, high: int, low: int) -> None:
    available, low = min(available, capacity), min(low, high - 1)
    target = bytes_to_free(Disk(capacity, available), ImagePolicy(high, low))
    assert 0 <= target <= max(capacity - available, 0)
    if capacity and target:
        assert 100 - available * 100 // capacity >= high
        assert bytes_to_free(Disk(capacity, available + target), ImagePolicy(low + 1, low)) <= capacity // 100 + 1


@given(st.lists(st.tuples(st.floats(0, 1e6), st.text("ab", min_size=1))), st.floats(0, 1e6))
def test_the_oldest_goes_first(images: list[tuple[float, str]], age: float) -> None:
    chosen = candidates([Candidate(*i) for i in images], ImagePolicy(min_age=age), 1e6)
    assert chosen == sorted(chosen) and all(1e6 - c.last_used >= age for c in chosen)


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_what_is_told_on_the_node(failures: int) -> None:
    world, events = SimulatedWorld(), list[tuple[str, str]]()
    looks = [CollectedImages(100, 40, ("a",))] * failures + [CollectedImages(100, 100), CollectedImages(7, 0)]

    class Runtime:
        async def collect_images(self, policy: ImagePolicy) -> CollectedImages:
            assert policy == ImagePolicy(90, 70, 5.0, 0.0)
            return looks.pop(0)

    async def body() -> None:
        config = Config("node", image_gc_high=90, image_gc_low=70, image_min_age=5.0)
        async with world.task_group() as group:
            group.start(ImageGC(config, Runtime(), world, lambda r, m: events.append((r, m))).run())  # type: ignore[arg-type]
            await world.sleep(300.0 * (failures + 2) + 1)
            group.cancel()

    world.run(body)
    text = "Attempted to free 100 bytes, but only found 40 bytes eligible to free."
    free = ("FreeDiskSpaceFailed", f"Failed to garbage collect required amount of images. {text}")
    failed = ("ImageGCFailed", free[1])
    expected = [free] + [free, failed] * (failures - 1)
    assert events[:-1] == expected and events[-1][0] == "FreeDiskSpaceFailed", "after a success it begins anew"
