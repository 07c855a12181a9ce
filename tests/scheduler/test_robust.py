"""A plugin that raises, wherever it is asked, costs the pod that it was asked about: others are placed, and it is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from prometheus_client import generate_latest

from lab.simulation import Simulation
from navarch.api.conditions import get_condition
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.watch import ADDED
from navarch.virtual import SimulatedWorld
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.blame import blame
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.plugin import NodePlugin, Plugin
from scheduler.io.httpserver import pages
from scheduler.main import main
from scheduler.options import plugin_class
from scheduler.ranking.ranking import Ranking
from scheduler.scheduler import PluginError, Scheduler
from tests.scheduler.test_cluster import make, where

BAD = "bad"


class Broken(Plugin):
    """Raises at one extension point for pods whose name begins with "bad"."""

    name = "Broken"
    point: ClassVar[str] = ""

    async def later(self, *args: Any) -> None:
        """A pre_bind that waits for nothing."""

    def _maybe(self, point: str, *args: Any) -> None:
        pods = [a for a in args if hasattr(a, "likeness")]
        if self.point == point and any((p.pod.metadata.name or "").startswith(BAD) for p in pods):
            raise ZeroDivisionError("division by\nzero")


def broken_at(point: str) -> type[Plugin]:
    """A plugin that overrides this one method (and may be asked at others that lead to it)."""
    usual = getattr(Plugin, point)

    def method(self: Broken, *args: Any) -> Any:
        self._maybe(point, *args)
        return 0.0 if point == "score_row" else usual(self, *args)

    async def later(self: Broken, *args: Any) -> Any:
        self._maybe(point, *args)
        return await usual(self, *args)

    for function in (method, later):  # as if it were written with that name
        function.__code__ = function.__code__.replace(co_name=point)
    body: dict[str, Any] = {point: later if point in ("pre_bind", "bind") else method, "point": point}
    if point == "pre_score":
        body["score"] = lambda self, state, pod, table: None
    if point == "named":
        body["pre_filter"] = lambda self, state, pod, table: None
    if point == "pre_bind_needed":
        body["pre_bind"] = Broken.later
    if point == "unreserve":  # asked when something else goes wrong
        body["reserve"] = method
    return type("Broken", (Broken,), body)


def check(cluster: Simulation) -> None:
    cluster.check()


POINTS = {
    "pre_enqueue": "PreEnqueue", "pre_filter": "PreFilter", "filter": "Filter", "pre_score": "PreScore", "score": "Score",
    "reserve": "Reserve", "permit": "Permit", "pre_bind_needed": "PreBind", "pre_bind": "PreBind", "bind": "Bind",
    "reach": "Reach", "named": "PreFilter",
}  # fmt: skip


@pytest.mark.parametrize("point", POINTS)
def test_a_plugin_that_raises_costs_only_the_pod_that_it_was_asked_about(point: str) -> None:
    plugin = broken_at(point)
    message = f'running {POINTS[point]} plugin "Broken": ZeroDivisionError: division by zero'

    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(make("bad-1") + "---" + make("good-1"))
        await cluster.run_until(lambda: where(cluster)["good-1"], 30)
        await cluster.sleep(60)
        check(cluster)
        s = cluster.scheduler
        if point in ("reach",):  # a plugin that does not say what it reads is not asked
            assert where(cluster)["bad-1"]
            return
        assert not where(cluster)["bad-1"] and not s.assumed
        waiting = next(w for w in s.queue.pods.values() if w.pod.pod.metadata.name == "bad-1")
        assert waiting.place in ("backoff", "gated", "flight") and waiting.attempts < 15
        said = pages(s)["/explain"]("namespace=default&pod=bad-1")[2].decode()
        assert "ZeroDivisionError: division by zero" in said and "Broken" in said
        metric = f'navarch_scheduler_plugin_failures_total{{extension_point="{POINTS[point]}",plugin="Broken"}}'
        assert metric in generate_latest(s.metrics.registry).decode()
        if point != "pre_enqueue":
            events = [e.message or "" for e in cluster.objects(core_v1.Event) if e.reason == "FailedScheduling"]
            assert events and all(text.removeprefix("binding rejected: ") == message for text in events)
            pod = next(p for p in cluster.objects(core_v1.Pod) if p.metadata.name == "bad-1")
            condition = get_condition(pod.status.conditions, "PodScheduled")
            assert condition is not None and condition.reason == "SchedulerError" and message in (condition.message or "")
        await cluster.apply(make("good-2"))
        await cluster.run_until(lambda: where(cluster)["good-2"], 30)
        cast(Any, plugin).point = ""
        await cluster.run_until(lambda: where(cluster)["bad-1"], 60)  # it comes again by itself
        check(cluster)

    Simulation(3, nodes=3, scheduler=SchedulerConfig.load("", [plugin])).run(scenario)


@pytest.mark.parametrize("point", ["post_bind", "unreserve", "placed", "left"])
def test_a_plugin_that_raises_where_nothing_can_be_undone_changes_nothing(point: str) -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(make("bad-1") + "---" + make("good-1"))
        await cluster.run_until(lambda: where(cluster)["good-1"], 30)
        if point == "unreserve":
            await cluster.sleep(60)
            assert not where(cluster)["bad-1"] and not cluster.scheduler.assumed
        else:
            await cluster.run_until(lambda: where(cluster)["bad-1"], 30)
            await cluster.client[core_v1.Pod].delete("bad-1", "default")
            await cluster.sleep(30)
        check(cluster)

    Simulation(3, nodes=2, scheduler=SchedulerConfig.load("", [broken_at(point)])).run(scenario)


class NodeByNode(NodePlugin):
    name = "NodeByNode"

    def score_node(self, pod: Any, view: Any) -> float:
        return 1 / 0


class Unordered(Plugin):
    """Keys that cannot be compared with each other, and sometimes none."""

    name = "Unordered"

    def order(self, pod: Any, since: float) -> tuple[Any, ...]:
        name = pod.pod.metadata.name or ""
        if name == "third":
            raise KeyError("no")
        return (name,) if name == "first" else (7, None)


class Hints(Plugin):
    """Refuses everything, and raises when it is asked what would help."""

    name = "Hints"

    def pre_filter(self, state: Any, pod: Any, table: Any) -> Any:
        from scheduler.framework.outcomes import Rejected

        if pod.pod.metadata.labels.get("let") != "in":
            raise Rejected("not yet")

    def helps(self, event: Any, pod: Any, table: Any) -> bool:
        return bool(1 / 0)

    def own_change_helps(self, old: Any, new: Any) -> bool:
        return bool(1 / 0)


def test_a_plugin_that_raises_for_every_pod_leaves_the_scheduler_alive() -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply("---".join(make(f"p{n}") for n in range(5)))
        await cluster.sleep(120)
        assert not any(where(cluster).values())
        check(cluster)
        events = {e.message for e in cluster.objects(core_v1.Event) if e.reason == "FailedScheduling"}
        assert events == {'running Score plugin "NodeByNode": ZeroDivisionError: division by zero'}
        writes = [r for r in cluster.history() if r.key.startswith("/registry/pods/") and r.time > 60]
        assert len(writes) == 0  # the condition is not written again and again

    Simulation(3, nodes=2, scheduler=SchedulerConfig.load("", [NodeByNode])).run(scenario)


def test_keys_that_cannot_be_compared_do_not_stop_the_queue() -> None:
    config = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
profiles: [{schedulerName: default-scheduler, plugins: {queueSort: {enabled: [{name: Unordered}], disabled: [{name: "*"}]}}}]
"""

    async def scenario(cluster: Simulation) -> None:
        cluster.crash("scheduler")
        await cluster.apply("---".join(make(n) for n in ("first", "second", "third", "fourth")))
        cluster.start("scheduler")
        await cluster.run_until(lambda: all(where(cluster).values()), 30)
        check(cluster)

    Simulation(3, nodes=2, scheduler=SchedulerConfig.load(config, [Unordered])).run(scenario)


def test_hints_that_raise_let_the_pod_try() -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(make("p"))
        await cluster.sleep(20)
        assert not where(cluster)["p"]
        await cluster.client[core_v1.Pod].patch("p", "default", {"metadata": {"labels": {"let": "in"}}})
        await cluster.run_until(lambda: where(cluster)["p"], 30)
        check(cluster)

    Simulation(3, nodes=2, scheduler=SchedulerConfig.load("", [Hints])).run(scenario)


class NoStart(Plugin):
    name = "NoStart"

    def start(self, handle: Any) -> None:
        raise RuntimeError("no licence\nserver")


async def test_a_plugin_that_cannot_start_is_named(world: SimulatedWorld) -> None:
    with pytest.raises(PluginError, match='starting plugin "NoStart": RuntimeError: no licence server'):
        Scheduler(Client(cast(Any, None), world), world, SchedulerConfig.load("", [NoStart]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class Mine(:\n  pass\n", r"mine\.py:1: "),
        ("x = 1\ny = 1 / 0\n", r"mine\.py:2: ZeroDivisionError: division by zero"),
        ("import nosuchmodule\n", r"mine\.py:1: No module named 'nosuchmodule'"),
        ("def f():\n    raise KeyError('k')\nf()\n", r"mine\.py:2: KeyError: 'k'"),
        ("x = 1\n", "is no scheduler plugin: give module:Class"),
        ("class Mine: pass\n", "is no scheduler plugin: give module:Class"),
        ("from scheduler.framework.plugin import Plugin\n\n\nclass Mine(Plugin): pass\n", 'has no name: say name = "Mine"'),
    ],
)
def test_a_plugin_file_that_does_not_load_is_refused_in_one_line(
    tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ValueError, match=said) as raised:
        plugin_class(f"{file}:Mine")
    assert "\n" not in str(raised.value)
    assert main(["--plugin", f"{file}:Mine", "--kubeconfig", "x"]) == 2
    assert capsys.readouterr().out.count("\n") == 1
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("text", ["nosuch.module:Class", "json:nothing", "NoSuchPlugin", "/no/such/file.py:Class", ":", "a:"])
def test_plugins_that_are_nowhere_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError) as raised:
        plugin_class(text)
    assert "\n" not in str(raised.value)


class NoMaking(Plugin):
    name = "NoMaking"

    def __init__(self) -> None:
        raise LookupError("nothing")


def test_a_plugin_that_cannot_be_made_is_a_cause_of_the_configuration() -> None:
    with pytest.raises(ValueError, match="LookupError: nothing"):
        SchedulerConfig.load("", [NoMaking])


def test_blame_falls_on_the_plugin_that_was_asked_last() -> None:
    plugin = NodeByNode()
    try:
        plugin.score_node(None, None)
    except ZeroDivisionError as error:
        assert blame(error) == ("NodeByNode", "score_node", "ZeroDivisionError: division by zero")
    try:
        raise ValueError("a\nb")
    except ValueError as error:
        assert str(blame(error)) == "internal error: ValueError: a b"


AMOUNTS = ("9223372036854775807", "1e30", "8E", "0", "1n", "9999999999E", "1000000000000000000000k")


def test_amounts_of_any_size_are_counted() -> None:
    """Nodes and pods whose amounts are beyond 64 bits, in millicores or bytes, beside others."""

    async def scenario(cluster: Simulation) -> None:
        for n, amount in enumerate(AMOUNTS):
            name = f"odd-{n}"
            listed = {"cpu": amount, "memory": amount, "pods": "10", "example.com/x": "9223372036854775807"}
            node = {"metadata": {"name": name}, "status": {"allocatable": listed, "capacity": listed}}
            await cluster.client.request("POST", "/api/v1/nodes", body=_encode(node))
            pod = {
                "metadata": {"name": f"on-{n}"},
                "spec": {
                    "nodeName": name,
                    "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": amount, "memory": amount}}}],
                },
            }
            await cluster.client.request("POST", "/api/v1/namespaces/default/pods", body=_encode(pod))
            pod["metadata"] = {"name": f"free-{n}"}
            pod["spec"]["nodeName"] = ""  # type: ignore[index]
            await cluster.client.request("POST", "/api/v1/namespaces/default/pods", body=_encode(pod))
        await cluster.apply(make("good"))
        await cluster.run_until(lambda: where(cluster)["good"], 60)
        await cluster.sleep(30)
        check(cluster)
        assert not cluster.scheduler.informers.faults.handlers
        for ranking in cluster.scheduler.rankings["default-scheduler"]._rankings.values():
            assert isinstance(ranking, Ranking)

    Simulation(3, nodes=[NodeSpec("node-1", pods=1000)]).run(scenario)


def _encode(tree: Any) -> bytes:
    import json

    return json.dumps(tree).encode()


def test_pods_and_nodes_that_cannot_be_understood_are_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    from scheduler.state import pods as state

    usual = state.Shape.__init__

    def shape(self: Any, pod: core_v1.Pod, likeness: bytes) -> None:
        if (pod.metadata.name or "").startswith(BAD):
            raise OverflowError("too much")
        usual(self, pod, likeness)

    monkeypatch.setattr(state.Shape, "__init__", shape)

    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(make("bad-1", cpu="77m") + "---" + make("good-1"))
        await cluster.run_until(lambda: where(cluster)["good-1"], 30)
        await cluster.sleep(5)
        events = [e.message for e in cluster.objects(core_v1.Event) if e.reason == "FailedScheduling"]
        assert events == ["the pod's spec cannot be understood: OverflowError: too much"]
        s = cluster.scheduler
        s.on_node(ADDED, None, core_v1.Node(metadata=cluster.objects(core_v1.Node)[0].metadata))
        await cluster.apply(make("good-2"))
        check(cluster)

    Simulation(3, nodes=2).run(scenario)
