"""The queueing model by hand, and in small experiments: proxies, connections, retries, capacity and use."""

from __future__ import annotations

import random
from typing import Any

import pytest

from lab.experiments.measures import measure
from lab.experiments.queues import Answer, Proxies, Queues
from lab.experiments.recording import Recording
from lab.experiments.schema import WrongFile
from lab.experiments.serving import Servings, use
from lab.simulation.cluster import Simulation
from navarch.api.types import core_v1
from nodeagent.runtime.spread import spread
from tests.lab.experiments.test_deeds import played


def proxies(delay: str, silent: tuple[str, ...] = ()) -> Proxies:
    return Proxies(spread(delay), lambda what: random.Random(what), lambda node: node not in silent)


def queues(serving: dict[str, float], proxies: Proxies, lost: tuple[str, ...] = (), timeout: float = 2.0) -> Queues:
    return Queues(
        random.Random(1),
        proxies,
        timeout,
        0.01,
        lambda uid: 1e9,
        serving.get,
        lambda node: node not in lost,
        lambda uid: uid in lost,
    )


def test_each_proxy_learns_in_its_own_time():
    some = proxies("uniform(1s, 9s)", silent=("c",))
    some.change(0, ["x"])
    some.change(10, ["x", "y"])
    assert some.endpoints("a", 0.9) == () and some.endpoints("a", 9) == ("x",)
    when = {
        node: next(t for t in range(100, 200) if len(some.endpoints(node, t / 10)) == 2) / 10 for node in ("a", "b")
    }
    assert 11 <= when["a"] <= 19 and 11 <= when["b"] <= 19 and when["a"] != when["b"]
    assert some.endpoints("c", 100) == ()


def test_a_kept_connection_outlives_its_endpoint():
    some, serving = proxies("0s"), {"x": 0.0, "y": 0.0}
    some.change(0, ["x"])
    line = queues(serving, some)
    assert line.request(1, "a", client=7).good and line.request(1, "a").good
    some.change(2, ["y"])
    assert line.request(3, "a", client=7).good and line.served["x"] == 3
    assert line.request(3, "a").good and line.served["y"] == 1
    del serving["x"]
    assert line.request(4, "a", client=7) == Answer(False, 0.01)
    assert line.request(5, "a", client=7).good and line.served["y"] == 2


def test_how_long_a_client_takes_to_know_that_it_failed():
    some = proxies("0s")
    assert queues({}, some).request(1, "a") == Answer(False, 0.0)  # no endpoint: refused
    some.change(0, ["x"])
    assert queues({"x": 0.0}, some, lost=("a",)).request(1, "a") == Answer(False, 2.0)
    assert queues({"x": 0.0}, some, lost=("x",)).request(1, "a") == Answer(False, 2.0)
    assert queues({"x": 5.0}, some).request(1, "a") == Answer(False, 0.01)
    slow = Queues(
        random.Random(1), some, 2.0, 0.01, lambda uid: 0.001, {"x": 0.0}.get, lambda n: True, lambda uid: False
    )
    assert slow.request(1, "a") == Answer(False, 2.0)


def numbers(recording: Recording, **expressions: str) -> dict[str, float]:
    return measure(recording, expressions)


def test_tries_again_hide_a_pod_that_dies():
    def of(**load: Any) -> dict[str, float]:
        slow = {"default": {"start": "1s"}}
        kill = {"fault": {"kill": "deployment/web"}}
        recording = played({"wait": "5s", "mark": "a"}, kill, {"wait": "5s"}, load={"rate": "60/s", **load}, behaviour=slow)
        return numbers(recording, failed='failed("web", a..finish)', again='retries("web", a..finish)')

    alone, tried = of(), of(retries=5, backoff="200ms")
    assert alone["failed"] > 0 == alone["again"] and tried["failed"] == 0 < tried["again"]


def test_proxies_that_are_slow_to_learn_send_to_pods_that_are_gone():
    def failed(programming: str) -> float:
        scale = {"do": {"scale": {"deployment/web": 1}}, "mark": "less"}
        recording = played({"wait": "5s"}, scale, {"wait": "10s"}, load={"rate": "50/s", "programming": programming})
        return numbers(recording, n='failed("web", less..finish)')["n"]

    assert failed("0s") == 0 < failed("uniform(1s, 2s)") < failed("5s")


def test_a_load_through_a_node_that_is_lost():
    recording = played(
        {"wait": "3s", "mark": "off"},
        {"fault": {"power-off": "node-2"}},
        {"wait": "5s"},
        load={"from": "node/node-2", "timeout": "1s"},
    )
    result = numbers(
        recording, before='failures("web", begin..off)', after='ok("web", off..finish)', sent='sent("web", off..finish)'
    )
    assert result["before"] < 0.5 and result["after"] <= 3 and result["sent"] > 50


def test_capacity_is_that_of_the_behaviour():
    def slow(capacity: str) -> float:
        recording = played({"wait": "20s"}, load={}, behaviour={"app=web": {"capacity": capacity}})
        return numbers(recording, p='latency("web", 0.9)')["p"]

    assert slow("1000/s") < 0.05 < slow("11/s")


def test_use_follows_the_load():
    recording = played(
        {"wait": "60s"}, load={"rate": "40/s"}, behaviour={"default": {"cpu": "100m + 10m*rate", "memory": "64Mi"}}
    )
    notes = [c.object["metadata"].get("annotations") or {} for c in recording.of("pods")][-1]
    assert notes["hollow.navarch.dev/memory"] == str(64 * 2**20)
    assert 200 < int(notes["hollow.navarch.dev/cpu"].removesuffix("m")) < 400
    assert use("10m*rate").at(5) == 0.05 and use("2").at(9) == 2
    with pytest.raises(ValueError, match=r"is no use such as 50m, 10m\*rate"):
        use("fast")
    servings = Servings({"image:i": {"capacity": "3/s"}, "default": {"capacity": "1/s"}, "a=b": {"capacity": "2/s"}})
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"image": "j"}]}}
    assert servings.capacity(pod) == 2 and servings.capacity({"spec": {"containers": [{"image": "i"}]}}) == 3


def test_a_slow_store_delays_a_simulation():
    async def scenario(cluster: Simulation) -> float:
        cluster.store.delay = 0.5
        before = cluster.world.monotonic()
        await cluster.client[core_v1.ConfigMap].create(core_v1.ConfigMap(metadata={"name": "a"}), "default")  # type: ignore[arg-type]
        return cluster.world.monotonic() - before

    assert Simulation(1, nodes=1).run(scenario) >= 0.5


WRONG = [
    ({"connections": "pooled"}, "load.connections", "none of new, kept"),
    ({"from": "node-1"}, "load.from", "neither outside nor"),
    ({"clients": 0}, "load.clients", "must be 1 to 100000"),
    ({"programming": "soon"}, "load.programming", "no time"),
]


@pytest.mark.parametrize(("load", "path", "text"), WRONG)
def test_wrong_loads(load: dict[str, Any], path: str, text: str):
    with pytest.raises(WrongFile, match=text) as raised:
        played(load=load)
    assert [p.path for p in raised.value.problems] == [f"workload[1].{path}"]
