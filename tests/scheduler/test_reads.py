"""What a plugin reads decides for which pods, and until when, its answers are used (CASES F1 and its neighbours)."""

from __future__ import annotations

import random

import msgspec
import pytest

from navarch.api.types import core_v1
from scheduler.framework.config import SchedulerConfig
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import CycleState, NodePlugin, NodeView, Plugin, Reach, Refusal
from scheduler.framework.profiles import default_profile, load_plugin
from scheduler.framework.reads import Facts, Reads, declared
from scheduler.plugins.strategies import ANNOTATION, MarathonConstraints
from scheduler.plugins.taint_toleration import TaintToleration
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table


def noted(wants: str, name: str = "p") -> PodInfo:
    made = pod("100m").pod
    made.metadata.annotations, made.metadata.name, made.metadata.uid = {"wants": wants}, name, f"{name}-{wants}"
    return PodInfo(made)


def wish(made: core_v1.Pod) -> str:
    return (made.metadata.annotations or {}).get("wants", "")


class Undeclared(Plugin):
    """As docs/scheduler.md led to: it reads an annotation, and says that no pod changes its mind."""

    name = "Wish"

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> list[Refusal]:
        return [Refusal("node(s) were not wished for", table.each(lambda n: n.metadata.name != wish(pod.pod), bool))]


class Declared(Undeclared):
    reads = Reads(pod=wish)

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> list[Refusal]:
        return super().filter(state, pod, table)


class ByNode(NodePlugin):
    name = "Wish"

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.ITS_NODE

    def filter_node(self, pod: PodInfo, view: NodeView) -> str:
        return "" if view.node.metadata.name == wish(pod.pod) else "node(s) were not wished for"


class Scoring(NodePlugin):
    """Scores; its points are scaled between the lowest and the highest, so one node's change those of others."""

    name = "Wish"

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.ITS_NODE

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return 1000.0 * (view.node.metadata.name == wish(pod.pod)) - len(view.pods)


class ScoringDeclared(Scoring):
    reads = Reads(pod=wish)

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return super().score_node(pod, view)


class Inheriting(TaintToleration):
    """Answers otherwise than the class whose declaration it inherits, which therefore says nothing of it."""

    name = "Wish"

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> list[Refusal]:
        return Undeclared.filter(self, state, pod, table)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Undeclared, Declared, ByNode, Scoring, ScoringDeclared, Inheriting])
def test_each_pod_gets_the_answer_that_is_its_own(kind: type[Plugin]):
    names = [f"n{i}" for i in range(20)]
    t, kept, profile = table(*map(node, names)), Rankings(), default_profile(user=[kind])
    chance = random.Random(0)
    for n, name in enumerate([*names, *reversed(names), *names]):
        info = noted(name, f"p{n}")
        decision = schedule(info, t, profile, chance, kept)
        assert decision.node == name
        t.add_pod(info, name)


def test_pods_that_declared_plugins_cannot_tell_apart_share_a_ranking():
    t, kept, profile = table(*(node(f"n{i}") for i in range(20))), Rankings(), default_profile(user=[Declared])
    first, again = (schedule(noted("n3", name), t, profile, random.Random(0), kept) for name in ("a", "b"))
    other = schedule(noted("n4"), t, profile, random.Random(0), kept)
    assert first.ranking is again.ranking is not other.ranking


def test_marathon_constraints_are_not_those_of_the_pod_before():
    t, kept = table(*(node(f"n{i}") for i in range(20))), Rankings()
    profile = default_profile(user=[MarathonConstraints])
    plain, bound = pod("100m"), pod("100m").pod
    bound.metadata.annotations = {ANNOTATION: '[["hostname", "CLUSTER", "n7"]]'}
    t.nodes[t.rows["n7"]].metadata.labels = {"kubernetes.io/hostname": "n7"}  # type: ignore[union-attr]
    assert schedule(plain, t, profile, random.Random(0), kept).feasible == 20
    assert schedule(PodInfo(bound), t, profile, random.Random(0), kept).node == "n7"
    assert schedule(pod("100m"), t, profile, random.Random(0), kept).feasible == 20


def test_a_plugin_without_a_say_costs_nobody_the_ranking():
    class Watching(Plugin):
        name = "Watching"

        def reserve(self, state: CycleState, pod: PodInfo, node: str) -> None:
            pass

    t, kept, profile = table(*(node(f"n{i}") for i in range(20))), Rankings(), default_profile(user=[Watching])
    first, again = (schedule(pod("100m"), t, profile, random.Random(0), kept) for _ in range(2))
    assert first.ranking is again.ranking
    assert declared(Watching()) == Reads()


class Hot(Plugin):
    name = "Hot"
    reads = Reads(node=lambda n: (n.metadata.annotations or {}).get("hot"))

    def reach(self, pod: PodInfo, table: NodeTable) -> Reach:
        return Reach.NOWHERE

    def filter(self, state: CycleState, pod: PodInfo, table: NodeTable) -> list[Refusal]:
        hot = table.each(lambda n: bool((n.metadata.annotations or {}).get("hot")), bool)
        return [Refusal("node(s) were hot", hot)]


def heated(made: core_v1.Node, **annotations: str) -> core_v1.Node:
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, annotations=annotations))


def test_what_a_plugin_reads_of_nodes_is_followed():
    t, kept, profile = table(*(node(f"n{i}") for i in range(10))), Rankings(), default_profile(user=[Hot])
    t.node_differs = profile.facts.node_differs
    assert schedule(pod("100m"), t, profile, random.Random(0), kept).feasible == 10
    assert t.set_node(heated(node("n1"), hot="yes"))
    assert schedule(pod("100m"), t, profile, random.Random(0), kept).feasible == 9
    assert not t.set_node(heated(node("n1"), hot="yes", other="x"))  # this is read by nobody
    assert t.set_node(heated(node("n1")))
    assert schedule(pod("100m"), t, profile, random.Random(0), kept).feasible == 10


def test_plugins_that_declare_nothing_are_told_of_all_but_heartbeats():
    facts = Facts([Undeclared()])
    old, new = node("a"), node("a")
    new.metadata.resource_version = "7"
    for condition in new.status.conditions or ():
        condition.last_heartbeat_time = "2030-01-01T00:00:00Z"
    assert not facts.node_differs(old, new)
    assert facts.node_differs(old, heated(new, a="b"))
    before, after = pod("100m").pod, pod("100m").pod
    assert not facts.placed_differs(before, after)
    after.metadata.annotations = {"a": "b"}
    assert facts.placed_differs(before, after)


def test_sibling_files_are_imported(tmp_path):
    (tmp_path / "prices_of_ours.py").write_text("PRICE = 7\n")
    (tmp_path / "logging.py").write_text("raise RuntimeError('this hides the standard library')\n")
    (tmp_path / "thrifty_of_ours.py").write_text(
        "import logging, prices_of_ours\nfrom scheduler.framework.plugin import NodePlugin\n"
        "class Thrifty(NodePlugin):\n    name = 'Thrifty'\n    price = prices_of_ours.PRICE\n"
        "    def score_node(self, pod, view):\n        import prices_of_ours as again\n        return again.PRICE\n"
    )
    kind = load_plugin(f"{tmp_path}/thrifty_of_ours.py:Thrifty")
    assert kind.price == 7  # type: ignore[attr-defined]
    assert load_plugin(f"{tmp_path}/thrifty_of_ours.py:Thrifty") is kind
    t = table(node("a"), node("b"))
    assert schedule(pod("100m"), t, default_profile(user=[kind]), random.Random(0)).node


@pytest.mark.parametrize(("name", "best"), [("SwarmBinpack", "full"), ("SwarmSpread", "few")])
def test_the_name_of_a_strategy_means_the_strategy(name: str, best: str):
    """CASES D2: default scorers do not outvote it; what else the user brings, or a profile enables, counts."""
    t = table(node("full"), node("few"), node("empty"))
    t.add_pod(pod("700m"), "full")
    if name == "SwarmSpread":
        t.add_pod(pod("1m"), "empty")
        t.add_pod(pod("1m"), "empty")
        t.add_pod(pod("700m"), "few")
        t.add_pod(pod("10m"), "full")
    kinds = [load_plugin(name)]
    for _ in range(3):
        assert schedule(pod("100m"), t, default_profile(user=kinds), random.Random(0)).node == best
    assert [s.plugin.name for s in default_profile(user=kinds).scorers] == [name]
    both = default_profile(user=[*kinds, Scoring])
    assert [s.plugin.name for s in both.scorers] == [name, "Wish"]
    text = "profiles: [{plugins: {score: {enabled: [{name: ImageLocality, weight: 3}]}}}]"
    (config,) = SchedulerConfig.load(text, kinds).profiles
    assert {s.plugin.name for s in config.scorers} == {"ImageLocality", name}
