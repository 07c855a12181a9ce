"""The columns say what a plain reference says, node by node and plugin by plugin, after any sequence of deltas."""

from __future__ import annotations

import json
import random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from navarch.api.affinity import preferred_weight
from navarch.api.selectors import from_labels
from navarch.api.types import core_v1, meta_v1
from scheduler.explain.explain import Recent, explain
from scheduler.framework.cycle import schedule
from scheduler.framework.outcomes import Rejected
from scheduler.framework.plugin import Attempt, CycleState
from scheduler.framework.profiles import default_profile
from scheduler.plugins.node_affinity import NodeAffinity
from scheduler.plugins.node_name import NodeName
from scheduler.plugins.node_resources import NodeResourcesBalancedAllocation, NodeResourcesFit
from scheduler.plugins.pod_affinity import InterPodAffinity
from scheduler.plugins.preemption import DefaultPreemption
from scheduler.plugins.strategies import MarathonConstraints, SwarmBinpack, SwarmSpread
from scheduler.plugins.topology_spread import SYSTEM_DEFAULTS, Default, PodTopologySpread
from scheduler.ranking.ranking import Ranking
from scheduler.ranking.rankings import Rankings
from scheduler.state.nodes import NodeTable
from scheduler.state.nominated import Nominated
from scheduler.state.pods import PodInfo
from tests.scheduler import clusters, reference
from tests.scheduler.reference import Cluster

NAMES = [f"n{i}" for i in range(6)]
RELAXED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


class Both:
    """A table and a plain cluster, changed alike."""

    def __init__(self) -> None:
        self.table, self.plain = NodeTable(), Cluster(namespaces=clusters.NAMESPACES)
        for name, labels in clusters.NAMESPACES.items():
            self.table.topology.set_namespace(name, labels)

    def set_node(self, node) -> None:
        self.table.set_node(node)
        self.plain.nodes[node.metadata.name] = node

    def remove_node(self, name: str) -> None:
        self.table.remove_node(name)
        self.plain.nodes.pop(name, None)

    def add_pod(self, pod, node: str) -> None:
        self.table.add_pod(PodInfo(pod), node)
        self.plain.pods[pod.metadata.uid] = (pod, node)

    def put(self, obj) -> None:
        self.table.volumes.put(obj)
        self.plain.put(obj)

    def remove_pod(self, uid: str) -> None:
        self.table.remove_pod(uid)
        self.plain.pods.pop(uid, None)


def change(both: Both, data) -> None:
    """One random delta."""
    what = data.draw(
        st.sampled_from(
            ["node", "node", "pod", "pod", "pod", "pod", "gone", "lost", "moved"]
            + ["storage"] * 2 * len(both.plain.storage)
        )
    )
    if what == "node":
        name = data.draw(st.sampled_from(NAMES))
        both.set_node(data.draw(clusters.nodes(name)))
    elif what == "pod":
        both.add_pod(data.draw(clusters.pods()), data.draw(st.sampled_from(NAMES)))
    elif what == "gone" and both.plain.pods:
        both.remove_pod(data.draw(st.sampled_from(sorted(both.plain.pods))))
    elif what == "lost":
        both.remove_node(data.draw(st.sampled_from(NAMES)))
    elif what == "storage":
        both.put(data.draw(clusters.storage()))
    elif what == "moved" and both.plain.pods:
        uid = data.draw(st.sampled_from(sorted(both.plain.pods)))
        both.add_pod(both.plain.pods[uid][0], data.draw(st.sampled_from(NAMES)))


def check(both: Both, pod) -> None:
    """Every plugin's answer about every node."""
    table, plain, info = both.table, both.plain, PodInfo(pod)
    profile = default_profile()
    plugins = {p.name: p for p in profile.plugins}
    left = list(plain.nodes.values())
    for name, rule in reference.FILTERS.items():
        state = CycleState()
        refused = np.zeros(table.size, bool)
        said: dict[int, list[str]] = {}
        try:
            plugins[name].pre_filter(state, info, table)
        except Rejected as rejected:
            assert str(rejected) == reference.volume_rejection(plain, pod)
            assert not plain.nodes or Ranking(info, table, profile).rejection == str(rejected)
            return
        for refusal in plugins[name].filter(state, info, table):
            refused |= refusal.nodes
            for row in np.flatnonzero(refusal.nodes):
                said.setdefault(int(row), []).append(refusal.reason)
        for node in plain.nodes.values():
            row = table.rows[node.metadata.name]
            why = rule(plain, pod, node)
            assert bool(refused[row]) == bool(why), (name, node.metadata.name, why)
            if name in reference.STORAGE:
                assert sorted(said.get(row, [])) == sorted(filter(None, why.split("\n")))
            assert bool(plugins[name].refuses(state, info, table, row)) == bool(why), name
        left = [n for n in left if not rule(plain, pod, n)]
    assert not reference.volume_rejection(plain, pod)
    ranking = Ranking(info, table, profile)
    assert {ranking.names[r] for r in np.flatnonzero(ranking.total > -np.inf)} == {n.metadata.name for n in left}
    if not left:
        return
    feasible = ranking.refused == 0
    feasible &= table.valid
    scorers = [s.plugin for s in profile.scorers]
    rules = [*((p, reference.SCORES[p.name]) for p in scorers), (NodeResourcesFit("MostAllocated"), reference.most)]
    rules.append((InterPodAffinity(50, ignore_preferred_of_existing=True), reference.attracts_strongly))
    for plugin, rule in rules:
        state = CycleState()
        plugin.pre_score(state, info, table, feasible)
        raw = plugin.score(state, info, table)
        scores = np.zeros(table.size) if raw is None else plugin.normalize(raw, feasible)
        expected = rule(plain, pod, left)
        for node in left:
            row = table.rows[node.metadata.name]
            assert float(scores[row]) == expected[node.metadata.name], (plugin.name, node.metadata.name)
            one = None if raw is None else float(raw[row])
            assert plugin.score_row(state, info, table, row) == one, (plugin.name, node.metadata.name)


@RELAXED
@given(st.data())
def test_every_plugin_equals_the_reference_after_any_deltas(data):
    both = Both()
    for name in NAMES[: data.draw(st.integers(1, 6))]:
        both.set_node(data.draw(clusters.nodes(name)))
    for _ in range(data.draw(st.integers(0, 10))):
        change(both, data)
        if data.draw(st.integers(0, 3)) == 0:
            check(both, data.draw(clusters.pods()))
    check(both, data.draw(clusters.pods()))


OTHERS = [
    (NodeResourcesFit("RequestedToCapacityRatio", reference.WEIGHTS, reference.SHAPE), reference.ratio),
    (NodeResourcesFit("LeastAllocated", reference.WEIGHTS), reference.least_weighted),
    (NodeResourcesBalancedAllocation(reference.WEIGHTS), reference.balanced_over_three),
    (SwarmSpread(), reference.swarm_spread),
    (SwarmBinpack(), reference.swarm_binpack),
]
CONSTRAINTS = [
    [clusters.ZONE, "UNIQUE"], [clusters.ZONE, "CLUSTER"], [clusters.ZONE, "CLUSTER", "z1"], [clusters.ZONE, "GROUP_BY"],
    [clusters.ZONE, "GROUP_BY", "3"], [clusters.ZONE, "MAX_PER", "2"], ["rack", "LIKE", "r1"], ["rack", "UNLIKE", "r1"],
]  # fmt: skip


@RELAXED
@given(st.data())
def test_other_strategies_equal_the_reference(data):
    """Other arguments, and the strategies of other systems."""
    both = Both()
    for name in NAMES[: data.draw(st.integers(1, 5))]:
        both.set_node(data.draw(clusters.nodes(name)))
    for _ in range(data.draw(st.integers(0, 8))):
        change(both, data)
    table, plain, pod = both.table, both.plain, data.draw(clusters.pods(affinities=False))
    left = [n for n in plain.nodes.values() if not reference.fit(plain, pod, n)]
    feasible = np.zeros(table.size, bool)
    feasible[[table.rows[n.metadata.name] for n in left]] = True
    info = PodInfo(pod)
    for plugin, rule in OTHERS if left else ():
        raw = plugin.score(CycleState(), info, table)
        scores = np.zeros(table.size) if raw is None else plugin.normalize(raw, feasible)
        expected = rule(plain, pod, left)
        for node in left:
            found = float(scores[table.rows[node.metadata.name]])
            assert found == expected[node.metadata.name], (plugin.name, node.metadata.name)
    for constraint in CONSTRAINTS if pod.metadata.labels else ():
        pod.metadata.annotations = {"scheduler.navarch.dev/constraints": json.dumps([constraint])}
        info, state, plugin = PodInfo(pod), CycleState(), MarathonConstraints()
        plugin.pre_filter(state, info, table)
        refused = plugin.filter(state, info, table)[0].nodes
        for node in plain.nodes.values():
            row = table.rows[node.metadata.name]
            assert bool(refused[row]) != reference.marathon(plain, pod, node, constraint), (
                constraint,
                node.metadata.name,
            )


DEFAULTS = st.lists(
    st.tuples(st.integers(1, 2), clusters.KEYS, st.sampled_from(["DoNotSchedule", "ScheduleAnyway"])).map(
        lambda constraint: Default(*constraint)
    ),
    min_size=1, max_size=2,
)  # fmt: skip


@RELAXED
@given(st.data())
def test_what_profiles_add_equals_the_reference(data):
    """Added node affinity, default spread constraints (upstream's own and listed ones), and pods that name a node."""
    both = Both()
    for name in NAMES[: data.draw(st.integers(1, 6))]:
        both.set_node(data.draw(clusters.nodes(name)))
    for _ in range(data.draw(st.integers(0, 10))):
        change(both, data)
    pod = data.draw(clusters.pods())
    same_with_added_affinity(both, pod, data.draw(clusters.NODE_AFFINITY.filter(bool)))
    pod.spec.node_name = data.draw(st.sampled_from([None, "unknown", *NAMES]))
    same(both, NodeName(), pod, lambda c, p, n: p.spec.node_name not in (None, n.metadata.name), None)
    pod.spec.node_name = pod.spec.topology_spread_constraints = None
    same_with_default_spread(both, pod, data.draw(st.none() | DEFAULTS))


def same_with_added_affinity(both: Both, pod, added: core_v1.NodeAffinity) -> None:
    """A node must suit the profile's affinity and the pod's own; preferences of both count."""
    chosen = core_v1.Pod(
        metadata=pod.metadata,
        spec=core_v1.PodSpec(containers=[], affinity=core_v1.Affinity(node_affinity=added)),
        status=core_v1.PodStatus(),
    )

    def both_choose(c, p, node) -> str:
        return reference.node_affinity(c, chosen, node) or reference.node_affinity(c, p, node)

    def both_prefer(c, p, left) -> dict[str, float]:
        where = [(n.metadata.name, n.metadata.labels or {}) for n in left]
        return reference.scaled({w[0]: sum(preferred_weight(x.spec, *w) for x in (p, chosen)) for w in where})

    same(both, NodeAffinity(added), pod, both_choose, both_prefer)


def same_with_default_spread(both: Both, pod, listed: list[Default] | None) -> None:
    """``listed``: the profile's constraints, None for upstream's; as if a pod without any had them, by its labels."""
    both.table.spread_selector = lambda p: from_labels(p.labels)
    explicit = core_v1.Pod(metadata=pod.metadata, spec=structs.replace(pod.spec), status=core_v1.PodStatus())
    explicit.spec.topology_spread_constraints = [
        core_v1.TopologySpreadConstraint(
            max_skew=d.max_skew, topology_key=d.topology_key, when_unsatisfiable=d.when_unsatisfiable,
            label_selector=meta_v1.LabelSelector(match_labels=pod.metadata.labels),
        )
        for d in (SYSTEM_DEFAULTS if listed is None else listed) if pod.metadata.labels
    ]  # fmt: skip
    same(
        both, PodTopologySpread(listed), pod, lambda c, p, n: reference.spread(c, explicit, n),
        lambda c, p, left: reference.spreads(c, explicit, left, strict=listed is not None),
    )  # fmt: skip


def same(both: Both, plugin, pod, why_not, prefers) -> None:
    """Whether a plugin refuses and scores each node as these rules do, asked as a whole and row by row."""
    table, plain, info, state = both.table, both.plain, PodInfo(pod), CycleState()
    plugin.pre_filter(state, info, table)
    refused = np.zeros(table.size, bool)
    for refusal in plugin.filter(state, info, table):
        refused |= refusal.nodes
    left = []
    for name, node in plain.nodes.items():
        row, why = table.rows[name], why_not(plain, pod, node)
        assert bool(refused[row]) == bool(why) == bool(plugin.refuses(state, info, table, row)), (name, why)
        left += [] if why else [node]
    if not left or prefers is None:
        return
    feasible = table.valid & ~refused
    plugin.pre_score(state, info, table, feasible)
    raw = plugin.score(state, info, table)
    scores = np.zeros(table.size) if raw is None else plugin.normalize(raw, feasible)
    expected = prefers(plain, pod, left)
    assert {n.metadata.name: float(scores[table.rows[n.metadata.name]]) for n in left} == expected


@settings(RELAXED, max_examples=30)
@given(st.data())
def test_storage_equals_the_reference_after_any_deltas(data):
    both = Both()
    for name in NAMES[: data.draw(st.integers(1, 4))]:
        both.set_node(data.draw(clusters.nodes(name)))
    for obj in clusters.CLASSES:
        both.put(obj)
    for _ in range(data.draw(st.integers(0, 12))):
        change(both, data)
    for _ in range(data.draw(st.integers(0, 3))):
        both.add_pod(data.draw(clusters.pods(affinities=False, claims=True)), data.draw(st.sampled_from(NAMES)))
    for _ in range(3):
        change(both, data)
        check(both, data.draw(clusters.pods(affinities=False, claims=True)))


class Calm(Both):
    """Nothing about a node matters to another: no images, no wishes, no terms of pods."""

    def set_node(self, node) -> None:
        node.status.images = None
        node.spec.taints = [t for t in node.spec.taints or () if t.effect != "PreferNoSchedule"]
        super().set_node(node)

    def add_pod(self, pod, node: str) -> None:
        super().add_pod(calmed(pod), node)


def calmed(pod):
    pod.spec.topology_spread_constraints = None
    if pod.spec.affinity:
        pod.spec.affinity.pod_affinity = pod.spec.affinity.pod_anti_affinity = None
        if pod.spec.affinity.node_affinity:
            pod.spec.affinity.node_affinity.preferred_during_scheduling_ignored_during_execution = None
    return pod


@pytest.mark.parametrize("calm", [False, True])
@patch("scheduler.ranking.ranking.FEW", 0)  # else so few nodes are always looked at one by one, and nothing is followed
@settings(RELAXED, max_examples=100)
@given(st.data())
def test_rankings_that_follow_decide_as_new_ones_do(calm, data):
    """Batches of pods that are alike, other pods in between, deltas: the same nodes, scores and messages."""
    both = Calm() if calm else Both()
    for name in NAMES:
        both.set_node(data.draw(clusters.nodes(name)))
    table, profile, rankings = both.table, default_profile(), Rankings()
    sorts = [data.draw(clusters.pods(affinities=data.draw(st.booleans()))) for _ in range(1 if calm else 3)]
    sorts = [calmed(pod) for pod in sorts] if calm else sorts
    seed = data.draw(st.integers(0, 99))
    kept = []
    for n in range(data.draw(st.integers(1, 20))):
        if data.draw(st.integers(0, 1 if calm else 4)) == 0:
            change(both, data)
        model = data.draw(st.sampled_from(sorts))
        pod = PodInfo(model)
        pod.uid = f"x{n}"
        fast = schedule(pod, table, profile, random.Random(seed + n), rankings)
        slow = schedule(pod, table, profile, random.Random(seed + n))
        assert (fast.node, fast.message(), fast.score) == (slow.node, slow.message(), slow.score)
        assert fast.feasible == slow.feasible and fast.refused_by == slow.refused_by
        assert np.array_equal(fast.ranking.total, slow.ranking.total)
        assert np.array_equal(fast.ranking.never & table.valid, slow.ranking.never & table.valid)
        assert fast.ranking.names == slow.ranking.names and fast.nodes == slow.nodes
        kept.append((fast, slow.ranking.refused.copy(), slow.ranking.parts.copy(), slow.ranking.reasons))
        if fast.node:
            table.add_pod(pod, fast.node)
    for decision, refused, parts, reasons in kept:  # what was kept tells each decision as it was
        then, scored = decision.ranking.as_of(decision.notes)
        assert [texts(decision.ranking.reasons, b) for b in then] == [texts(reasons, b) for b in refused]
        assert np.array_equal(scored[:, then == 0], parts[:, refused == 0])


@RELAXED
@given(st.data())
def test_pods_that_name_nodes_are_decided_as_all_others_are(data):
    """One name, several, unknown ones; nodes come, change and go between them: the same decisions, messages, explanations,
    and columns for those who want them."""
    both = Both()
    for name in NAMES[: data.draw(st.integers(0, 6))]:
        both.set_node(data.draw(clusters.nodes(name)))
    table, profile, rankings, seen = both.table, default_profile(), Rankings(), []
    for n in range(data.draw(st.integers(1, 12))):
        for _ in range(data.draw(st.integers(0, 2))):
            change(both, data)
        names = data.draw(st.lists(st.sampled_from([*NAMES, "unknown"]), min_size=1, max_size=3))
        pod = PodInfo(clusters.named(data.draw(clusters.pods(affinities=data.draw(st.booleans()))), names))
        pod.uid = f"x{n}"
        own = data.draw(st.sampled_from(["", *NAMES]))
        nominated = Nominated()
        if own:
            nominated.add(pod, own)
        fast = schedule(pod, table, profile, random.Random(n), rankings, nominated)
        slow = schedule(pod, table, profile, random.Random(n), None, nominated)
        assert (fast.node, fast.row, fast.score, fast.message()) == (slow.node, slow.row, slow.score, slow.message())
        assert (fast.feasible, fast.refused_by, fast.reasons) == (slow.feasible, slow.refused_by, slow.reasons)
        assert np.array_equal(fast.ranking.resolvable(), slow.ranking.resolvable())
        if data.draw(st.booleans()):
            assert np.array_equal(fast.ranking.total, slow.ranking.total)
            assert fast.node or np.array_equal(fast.ranking.never, slow.ranking.never)
            assert (fast.feasible, fast.refused_by, fast.reasons) == (slow.feasible, slow.refused_by, slow.reasons)
        if not fast.node:
            plans = [DefaultPreemption().plan(pod, table, d.ranking, Attempt("", random.Random(n))) for d in (fast, slow)]
            assert plans[0] == plans[1]
        told = [Recent(), Recent()]
        for recent, decision in zip(told, (fast, slow), strict=True):
            recent.add(decision, 0.0)
        kept = [recent.get(pod.key) for recent in told]
        seen.append([*kept, explain(kept[1], "n0")])
        if fast.node:
            table.add_pod(pod, fast.node)
    for fast, slow, then in seen:  # what is kept tells each decision as it was
        assert explain(fast, "n0") == explain(slow, "n0") == then


def texts(reasons, bits) -> list[str]:
    return sorted(r.text for n, r in enumerate(reasons) if int(bits) >> n & 1)


@RELAXED
@given(st.data())
def test_preemption_takes_pods_of_lower_priority_as_few_as_needed(data):
    both = Both()
    for name in NAMES[:3]:
        both.set_node(data.draw(clusters.nodes(name)))
    for _ in range(data.draw(st.integers(0, 8))):
        both.add_pod(data.draw(clusters.pods()), data.draw(st.sampled_from(NAMES[:3])))
    pod = PodInfo(data.draw(clusters.pods()))
    table, profile = both.table, default_profile()
    ranking = Ranking(pod, table, profile)
    if ranking.feasible:
        return
    before = {uid: node for uid, (_, node) in table.pods.items()}
    plan = DefaultPreemption().plan(pod, table, ranking, Attempt("", random.Random(0)))
    assert {uid: node for uid, (_, node) in table.pods.items()} == before  # put back as it was
    assert np.array_equal(Ranking(pod, table, profile).refused, ranking.refused)

    def fits(node: str) -> bool:
        return all(not rule(both.plain, pod.pod, both.plain.nodes[node]) for rule in reference.FILTERS.values())

    if not plan.node:
        for name in list(both.plain.nodes):
            gone = {
                uid: p
                for uid, p in both.plain.pods.items()
                if p[1] == name and (p[0].spec.priority or 0) < pod.priority
            }
            for uid in gone:
                del both.plain.pods[uid]
            assert not gone or not fits(name)
            both.plain.pods.update(gone)
        return
    assert all(v.priority < pod.priority and before[v.uid] == plan.node for v in plan.victims)
    saved = {v.uid: both.plain.pods.pop(v.uid) for v in plan.victims}
    assert fits(plan.node)
    for uid, where in saved.items():  # not one of them could have stayed
        both.plain.pods[uid] = where
        assert not fits(plan.node) or any(v.pod.spec.affinity or pod.pod.spec.affinity for v in plan.victims)
        del both.plain.pods[uid]


def change_nominations(both: Both, nominated: Nominated, sorts, n: int, data) -> None:
    """One random delta of the cluster or of the nominations, or none; ``n`` numbers the pod that is nominated."""
    what = data.draw(st.sampled_from(["change", "nominate", "nominate", "leave", "assume", "forget", "nothing"]))
    uids = sorted(nominated)
    if what == "change":
        change(both, data)
    elif what == "nominate":
        other = PodInfo(data.draw(st.sampled_from(sorts)))
        other.uid = f"other{n}"
        nominated.add(other, data.draw(st.sampled_from(NAMES)))
    elif uids and what == "leave":
        nominated.remove(data.draw(st.sampled_from(uids)))
    elif uids and what in ("assume", "forget"):
        nominated.assumed(data.draw(st.sampled_from(uids)), what == "assume")


def same_plans(pod: PodInfo, table: NodeTable, nominated: Nominated, n: int, ways, slow) -> None:
    """``ways``: (plugin, decision); all plan alike, and as if the nominated pods were bound, without the shortcut."""
    where = nominated.node_of(pod.uid)
    plans = [
        plugin.plan(pod, table, decision.ranking, Attempt(where, random.Random(n), others=nominated))
        for plugin, decision in ways
    ]
    with table.as_if(nominated.beside(pod)):
        plain = DefaultPreemption()
        with patch("scheduler.plugins.preemption._fit_alone", lambda *_: None):
            plans.append(plain.plan(pod, table, slow.ranking, Attempt(where, random.Random(n))))
    assert plans[0] == plans[1]
    assert (plans[0].node, plans[0].keep) == (plans[2].node, plans[2].keep)
    assert {v.uid for v in plans[0].victims} == {v.uid for v in plans[2].victims}


@pytest.mark.parametrize("calm", [False, True])
@patch("scheduler.ranking.ranking.FEW", 0)
@settings(RELAXED, max_examples=60)
@given(st.data())
def test_room_is_kept_for_nominated_pods_as_if_they_were_there(calm, data):
    """Nominations come, go and are assumed between decisions: what is remembered of them changes no decision, and no plan."""
    both = Calm() if calm else Both()
    for name in NAMES:
        both.set_node(data.draw(clusters.nodes(name)))
    table, profile, rankings, nominated = both.table, default_profile(), Rankings(), Nominated()
    remembering = DefaultPreemption()
    sorts = [data.draw(clusters.pods(affinities=data.draw(st.booleans()))) for _ in range(2)]
    sorts = [calmed(pod) for pod in sorts] if calm else sorts
    for n in range(data.draw(st.integers(1, 16))):
        change_nominations(both, nominated, sorts, n, data)
        pod = PodInfo(data.draw(st.sampled_from(sorts)))
        pod.uid = data.draw(st.sampled_from([f"x{n}", *nominated]))
        fast = schedule(pod, table, profile, random.Random(n), rankings, nominated)
        slow = schedule(pod, table, profile, random.Random(n), None, nominated)
        assert (fast.node, fast.message(), fast.score) == (slow.node, slow.message(), slow.score)
        assert fast.feasible == slow.feasible and fast.refused_by == slow.refused_by
        assert np.array_equal(fast.ranking.total, slow.ranking.total)
        if not fast.node:
            same_plans(pod, table, nominated, n, ((remembering, fast), (DefaultPreemption(), slow)), slow)
        if fast.node and data.draw(st.booleans()):
            nominated.remove(pod.uid)
            table.add_pod(pod, fast.node)
