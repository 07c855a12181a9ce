"""Graceful shutdown of a node: the order of its pods, their statuses, and the node's own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld
from nodeagent.agent import Agent
from nodeagent.node import shutdown, shutdownperiods
from nodeagent.node.shutdownperiods import Period
from nodeagent.runtime.hollow import HollowRuntime
from tests.nodeagent.cluster import NODE, Api, config
from tests.nodeagent.life import pod
from tests.nodeagent.test_agent import alive, run
from tests.nodeagent.test_static import Deaf, settings, write


@pytest.mark.parametrize(("grace", "critical", "by_priority", "listed"), [
    (0, 0, "", ()),
    (30, 10, "", (Period(0, 20), Period(2_000_000_000, 10))),
    (0, 0, "100000=10s,10000=3m,0=1m", (Period(0, 60), Period(10_000, 180), Period(100_000, 10))),
])  # fmt: skip
def test_periods(grace: float, critical: float, by_priority: str, listed: tuple[Period, ...]) -> None:
    assert shutdownperiods.shutdown_periods(grace, critical, by_priority) == listed


@pytest.mark.parametrize(("grace", "critical", "by_priority"), [(5, 10, ""), (0, 0, "1=1s,1=2s"), (0, 0, "x=1s"), (0, 0, "1")])
def test_periods_that_are_none(grace: float, critical: float, by_priority: str) -> None:
    with pytest.raises(ValueError):
        shutdownperiods.shutdown_periods(grace, critical, by_priority)


def test_groups() -> None:
    listed = (Period(0, 60), Period(10_000, 180), Period(100_000, 10), Period(500_000, 5))
    priorities = (-5, 0, 9_999, 10_000, 99_999, 100_000, 2_000_000_000)
    pods = [pod({"containers": [{"name": "c"}], "priority": p}) for p in priorities]
    grouped = [(seconds, [p.spec.priority for p in members]) for seconds, members in shutdownperiods.groups(listed, pods)]
    assert grouped == [(60, [-5, 0, 9_999]), (180, [10_000, 99_999]), (10, [100_000]), (5, [2_000_000_000])]
    assert shutdownperiods.groups(listed, pods[:1]) == [(60, pods[:1])], "nobody waits for a period without pods"


def test_a_node_that_is_shut_down(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        spec = {"containers": [{"name": "a"}]}
        slow = {"hollow.navarch.dev/stop": "1h"}
        plain = api.pod("plain", spec, annotations=slow)
        quick = api.pod("quick", spec | {"terminationGracePeriodSeconds": 2}, annotations=slow)
        critical = api.pod("critical", spec | {"priority": 2_000_000_000})
        await api.until(lambda: all(api.ready(path) for path in (plain, quick, critical)))
        began = node.world.now()
        node.shut_down()
        ended: dict[str, float] = {}
        for path in (quick, plain, critical):
            await api.until(lambda path=path: api.phase(path) == "Failed")
            ended[path] = node.world.now() - began
        assert ended[quick] < 3 and 19 < ended[plain] < 22 and ended[critical] >= ended[plain]
        for path in ended:
            status = api.status(path)
            assert (status["reason"], status["message"]) == (shutdown.REASON, shutdown.MESSAGE)
            target = next(c for c in status["conditions"] if c["type"] == "DisruptionTarget")
            assert (target["reason"], target["message"]) == ("TerminationByKubelet", shutdown.MESSAGE)
        ready = next(c for c in api.objects[NODE]["status"]["conditions"] if c["type"] == "Ready")
        assert (ready["status"], ready["reason"], ready["message"]) == ("False", "KubeletNotReady", "node is shutting down")
        late = api.pod("late", spec)
        await api.until(lambda: api.phase(late) == "Failed")
        assert api.status(late)["reason"] == "NodeShutdown"
        assert api.status(late)["message"] == "Pod was rejected: Pod was rejected as the node is shutting down."
        await node.world.sleep(1)
        state = json.loads((tmp_path / "root" / shutdown.STATE_FILE).read_text())
        assert state["startTime"] < state["endTime"]

    run(tmp_path, body, shutdown_grace=30.0, shutdown_grace_critical=10.0)


def test_a_full_disk_and_an_api_server_that_is_away_hold_no_shutdown_up(tmp_path: Path) -> None:
    """The file of the state cannot be written, and the node has never registered: its static pods end all the same."""
    world = SimulatedWorld()

    async def main() -> None:
        api, runtime = Away(world), HollowRuntime(world)
        client = Client(InProcessTransport(api, "agent"), world)
        made = config(tmp_path, shutdown_grace=30.0, shutdown_grace_critical=10.0, **settings(tmp_path))
        node = Agent(made, client, world, runtime)
        task = asyncio.ensure_future(node.run())
        await world.sleep(10)
        assert alive(runtime) == ["a"] and not node.ready.is_set()
        (tmp_path / "root" / shutdown.STATE_FILE).mkdir()
        node.shut_down()
        await world.sleep(40)
        assert alive(runtime) == []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    write(tmp_path)
    world.run(main)


class Away(Deaf):
    away = True
