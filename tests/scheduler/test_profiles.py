"""KubeSchedulerConfiguration, plugins of the user, and plugins written node by node."""

from __future__ import annotations

import random

import pytest

from scheduler.framework.config import SchedulerConfig
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import NodePlugin, NodeView
from scheduler.framework.profiles import load_plugin
from scheduler.plugins.node_resources import NodeResourcesFit
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table

CONFIG = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
podMaxBackoffSeconds: 5
percentageOfNodesToScore: 100
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  plugins:
    score:
      disabled: [{name: NodeResourcesBalancedAllocation}, {name: ImageLocality}]
      enabled: [{name: NodeResourcesFit, weight: 10}]
    multiPoint:
      disabled: [{name: InterPodAffinity}]
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 1}]}}
- schedulerName: bare
  plugins: {multiPoint: {disabled: [{name: "*"}]}, filter: {enabled: [{name: NodeResourcesFit}]}}
"""


class Initials(NodePlugin):
    """Likes nodes by the letter that their names begin with."""

    name = "Initials"

    def __init__(self, likes: str = "z") -> None:
        self.likes = likes

    def filter_node(self, pod: PodInfo, view: NodeView) -> str:
        return "node(s) were named badly" if view.node.metadata.name == "bad" else ""

    def score_node(self, pod: PodInfo, view: NodeView) -> float:
        return 100.0 * (view.node.metadata.name or "").startswith(self.likes) - len(view.pods)


def test_profiles_take_plugins_weights_and_arguments():
    config = SchedulerConfig.load(CONFIG)
    default, packer, bare = config.profiles
    assert config.warnings == ["percentageOfNodesToScore has no meaning here: every node is scored, always"]
    assert config.pod_max_backoff_seconds == 5
    weights = {s.plugin.name: s.weight for s in packer.scorers}
    assert weights == {"TaintToleration": 3, "NodeAffinity": 2, "PodTopologySpread": 2, "NodeResourcesFit": 10}
    assert "InterPodAffinity" not in [p.name for p in packer.filters]
    assert [p.name for p in bare.filters] == ["NodeResourcesFit"] and not bare.scorers
    t = table(node("a"), node("b"))
    t.add_pod(pod("500m"), "b")
    assert schedule(pod("100m"), t, packer, random.Random(0)).node == "b"
    assert schedule(pod("100m"), t, default, random.Random(0)).node == "a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "profiles: [{plugins: {score: {enabled: [{name: Nope}]}}}]",
            'profiles[0].plugins.score.enabled[0]: unknown plugin "Nope"',
        ),
        (
            "{parallelism: 0, podInitialBackoffSeconds: 0, profiles: []}",
            "[parallelism: Invalid value: 0: should be an integer value greater than zero, podInitialBackoffSeconds: Invalid "
            "value: 0: must be greater than 0, profiles: Required value]",
        ),
        ("podMaxBackoffSeconds: 0", "podMaxBackoffSeconds: Invalid value: 0: must be greater than or equal to"),
        ("profiles: [{schedulername: a}]", 'strict decoding error: unknown field "profiles[0].schedulername"'),
        ("percentageOfNodesToScore: 101", "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]"),
        ("parallelism: many", "parallelism: Expected `int`, got `str`"),
        (
            "leaderElection: {leaderElect: true, leaseDuration: 5s}",
            'leaderElection.leaseDuration: Invalid value: "5s": LeaseDuration must be greater than RenewDeadline',
        ),
        (
            "extenders: [{prioritizeVerb: p}, {urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://x', bindVerb: b}]",
            "extenders[0].urlPrefix: Required value, extenders[0].weight: Invalid value: 0: must have a positive weight",
        ),
        (
            "extenders: [{urlPrefix: 'http://x', managedResources: [{name: cpu}]}]",
            'extenders[0].managedResources[0].name: Invalid value: "cpu": name is an invalid extended resource name',
        ),
        (
            "profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 101}}]}]",
            "profiles[0].pluginConfig[0].args.minCandidateNodesPercentage: Invalid value: 101: not in valid range [0, 100]",
        ),
        (
            "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: -1}}]}]",
            "args.hardPodAffinityWeight: Invalid value: -1: not in valid range [0, 100]",
        ),
        (
            "profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hard: 1}}]}]",
            'strict decoding error: unknown field "profiles[0].pluginConfig[0].args.hard"',
        ),
        (
            "profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 0}]}}]}]",
            "when .defaultingType is System, constraints must be empty",
        ),
        (
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio, "
            "requestedToCapacityRatio: {shape: [{utilization: 50, score: 1}, {utilization: 20, score: 11}]}}}}]}]",
            "shape[1].utilization: Invalid value: 20: utilization values must be sorted in increasing order",
        ),
        ("profiles: [{pluginConfig: [{name: Nope}]}]", 'pluginConfig[0].name: Invalid value: "Nope": no such plugin'),
        ("profiles: [{plugins: {bind: {disabled: [{name: '*'}]}}}]", "plugins.bind: Required value: at least one bind"),
        ("profiles: [{plugins: {queueSort: {disabled: [{name: '*'}]}}}]", "at least one queue sort plugin is needed"),
        ("{apiVersion: kubescheduler.config.k8s.io/v1beta3, kind: KubeSchedulerConfiguration}", "is registered for"),
        ("profiles: [{plugins: {sort: {}}}]", "unknown extension point"),
        ("profiles: [{schedulerName: a}, {schedulerName: a}]", 'profiles[1].schedulerName: Duplicate value: "a"'),
        (
            "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: X}}}]}]",
            'scoringStrategy.type: Unsupported value: "X": supported values: "LeastAllocated"',
        ),
        ("{kind: Deployment, apiVersion: apps/v1}", "no kind"),
    ],
)
def test_wrong_configurations_are_refused(text, said):
    with pytest.raises(ValueError) as caught:
        SchedulerConfig.load(text)
    assert said in str(caught.value)


def test_a_plugin_written_node_by_node_is_lifted():
    config = SchedulerConfig.load("profiles: [{pluginConfig: [{name: Initials, args: {likes: 'y'}}]}]", [Initials])
    t = table(node("x"), node("y1"), node("y2"), node("bad"))
    t.add_pod(pod(), "y1")
    decision = schedule(pod(), t, config.profiles[0], random.Random(0))
    assert decision.node == "y2" and decision.reasons == {"node(s) were named badly": 1}
    assert load_plugin("tests.scheduler.test_profiles:Initials").name == "Initials"
    with pytest.raises(ValueError):
        load_plugin("tests.scheduler.test_profiles:CONFIG")


def test_requested_to_capacity_ratio_follows_its_shape():
    t = table(node("a", cpu="1"), node("b", cpu="2"), node("c", cpu="10"))
    fit = NodeResourcesFit("RequestedToCapacityRatio", {"cpu": 1}, [(0, 0), (50, 10), (100, 5)])
    scores = fit.score(None, pod("1"), t)
    assert scores[:3].tolist() == [50, 100, 20]


def test_plugins_are_known_by_name_and_by_file():
    assert load_plugin("Coscheduling").name == "Coscheduling"
    assert load_plugin(f"{__file__}:Initials").name == "Initials"
