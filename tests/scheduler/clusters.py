"""Random small clusters and pods, in which every rule has something to bite on."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st

from navarch.api.types import core_v1, meta_v1

HOSTNAME, ZONE = "kubernetes.io/hostname", "zone"
NAMESPACES = {"a": {"team": "x"}, "b": {"team": "y"}}
LABELS = st.fixed_dictionaries({}, optional={"app": st.sampled_from("pq"), "tier": st.sampled_from("12")})
KEYS = st.sampled_from([HOSTNAME, ZONE, "rack"])
MB = 1024 * 1024
serial = count()


@st.composite
def label_selectors(draw):
    labels = draw(st.none() | LABELS)
    expressions = draw(
        st.lists(
            st.builds(
                meta_v1.LabelSelectorRequirement,
                key=st.sampled_from(["app", "tier"]),
                operator=st.sampled_from(["In", "NotIn"]),
                values=st.lists(st.sampled_from("pq12"), min_size=1, max_size=2),
            ),
            max_size=1,
        )
    )
    return meta_v1.LabelSelector(match_labels=labels, match_expressions=expressions)


TERMS = st.builds(
    core_v1.PodAffinityTerm,
    topology_key=KEYS,
    label_selector=st.none() | label_selectors(),
    namespaces=st.none() | st.lists(st.sampled_from("ab"), max_size=2),
    namespace_selector=st.none() | st.builds(meta_v1.LabelSelector, match_labels=st.none() | st.just({"team": "x"})),
    match_label_keys=st.none() | st.just(["tier"]),
    mismatch_label_keys=st.none() | st.none() | st.just(["tier"]),
)
WEIGHTED = st.builds(core_v1.WeightedPodAffinityTerm, weight=st.integers(1, 100), pod_affinity_term=TERMS)


def few(strategy):
    return st.none() | st.lists(strategy, min_size=1, max_size=2)


def rules(kind):
    return st.none() | st.builds(
        kind,
        required_during_scheduling_ignored_during_execution=few(TERMS),
        preferred_during_scheduling_ignored_during_execution=few(WEIGHTED),
    )


REQUIREMENTS = st.builds(
    core_v1.NodeSelectorRequirement,
    key=st.sampled_from(["disk", ZONE]),
    operator=st.sampled_from(["In", "NotIn"]),
    values=st.lists(st.sampled_from(["ssd", "z1", "z2"]), min_size=1, max_size=2),
)
FIELDS = st.builds(
    core_v1.NodeSelectorRequirement,
    key=st.just("metadata.name"),
    operator=st.sampled_from(["In", "NotIn"]),
    values=st.lists(st.sampled_from(["n0", "n1", "n2"]), min_size=1, max_size=1),
)
NODE_TERMS = st.builds(
    core_v1.NodeSelectorTerm,
    match_expressions=st.none() | st.lists(REQUIREMENTS, max_size=2),
    match_fields=st.none() | st.none() | st.lists(FIELDS, max_size=1),
)
NODE_AFFINITY = st.none() | st.builds(
    core_v1.NodeAffinity,
    required_during_scheduling_ignored_during_execution=st.none()
    | st.builds(core_v1.NodeSelector, node_selector_terms=st.lists(NODE_TERMS, min_size=1, max_size=2)),
    preferred_during_scheduling_ignored_during_execution=few(
        st.builds(core_v1.PreferredSchedulingTerm, weight=st.integers(1, 9), preference=NODE_TERMS)
    ),
)
SPREAD = st.builds(
    core_v1.TopologySpreadConstraint,
    max_skew=st.integers(1, 2),
    topology_key=KEYS,
    when_unsatisfiable=st.sampled_from(["DoNotSchedule", "ScheduleAnyway"]),
    label_selector=st.none() | label_selectors(),
    match_label_keys=st.none() | st.just(["tier"]),
    min_domains=st.none() | st.integers(1, 3),
    node_affinity_policy=st.sampled_from([None, "Honor", "Ignore"]),
    node_taints_policy=st.sampled_from([None, "Honor", "Ignore"]),
)
TOLERATIONS = st.none() | st.lists(
    st.builds(
        core_v1.Toleration, key=st.just("k"), operator=st.just("Exists"), effect=st.sampled_from([None, "NoSchedule"])
    ),
    max_size=1,
)


@st.composite
def pods(draw, affinities=True):
    amounts = {}
    for resource, unit in (("cpu", "00m"), ("memory", "00Mi"), ("example.com/gpu", "")):
        amount = draw(st.integers(0, 4))
        if amount and (unit or draw(st.booleans())):
            amounts[resource] = f"{amount}{unit}"
    port = draw(st.sampled_from([0, 0, 0, 80]))
    wanted = [core_v1.ContainerPort(container_port=1, host_port=80, host_ip=draw(st.sampled_from([None, "10.0.0.1"])))]
    container = core_v1.Container(
        name="c",
        image=draw(st.sampled_from(["big", "small:1"])),
        resources=core_v1.ResourceRequirements(requests=amounts),
        ports=wanted if port else None,
    )
    affinity = None
    if affinities and draw(st.booleans()):
        affinity = core_v1.Affinity(
            node_affinity=draw(NODE_AFFINITY),
            pod_affinity=draw(rules(core_v1.PodAffinity)),
            pod_anti_affinity=draw(rules(core_v1.PodAntiAffinity)),
        )
    uid = str(next(serial))
    return core_v1.Pod(
        metadata=meta_v1.ObjectMeta(
            name=f"p{uid}",
            namespace=draw(st.sampled_from("ab")),
            uid=uid,
            labels=draw(LABELS),
            deletion_timestamp=draw(st.sampled_from([None, None, "2030-01-01T00:00:00Z"])),
        ),
        spec=core_v1.PodSpec(
            containers=[container],
            affinity=affinity,
            node_selector=draw(st.sampled_from([None, None, {"disk": "ssd"}])),
            tolerations=draw(TOLERATIONS),
            topology_spread_constraints=draw(st.none() | st.lists(SPREAD, max_size=2)) if affinities else None,
            priority=draw(st.integers(0, 2)),
        ),
    )


@st.composite
def nodes(draw, name):
    labels = {HOSTNAME: name} if draw(st.integers(0, 9)) else {}
    for key, values in ((ZONE, ["z1", "z2", "z3"]), ("rack", ["r1", "r2"]), ("disk", ["ssd"])):
        value = draw(st.sampled_from([None, *values]))
        if value:
            labels[key] = value
    taint = st.builds(
        core_v1.Taint, key=st.sampled_from("kl"), effect=st.sampled_from(["NoSchedule", "PreferNoSchedule"])
    )
    held = draw(st.sets(st.sampled_from(["big:latest", "small:1"])))
    sizes = {"big:latest": 900 * MB, "small:1": 60 * MB}
    return core_v1.Node(
        metadata=meta_v1.ObjectMeta(name=name, labels=labels),
        spec=core_v1.NodeSpec(
            taints=draw(st.none() | st.none() | st.lists(taint, max_size=1)),
            unschedulable=draw(st.sampled_from([None, None, None, True])),
        ),
        status=core_v1.NodeStatus(
            allocatable={
                "cpu": f"{draw(st.sampled_from([0, 5, 10, 20]))}00m",
                "memory": f"{draw(st.sampled_from([5, 10, 20]))}00Mi",
                "pods": str(draw(st.integers(1, 8))),
                "example.com/gpu": "2",
            },
            images=[core_v1.ContainerImage(names=[i], size_bytes=sizes[i]) for i in sorted(held)],
        ),
    )
