"""The journal of a pod's state machine: it can be played again, and stays small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.podjournal import journal_lines
from nodeagent.agent import Agent
from nodeagent.pods.journal import CHAPTER, replay
from nodeagent.runtime.hollow import HollowRuntime
from tests.nodeagent.cluster import Api
from tests.nodeagent.life import Life
from tests.nodeagent.test_agent import run

SPEC: dict[str, Any] = {"containers": [{"name": "a", "image": "i"}], "initContainers": [{"name": "init", "image": "i"}]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["exit", "fail", "wait", "delete", "settle"]), st.integers(0, 300)), max_size=40))
def test_whatever_happens_can_be_played_again(events: list[tuple[str, int]]) -> None:
    life = Life(SPEC)
    for event, amount in events:
        life.now += amount
        if event == "exit" and any(c.name == "a" and c.state == "running" for c in life.containers.values()):
            life.exit("a", amount % 3)
        elif event == "fail":
            life.machine.failed("a", "ErrImagePull", "not there", life.now)
        elif event == "delete":
            life.machine.fail("Evicted", "no memory")
        elif event == "settle":
            life.settle()
        life.step()
    journal = json.loads(json.dumps(life.machine.journal))
    assert replay(journal) == []
    assert len(journal) <= 2 * (CHAPTER + 1)
    assert journal_lines(journal)


def test_a_decision_that_is_another_now_is_found() -> None:
    life = Life(SPEC)
    life.settle()
    journal = json.loads(json.dumps(life.machine.journal))
    entry = next(e for e in journal if any(a["do"] == "StartContainer" for a in (e.get("decided") or {}).get("actions", ())))
    entry["decided"]["actions"][0]["attempt"] = 7
    (difference,) = replay(journal)
    assert difference.startswith("entry ") and "StartContainer" in difference


@pytest.mark.parametrize("journal", [[{"told": "started", "args": ["a"]}], [{"now": 1.0, "seen": {}}]])
def test_what_is_no_journal_is_refused(journal: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError):
        replay(journal)


def test_an_agent_keeps_a_journal_of_each_pod(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        path = api.pod("web", {"containers": [{"name": "a"}]})
        await api.until(lambda: api.phase(path) == "Running")
        (worker,) = node.workers()
        journal = json.loads(json.dumps(worker.machine.journal))
        assert replay(journal) == []
        lines = journal_lines(journal)
        assert any("decided  StartContainer a" in line for line in lines), lines
        assert any("saw      container a #0 running" in line for line in lines), lines

    run(tmp_path, body)
