"""Each row of the table of pods, on each runtime. All pods of a runtime run at once, in one cluster of one node; a test is
one row's outcome."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from navarch.api.types import core_v1, node_v1
from navarch.world import RealWorld
from tests.nodeagent.node import throwaway_node
from tests.nodeagent.real import onenode, rows
from tests.nodeagent.real.fieldrows import FIELD_ROWS
from tests.nodeagent.real.onenode import Cluster
from tests.nodeagent.real.rows import Row, state_of
from tests.nodeagent.runtime.kinds import Kind, forget_uses, nothing_left

AT_ONCE = 8  # pods
ROWS = [*rows.ROWS, *FIELD_ROWS]


class Outcome(msgspec.Struct):
    """How a pod of the table ended up. ``error``: the traceback, if that could not be seen."""

    phase: str = ""
    reason: str = ""
    states: dict[str, str] = {}
    restarts: dict[str, int] = {}
    messages: dict[str, str] = {}
    logs: dict[str, str] = {}
    events: list[tuple[str, str]] = []  # reason, message
    out: str = ""
    error: str = ""


async def events_of(cluster: Cluster, row: Row) -> list[tuple[str, str]]:
    """The pod's events, once those that the row expects are there; all that came in time otherwise."""
    seen: list[tuple[str, str]] = []
    for _ in range(100):
        every = (await cluster.client[core_v1.Event].list("default")).items
        seen = [(e.reason or "", e.message or "") for e in every if e.involved_object.name == row.name]
        if set(row.events) <= {reason for reason, _ in seen} and (not row.words or any(row.words in text for _, text in seen)):
            break
        await asyncio.sleep(0.05)
    return seen


async def log_of(cluster: Cluster, pod: str, container: str, expected: str) -> str:
    """A container's log, once it is as long as is expected; as it is otherwise."""
    text = ""
    for _ in range(100):
        text = await cluster.log(pod, container)
        if len(text) >= len(expected):
            break
        await asyncio.sleep(0.05)
    return text


async def play(cluster: Cluster, row: Row) -> Outcome:
    outcome = Outcome()
    await cluster.pod(row.name, msgspec.json.decode(msgspec.json.encode(row.spec)))
    pod = await cluster.until(row.name, row.until, timeout=60)
    every = [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]
    outcome.phase = pod.status.phase or ""
    outcome.reason = pod.status.reason or ""
    outcome.states = {s.name: state_of(pod, s.name) for s in every}
    outcome.restarts = {s.name: s.restart_count for s in every}
    ended = [(s.name, s.state.terminated) for s in every if s.state and s.state.terminated]
    outcome.messages = {name: end.message or "" for name, end in ended}
    for name, expected in row.logs.items():
        outcome.logs[name] = await log_of(cluster, row.name, name, expected)
    if row.act is not None:
        outcome.out = await row.act(cluster, row.name)
    outcome.events = await events_of(cluster, row)
    return outcome


async def play_all(cluster: Cluster) -> dict[str, Outcome]:
    """Every row's outcome, by its name."""
    cm = {"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v1"}}
    await cluster.client[core_v1.ConfigMap].create(msgspec.convert(cm, core_v1.ConfigMap))
    for handler in ("crun", "kata"):
        tree = {"metadata": {"name": handler}, "handler": handler}
        await cluster.client[node_v1.RuntimeClass].create(msgspec.convert(tree, node_v1.RuntimeClass))
    turns = asyncio.Semaphore(AT_ONCE)

    async def guarded(row: Row) -> Outcome:
        async with turns:
            try:
                return await play(cluster, row)
            except BaseException:
                return Outcome(error=traceback.format_exc())

    return dict(zip([row.name for row in ROWS], await asyncio.gather(*map(guarded, ROWS)), strict=True))


def inside(kind: Kind, image_root: Path, folder: Path, file: Path) -> None:
    async def body(cluster: Cluster) -> None:
        file.write_bytes(msgspec.json.encode(await play_all(cluster)))

    try:
        onenode.run(kind, image_root, folder, body)
    finally:
        if kind.is_cri:
            RealWorld().run(lambda: nothing_left(kind, image_root, folder))


def outcomes_on(kind: Kind, image_root: Path, folder: Path) -> dict[str, Outcome]:
    def run_in(run: Callable[[Callable[[], None], float], None]) -> None:
        run(lambda: inside(kind, image_root, folder, folder / "outcomes.json"), 300.0)

    if kind.node is not None:
        run_in(kind.node.run)
    else:
        with throwaway_node() as node:
            run_in(node.run)
    forget_uses(image_root)
    return msgspec.json.decode((folder / "outcomes.json").read_bytes(), type=dict[str, Outcome])


@pytest.fixture(scope="module")
def outcomes(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Kind], dict[str, Outcome]]:
    """Gives the outcomes of all rows on a runtime; played when they are first asked for."""
    seen: dict[str, Any] = {}

    def of(kind: Kind) -> dict[str, Outcome]:
        if kind.name not in seen:
            seen[kind.name] = None
            seen[kind.name] = outcomes_on(kind, image_root, tmp_path_factory.mktemp(f"table-{kind.name}"))
        assert seen[kind.name] is not None, "the table could not be played: see the first row"
        return seen[kind.name]

    return of


@pytest.mark.root
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row(row: Row, kind: Kind, outcomes: Callable[[Kind], dict[str, Outcome]]) -> None:
    outcome = outcomes(kind)[row.name]
    assert not outcome.error
    assert row.phase in ("", outcome.phase) and row.reason in ("", outcome.reason)
    for expected, actual in (
        (row.states, outcome.states),
        (row.restarts, outcome.restarts),
        (row.messages, outcome.messages),
        (row.logs, outcome.logs),
    ):
        assert {name: actual.get(name) for name in expected} == expected
    assert set(row.events) <= {reason for reason, _ in outcome.events}
    assert not row.words or any(row.words in message for _, message in outcome.events), outcome.events
    assert outcome.out == row.out
