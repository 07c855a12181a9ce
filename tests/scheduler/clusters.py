"""Random small clusters and pods, in which every rule has something to bite on."""

from __future__ import annotations

from itertools import count

from hypothesis import strategies as st

from navarch.api.types import core_v1, meta_v1, storage_v1

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


VOLUME_ZONE = "topology.kubernetes.io/zone"
CLASSES = [
    storage_v1.StorageClass(
        metadata=meta_v1.ObjectMeta(name=name), provisioner=provisioner, volume_binding_mode=mode,
        allowed_topologies=[core_v1.TopologySelectorTerm(match_label_expressions=[topology])] if topology else None,
    )
    for name, provisioner, mode, topology in (
        ("now", "csi", "Immediate", None),
        ("local", "kubernetes.io/no-provisioner", "WaitForFirstConsumer", None),
        ("late", "csi", "WaitForFirstConsumer", None),
        ("zoned", "csi", "WaitForFirstConsumer",
         core_v1.TopologySelectorLabelRequirement(key=ZONE, values=["z1", "z2"])),
    )
]  # fmt: skip
CLAIMS = ["c0", "c1", "c2"]
VOLUMES = ["v0", "v1", "v2", "v3"]


def only_in(key, values):
    requirement = core_v1.NodeSelectorRequirement(key=key, operator="In", values=values)
    term = core_v1.NodeSelectorTerm(match_expressions=[requirement])
    return core_v1.VolumeNodeAffinity(required=core_v1.NodeSelector(node_selector_terms=[term]))


@st.composite
def storage(draw):
    """One object that storage is about; of few names, so that they come to belong together."""
    what = draw(st.sampled_from(["claim", "claim", "claim", "volume", "volume", "driver", "node", "capacity"]))
    gi = f"{draw(st.integers(1, 4))}Gi"
    name_of_class = draw(st.sampled_from(["now", "local", "late", "late", "zoned"]))
    if what == "claim":
        bound = draw(st.sampled_from(["", "", *VOLUMES, "gone"]))
        selected = draw(st.sampled_from(["", "", "", "n0", "n1"]))
        notes = {"pv.kubernetes.io/bind-completed": "yes"} if bound else {}
        return core_v1.PersistentVolumeClaim(
            metadata=meta_v1.ObjectMeta(
                name=draw(st.sampled_from(CLAIMS)), namespace=draw(st.sampled_from("ab")), uid=f"u{next(serial)}",
                annotations=notes | ({"volume.kubernetes.io/selected-node": selected} if selected else {}),
            ),
            spec=core_v1.PersistentVolumeClaimSpec(
                access_modes=[draw(st.sampled_from(["ReadWriteOnce", "ReadWriteOnce", "ReadWriteOncePod"]))],
                resources=core_v1.VolumeResourceRequirements(requests={"storage": gi}),
                storage_class_name=name_of_class, volume_name=bound or None,
            ),
        )  # fmt: skip
    if what == "volume":
        name = draw(st.sampled_from(VOLUMES))
        where = draw(st.sampled_from([
            None, only_in(ZONE, ["z1"]), only_in(HOSTNAME, ["n1"]), only_in(HOSTNAME, ["n0", "n2"]),
        ]))  # fmt: skip
        csi = core_v1.CSIPersistentVolumeSource(driver="csi", volume_handle=name)
        owner = draw(st.sampled_from(["", "", "", *CLAIMS]))
        zone = draw(st.sampled_from([None, None, "z1", "z1__z2"]))
        return core_v1.PersistentVolume(
            metadata=meta_v1.ObjectMeta(name=name, labels={VOLUME_ZONE: zone} if zone else None),
            spec=core_v1.PersistentVolumeSpec(
                capacity={"storage": gi}, node_affinity=where, storage_class_name=name_of_class, csi=csi,
                access_modes=["ReadWriteOnce", "ReadWriteOncePod"],
                claim_ref=core_v1.ObjectReference(namespace="a", name=owner) if owner else None,
            ),
            status=core_v1.PersistentVolumeStatus(phase=draw(st.sampled_from(["Available", "Available", "Released"]))),
        )  # fmt: skip
    if what == "driver":
        spec = storage_v1.CSIDriverSpec(storage_capacity=draw(st.booleans()))
        return storage_v1.CSIDriver(metadata=meta_v1.ObjectMeta(name="csi"), spec=spec)
    if what == "node":
        most = storage_v1.VolumeNodeResources(count=draw(st.integers(0, 3)))
        drivers = [storage_v1.CSINodeDriver(name="csi", node_id="x", allocatable=most)]
        meta = meta_v1.ObjectMeta(name=draw(st.sampled_from(["n0", "n1", "n2"])))
        return storage_v1.CSINode(metadata=meta, spec=storage_v1.CSINodeSpec(drivers=drivers))
    return storage_v1.CSIStorageCapacity(
        metadata=meta_v1.ObjectMeta(name=f"s{draw(st.integers(0, 2))}", namespace="a"), capacity=gi,
        storage_class_name=name_of_class,
        node_topology=meta_v1.LabelSelector(match_labels=draw(st.sampled_from([None, {ZONE: "z1"}, {ZONE: "z2"}]))),
    )  # fmt: skip


@st.composite
def volumes(draw):
    out = []
    for n, what in enumerate(draw(st.lists(st.sampled_from([*CLAIMS, *CLAIMS, "disk"]), max_size=2))):
        if what == "disk":
            disk = core_v1.GCEPersistentDiskVolumeSource(pd_name="d", read_only=draw(st.booleans()))
            out.append(core_v1.Volume(name=f"v{n}", gce_persistent_disk=disk))
        else:
            claim = core_v1.PersistentVolumeClaimVolumeSource(claim_name=what)
            out.append(core_v1.Volume(name=f"v{n}", persistent_volume_claim=claim))
    return out


@st.composite
def pods(draw, affinities=True, claims=False):
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
            volumes=draw(volumes()) if claims else None,
        ),
    )


def named(pod, names):
    """The pod, which now names its nodes as those of DaemonSets do, a term each; other terms of its affinity stay."""
    terms = [
        core_v1.NodeSelectorTerm(
            match_fields=[core_v1.NodeSelectorRequirement(key="metadata.name", operator="In", values=[name])]
        )
        for name in names
    ]
    affinity = pod.spec.affinity = pod.spec.affinity or core_v1.Affinity()
    affinity.node_affinity = affinity.node_affinity or core_v1.NodeAffinity()
    affinity.node_affinity.required_during_scheduling_ignored_during_execution = core_v1.NodeSelector(
        node_selector_terms=terms
    )
    return pod


@st.composite
def nodes(draw, name):
    labels = {HOSTNAME: name} if draw(st.integers(0, 9)) else {}
    for key, values in (
        (ZONE, ["z1", "z2", "z3"]),
        (VOLUME_ZONE, ["z1", "z2", "z3"]),
        ("rack", ["r1", "r2"]),
        ("disk", ["ssd"]),
    ):
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
