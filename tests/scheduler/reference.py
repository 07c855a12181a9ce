"""The scheduler's rules written plainly, one node and one pod at a time: what the vectorised plugins must equal.

A cluster here is a list of nodes and a list of (pod, node name); nothing is cached and nothing is clever.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from navarch.api import quantity, resources, selectors
from navarch.api.affinity import node_selector_matches, pod_matches_node, preferred_weight, tolerated, untolerated
from navarch.api.types import core_v1, meta_v1

HOSTNAME = "kubernetes.io/hostname"
MB = 1024 * 1024


@dataclass
class Cluster:
    nodes: dict[str, core_v1.Node] = field(default_factory=dict)
    pods: dict[str, tuple[core_v1.Pod, str]] = field(default_factory=dict)  # by uid
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    storage: dict[tuple[str, str], object] = field(default_factory=dict)  # (kind, name or namespace/name)

    def put(self, obj) -> None:
        meta = obj.metadata
        name = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
        self.storage[type(obj).__name__, name] = obj

    def kept(self, kind: str) -> list:
        return [o for (k, _), o in self.storage.items() if k == kind]

    def on(self, name: str) -> list[core_v1.Pod]:
        return [p for p, where in self.pods.values() if where == name]

    def placed(self) -> list[tuple[core_v1.Pod, core_v1.Node]]:
        return [(p, self.nodes[where]) for p, where in self.pods.values() if where in self.nodes]


def labels_of(obj) -> dict[str, str]:
    return obj.metadata.labels or {}


# Filters: the reason why not, or ""


def unschedulable(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    taint = core_v1.Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
    return "unschedulable" if node.spec.unschedulable and not tolerated(pod.spec.tolerations, taint) else ""


def taints(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    return "taint" if untolerated(pod.spec.tolerations, node.spec.taints) else ""


def node_affinity(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    return "" if pod_matches_node(pod.spec, node.metadata.name, labels_of(node)) else "affinity"


def ports(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    def wanted(p):
        return [x for k in p.spec.containers for x in k.ports or () if x.host_port]

    for mine in wanted(pod):
        for other in c.on(node.metadata.name):
            for theirs in wanted(other):
                same = (mine.protocol or "TCP", mine.host_port) == (theirs.protocol or "TCP", theirs.host_port)
                a, b = mine.host_ip or "0.0.0.0", theirs.host_ip or "0.0.0.0"
                if same and (a == b or "0.0.0.0" in (a, b)):
                    return "port"
    return ""


def used(c: Cluster, node: core_v1.Node, resource: str) -> int:
    if resource == "pods":
        return len(c.on(node.metadata.name))
    return sum(resources.pod_requests(p).get(resource, 0) for p in c.on(node.metadata.name))


def fit(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    has = resources.amounts(node.status.allocatable)
    for resource, amount in (resources.pod_requests(pod) | {"pods": 1}).items():
        if amount > 0 and used(c, node, resource) + amount > has.get(resource, 0):
            return "room"
    return ""


def spread_selector(pod: core_v1.Pod, constraint: core_v1.TopologySpreadConstraint) -> selectors.LabelSelector:
    base = constraint.label_selector
    if base is None:
        return selectors.NOTHING
    more = [
        meta_v1.LabelSelectorRequirement(key=k, operator="In", values=[labels_of(pod)[k]])
        for k in constraint.match_label_keys or ()
        if k in labels_of(pod)
    ]
    return selectors.from_struct(
        meta_v1.LabelSelector(
            match_labels=base.match_labels, match_expressions=[*(base.match_expressions or ()), *more]
        )
    )


def counts_there(pod: core_v1.Pod, constraint: core_v1.TopologySpreadConstraint, node: core_v1.Node) -> bool:
    """Whether the node takes part in a constraint."""
    if (constraint.node_affinity_policy or "Honor") == "Honor" and not pod_matches_node(
        pod.spec, node.metadata.name, labels_of(node)
    ):
        return False
    honor = constraint.node_taints_policy == "Honor"
    return not (honor and untolerated(pod.spec.tolerations, node.spec.taints))


def matching_on(c: Cluster, pod: core_v1.Pod, selector: selectors.LabelSelector, node: core_v1.Node) -> int:
    return sum(
        p.metadata.namespace == pod.metadata.namespace
        and not p.metadata.deletion_timestamp
        and selector.matches(labels_of(p))
        for p in c.on(node.metadata.name)
    )


def spread(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    musts = [t for t in pod.spec.topology_spread_constraints or () if t.when_unsatisfiable == "DoNotSchedule"]
    keys = [t.topology_key for t in musts]
    if any(k not in labels_of(node) for k in keys):
        return "label"
    for must in musts:
        selector = spread_selector(pod, must)
        domains: dict[str, int] = {}
        for n in c.nodes.values():
            if all(k in labels_of(n) for k in keys) and counts_there(pod, must, n):
                value = labels_of(n)[must.topology_key]
                domains[value] = domains.get(value, 0) + matching_on(c, pod, selector, n)
        least = min(domains.values(), default=2**31 - 1)
        if len(domains) < (must.min_domains or 1):
            least = 0
        own = 1 if selector.matches(labels_of(pod)) else 0
        if domains.get(labels_of(node)[must.topology_key], 0) + own - least > must.max_skew:
            return "skew"
    return ""


def meant(c: Cluster, owner: core_v1.Pod, term: core_v1.PodAffinityTerm, pod: core_v1.Pod) -> bool:
    """Whether a term of ``owner`` means ``pod``."""
    if term.namespaces or term.namespace_selector is not None:
        of = pod.metadata.namespace in (term.namespaces or ())
        if not of and term.namespace_selector is not None:
            labels = c.namespaces.get(pod.metadata.namespace, {})
            of = selectors.from_struct(term.namespace_selector).matches(labels)
    else:
        of = pod.metadata.namespace == owner.metadata.namespace
    if not of or not selectors.from_struct(term.label_selector).matches(labels_of(pod)):
        return False
    mine, theirs = labels_of(owner), labels_of(pod)
    same = all(theirs.get(k) == mine[k] for k in term.match_label_keys or () if k in mine)
    return same and all(theirs.get(k) != mine[k] for k in term.mismatch_label_keys or () if k in mine)


def required(pod: core_v1.Pod, kind: str) -> list[core_v1.PodAffinityTerm]:
    rules = getattr(pod.spec.affinity, kind) if pod.spec.affinity else None
    return list((rules.required_during_scheduling_ignored_during_execution if rules else None) or ())


def preferred(pod: core_v1.Pod, kind: str) -> list[core_v1.WeightedPodAffinityTerm]:
    rules = getattr(pod.spec.affinity, kind) if pod.spec.affinity else None
    return list((rules.preferred_during_scheduling_ignored_during_execution if rules else None) or ())


def together(key: str, a: core_v1.Node, b: core_v1.Node) -> bool:
    return key in labels_of(a) and labels_of(a)[key] == labels_of(b).get(key)


def pod_affinity(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    near = required(pod, "pod_affinity")
    if near:
        friends = [(p, n) for p, n in c.placed() if all(meant(c, pod, t, p) for t in near)]
        anywhere = any(t.topology_key in labels_of(n) for _, n in friends for t in near)
        if anywhere or not all(meant(c, pod, t, pod) for t in near):
            if not all(any(together(t.topology_key, node, n) for _, n in friends) for t in near):
                return "affinity"
        elif not all(t.topology_key in labels_of(node) for t in near):
            return "affinity"
    for term in required(pod, "pod_anti_affinity"):
        if any(meant(c, pod, term, p) and together(term.topology_key, node, n) for p, n in c.placed()):
            return "anti-affinity"
    for p, n in c.placed():
        if any(meant(c, p, t, pod) and together(t.topology_key, node, n) for t in required(p, "pod_anti_affinity")):
            return "existing"
    return ""


# Storage


def claim_keys(pod: core_v1.Pod) -> list[str]:
    space = pod.metadata.namespace
    return [
        f"{space}/{v.persistent_volume_claim.claim_name}" for v in pod.spec.volumes or () if v.persistent_volume_claim
    ]


def claims_of(c: Cluster, pod: core_v1.Pod) -> list[core_v1.PersistentVolumeClaim]:
    found = [c.storage.get(("PersistentVolumeClaim", key)) for key in dict.fromkeys(claim_keys(pod))]
    return [f for f in found if f is not None]


def is_bound(claim: core_v1.PersistentVolumeClaim) -> bool:
    done = "pv.kubernetes.io/bind-completed" in (claim.metadata.annotations or {})
    return bool(claim.spec.volume_name) and done


def waits(c: Cluster, claim: core_v1.PersistentVolumeClaim) -> bool:
    found = c.storage.get(("StorageClass", claim.spec.storage_class_name))
    late = found is not None and found.volume_binding_mode == "WaitForFirstConsumer"
    return late and not claim.spec.volume_name


def volume_rejection(c: Cluster, pod: core_v1.Pod) -> str:
    """Why the pod cannot be placed anywhere, whatever the nodes."""
    for key in dict.fromkeys(claim_keys(pod)):
        if ("PersistentVolumeClaim", key) not in c.storage:
            return f'persistentvolumeclaim "{key[2:]}" not found'
    if any(not is_bound(x) and not waits(c, x) for x in claims_of(c, pod)):
        return "pod has unbound immediate PersistentVolumeClaims"
    return ""


def size(claim: core_v1.PersistentVolumeClaim) -> int:
    return quantity.value(claim.spec.resources.requests["storage"])


def reachable(volume: core_v1.PersistentVolume, node: core_v1.Node) -> bool:
    required = volume.spec.node_affinity.required if volume.spec.node_affinity else None
    return required is None or node_selector_matches(required, node.metadata.name, labels_of(node))


def volume_binding(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    """The reasons, one a line."""
    out = []
    claims = claims_of(c, pod)
    for claim in [x for x in claims if is_bound(x)]:
        volume = c.storage.get(("PersistentVolume", claim.spec.volume_name))
        if volume is None:
            out.append("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
            break
        if not reachable(volume, node):
            out.append("node(s) didn't match PersistentVolume's node affinity")
            break
    late = [x for x in claims if not is_bound(x) and waits(c, x)]
    selected = "volume.kubernetes.io/selected-node"
    pinned = [x for x in late if selected in (x.metadata.annotations or {})]
    if any(x.metadata.annotations[selected] != node.metadata.name for x in pinned):
        return "\n".join([*out, "node(s) didn't find available persistent volumes to bind"])
    to_make, used = list(pinned), set()
    for claim in sorted([x for x in late if x not in pinned], key=size):
        volume = smallest(c, claim, node, used)
        if volume is None:
            to_make.append(claim)
        else:
            used.add(volume.metadata.name)
    for claim in to_make:
        why = cannot_make(c, claim, node)
        if why:
            out.append(why)
            break
    return "\n".join(out)


def smallest(c: Cluster, claim, node: core_v1.Node, used: set[str]) -> core_v1.PersistentVolume | None:
    fitting = []
    for v in c.kept("PersistentVolume"):
        ref = v.spec.claim_ref
        mine = ref is not None and (ref.namespace, ref.name) == (claim.metadata.namespace, claim.metadata.name)
        if v.spec.storage_class_name != claim.spec.storage_class_name or v.metadata.name in used:
            continue
        if (ref is not None and not mine) or quantity.value(v.spec.capacity["storage"]) < size(claim):
            continue
        if mine:
            return v if reachable(v, node) else None
        if v.status.phase == "Available" and reachable(v, node):
            fitting.append(v)
    return min(fitting, key=lambda v: quantity.value(v.spec.capacity["storage"]), default=None)


def cannot_make(c: Cluster, claim, node: core_v1.Node) -> str:
    nothing, space = (
        "node(s) didn't find available persistent volumes to bind",
        "node(s) did not have enough free storage",
    )
    found = c.storage[("StorageClass", claim.spec.storage_class_name)]
    if found.provisioner == "kubernetes.io/no-provisioner":
        return nothing
    for term in found.allowed_topologies or ():
        if any(labels_of(node).get(e.key) not in e.values for e in term.match_label_expressions):
            return nothing
    driver = c.storage.get(("CSIDriver", found.provisioner))
    if driver is None or not driver.spec.storage_capacity:
        return ""
    for capacity in c.kept("CSIStorageCapacity"):
        there = selectors.from_struct(capacity.node_topology).matches(labels_of(node))
        if (
            there
            and capacity.storage_class_name == found.metadata.name
            and quantity.value(capacity.capacity) >= size(claim)
        ):
            return ""
    return space


def read_write_once_pod(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    disks = [v.gce_persistent_disk for v in pod.spec.volumes or () if v.gce_persistent_disk]
    for other in c.on(node.metadata.name):
        for theirs in [v.gce_persistent_disk for v in other.spec.volumes or () if v.gce_persistent_disk]:
            if any(d.pd_name == theirs.pd_name and not (d.read_only and theirs.read_only) for d in disks):
                return "node(s) had no available disk"
    for claim in claims_of(c, pod):
        key = f"{claim.metadata.namespace}/{claim.metadata.name}"
        if "ReadWriteOncePod" in claim.spec.access_modes and any(key in claim_keys(p) for p, _ in c.placed()):
            return "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
    return ""


def handles(c: Cluster, pods: list[core_v1.Pod]) -> set[str]:
    """The volumes of the driver "csi" that these pods need attached."""
    out = set()
    for pod in pods:
        for claim in claims_of(c, pod):
            volume = c.storage.get(("PersistentVolume", claim.spec.volume_name))
            found = c.storage.get(("StorageClass", claim.spec.storage_class_name))
            if volume is not None:
                out |= {volume.spec.csi.volume_handle} if volume.spec.csi else set()
            elif found is not None and found.provisioner == "csi":
                out.add(f"{claim.metadata.namespace}/{claim.metadata.name}")
    return out


def volume_limits(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    csi_node = c.storage.get(("CSINode", node.metadata.name))
    if csi_node is None:
        return ""
    most = csi_node.spec.drivers[0].allocatable.count
    here = handles(c, c.on(node.metadata.name))
    new = handles(c, [pod]) - here
    return "node(s) exceed max volume count" if new and len(here) + len(new) > most else ""


def volume_zone(c: Cluster, pod: core_v1.Pod, node: core_v1.Node) -> str:
    zone = "topology.kubernetes.io/zone"
    for claim in claims_of(c, pod):
        volume = c.storage.get(("PersistentVolume", claim.spec.volume_name))
        wanted = labels_of(volume).get(zone) if volume is not None else None
        if wanted and zone in labels_of(node) and labels_of(node)[zone] not in wanted.split("__"):
            return "node(s) had no available volume zone"
    return ""


STORAGE = {
    "VolumeRestrictions": read_write_once_pod,
    "NodeVolumeLimits": volume_limits,
    "VolumeBinding": volume_binding,
    "VolumeZone": volume_zone,
}
FILTERS = {
    "NodeUnschedulable": unschedulable,
    "TaintToleration": taints,
    "NodeAffinity": node_affinity,
    "NodePorts": ports,
    "NodeResourcesFit": fit,
    **STORAGE,
    "PodTopologySpread": spread,
    "InterPodAffinity": pod_affinity,
}

# Scores: normalised, for the nodes that are left


def scaled(raw: dict[str, float], reverse: bool = False) -> dict[str, float]:
    top = max(raw.values())
    if top == 0:
        return dict.fromkeys(raw, 100.0 if reverse else 0.0)
    out = {k: float(int(v * 100 / top)) for k, v in raw.items()}
    return {k: 100 - v for k, v in out.items()} if reverse else out


def prefers_taints(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    mine = [t for t in pod.spec.tolerations or () if t.effect in (None, "", "PreferNoSchedule")]
    return scaled(
        {
            n.metadata.name: sum(t.effect == "PreferNoSchedule" and not tolerated(mine, t) for t in n.spec.taints or ())
            for n in left
        },
        reverse=True,
    )


def prefers_nodes(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    return scaled({n.metadata.name: preferred_weight(pod.spec, n.metadata.name, labels_of(n)) for n in left})


def fractions(c: Cluster, pod: core_v1.Pod, node: core_v1.Node, nonzero: bool) -> list[tuple[int, int]]:
    """(would be used, capacity) of cpu and memory."""
    has = resources.amounts(node.status.allocatable)
    out = []
    for i, resource in enumerate(("cpu", "memory")):
        pods = [*c.on(node.metadata.name), pod]
        if nonzero:
            amount = sum(resources.nonzero_requests(p)[i] for p in pods)
        else:
            amount = sum(resources.pod_requests(p).get(resource, 0) for p in pods)
        out.append((amount, has.get(resource, 0)))
    return out


def least(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node], most: bool = False) -> dict[str, float]:
    out = {}
    for n in left:
        parts = []
        for amount, has in fractions(c, pod, n, True):
            if has:
                parts.append(min(amount, has) * 100 // has if most else max(has - amount, 0) * 100 // has)
        out[n.metadata.name] = float(sum(parts) // len(parts)) if parts else 0.0
    return out


def most(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    return least(c, pod, left, most=True)


def balanced(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    if not any(resources.pod_requests(pod).get(r) for r in ("cpu", "memory")):
        return {n.metadata.name: 0.0 for n in left}
    out = {}
    for n in left:
        parts = [min(amount / has, 1.0) for amount, has in fractions(c, pod, n, False) if has]
        deviation = abs(parts[0] - parts[1]) / 2 if len(parts) == 2 else 0.0
        out[n.metadata.name] = float(math.floor((1 - deviation) * 100))
    return out


def images(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    def size(node: core_v1.Node, image: str) -> int:
        name = image if ":" in image else image + ":latest"
        return next((i.size_bytes for i in node.status.images or () if name in i.names), 0)

    def having(image: str) -> int:
        return sum(size(n, image) > 0 for n in c.nodes.values())

    wanted = [k.image for k in pod.spec.containers]
    top = 1000 * MB * len(wanted)
    out = {}
    for n in left:
        total = sum(int(size(n, i) * (having(i) / len(c.nodes))) for i in wanted)
        out[n.metadata.name] = float((min(max(total, 23 * MB), top) - 23 * MB) * 100 // (top - 23 * MB))
    return out


def spreads(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node], strict: bool = True) -> dict[str, float]:
    """``strict``: nodes without one of the labels take no part."""
    wishes = [t for t in pod.spec.topology_spread_constraints or () if t.when_unsatisfiable == "ScheduleAnyway"]
    if not wishes:
        return {n.metadata.name: 0.0 for n in left}
    keys = [t.topology_key for t in wishes]
    taking_part = [n for n in left if not strict or all(k in labels_of(n) for k in keys)]
    raw: dict[str, float] = {}
    for n in taking_part:
        total = 0.0
        for wish in wishes:
            selector, key = spread_selector(pod, wish), wish.topology_key
            if key not in labels_of(n):
                continue
            if key == HOSTNAME:
                size, count = len(taking_part), matching_on(c, pod, selector, n)
            else:
                size = len({labels_of(m)[key] for m in taking_part if key in labels_of(m)})
                count = sum(
                    matching_on(c, pod, selector, m)
                    for m in c.nodes.values()
                    if not strict or all(k in labels_of(m) for k in keys)
                    if counts_there(pod, wish, m) and together(key, n, m)
                )
            total += count * math.log(size + 2) + wish.max_skew - 1
        raw[n.metadata.name] = math.floor(total + 0.5)
    out = {n.metadata.name: 0.0 for n in left}
    for name, value in raw.items():
        high, low = max(raw.values()), min(raw.values())
        out[name] = 100.0 if high == 0 else float(int(100 * (high + low - value) / high))
    return out


def attracts(
    c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node], hard: int = 1, ignore: bool = False
) -> dict[str, float]:
    """``ignore``: what other pods prefer does not count for a pod that prefers nothing itself."""
    wishes = bool(preferred(pod, "pod_affinity") or preferred(pod, "pod_anti_affinity"))
    raw: dict[str, int] = {}
    for n in left:
        total = 0
        for p, m in c.placed():
            for kind, sign in (("pod_affinity", 1), ("pod_anti_affinity", -1)):
                for w in preferred(pod, kind):
                    t = w.pod_affinity_term
                    total += sign * w.weight * (meant(c, pod, t, p) and together(t.topology_key, n, m))
                for w in preferred(p, kind) if wishes or not ignore else ():
                    t = w.pod_affinity_term
                    total += sign * w.weight * (meant(c, p, t, pod) and together(t.topology_key, n, m))
            for t in required(p, "pod_affinity"):
                total += hard * (meant(c, p, t, pod) and together(t.topology_key, n, m))
        raw[n.metadata.name] = total
    low, high = min(raw.values()), max(raw.values())
    return {k: float(int(100 * ((v - low) / (high - low)))) if high > low else 0.0 for k, v in raw.items()}


def attracts_strongly(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    return attracts(c, pod, left, hard=50, ignore=True)


SCORES = {
    "TaintToleration": prefers_taints,
    "NodeAffinity": prefers_nodes,
    "PodTopologySpread": spreads,
    "InterPodAffinity": attracts,
    "NodeResourcesFit": least,
    "NodeResourcesBalancedAllocation": balanced,
    "ImageLocality": images,
}


# The same plugins with other arguments, and those that are off by default

WEIGHTS = {"cpu": 3, "memory": 1, "example.com/gpu": 5}
SHAPE = [(0, 10), (40, 2), (90, 7)]


def uses(c: Cluster, pod: core_v1.Pod, node: core_v1.Node, nonzero: bool) -> list[tuple[str, int, int]]:
    """(resource, would be used, capacity) of those that a score looks at: what the node has, and the pod asks for."""
    has = resources.amounts(node.status.allocatable)
    out = []
    for name in WEIGHTS:
        pods = [*c.on(node.metadata.name), pod]
        if name in ("cpu", "memory") and nonzero:
            amount = sum(resources.nonzero_requests(p)[name == "memory"] for p in pods)
        else:
            amount = sum(resources.pod_requests(p).get(name, 0) for p in pods)
        if has.get(name) and (name in ("cpu", "memory") or resources.pod_requests(pod).get(name)):
            out.append((name, amount, has[name]))
    return out


def by_shape(use: int) -> int:
    if use <= SHAPE[0][0]:
        return SHAPE[0][1] * 10
    for (u0, s0), (u1, s1) in itertools.pairwise(SHAPE):
        if use <= u1:
            return 10 * s0 + int((10 * s1 - 10 * s0) * (use - u0) / (u1 - u0))
    return SHAPE[-1][1] * 10


def ratio(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    out = {}
    for n in left:
        total = weight = 0
        for name, amount, has in uses(c, pod, n, True):
            score = by_shape(100 if amount > has else amount * 100 // has)
            if score > 0:
                total, weight = total + score * WEIGHTS[name], weight + WEIGHTS[name]
        out[n.metadata.name] = math.floor(total / weight + 0.5) if weight else 0.0
    return out


def least_weighted(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    out = {}
    for n in left:
        found = uses(c, pod, n, True)
        weight = sum(WEIGHTS[name] for name, _, _ in found)
        total = sum(WEIGHTS[name] * (max(has - amount, 0) * 100 // has) for name, amount, has in found)
        out[n.metadata.name] = float(total // weight) if weight else 0.0
    return out


def balanced_over_three(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    asked = resources.pod_requests(pod)
    out = {}
    for n in left:
        parts = [min(amount / has, 1.0) for _, amount, has in uses(c, pod, n, False)]
        mean = sum(parts) / max(len(parts), 1)
        deviation = math.sqrt(sum((p - mean) ** 2 for p in parts) / max(len(parts), 1))
        if len(parts) == 2:  # their standard deviation, computed as upstream does
            deviation = abs(parts[0] - parts[1]) / 2
        out[n.metadata.name] = float(math.floor((1 - deviation) * 100)) if any(asked.get(r) for r in WEIGHTS) else 0.0
    return out


def swarm_spread(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    return scaled({n.metadata.name: len(c.on(n.metadata.name)) for n in left}, reverse=True)


def swarm_binpack(c: Cluster, pod: core_v1.Pod, left: list[core_v1.Node]) -> dict[str, float]:
    out = {}
    for n in left:
        parts = [min(amount, has) / max(has, 1) * 50 for amount, has in fractions(c, pod, n, False)]
        out[n.metadata.name] = float(math.floor(sum(parts)))
    return out


def marathon(c: Cluster, pod: core_v1.Pod, node: core_v1.Node, constraint: list[str]) -> bool:
    """Whether a constraint lets another instance (a pod of equal labels) run there."""
    key, operator, *rest = constraint
    values = {n.metadata.name: labels_of(n).get(key) for n in c.nodes.values()}
    counts = dict.fromkeys([v for v in values.values() if v is not None], 0)
    for p, n in c.placed():
        alike = all(labels_of(p).get(k) == v for k, v in labels_of(pod).items())
        same = p.metadata.namespace == pod.metadata.namespace and alike and not p.metadata.deletion_timestamp
        if same and values[n.metadata.name] is not None:
            counts[values[n.metadata.name]] += 1
    own = values[node.metadata.name]
    if operator == "CLUSTER" and rest:
        return own == rest[0]
    if operator in ("LIKE", "UNLIKE"):
        return (own == rest[0]) == (operator == "LIKE")
    if own is None:
        return False
    if operator == "UNIQUE":
        return counts[own] == 0
    if operator == "MAX_PER":
        return counts[own] < int(rest[0])
    if operator == "CLUSTER":
        return counts[own] > 0 or not any(counts.values())
    groups = int(rest[0]) if rest else 1
    return counts[own] <= (min(counts.values()) if len(counts) >= groups else 0)
