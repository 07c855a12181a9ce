"""The facts about a pod that scheduling needs, worked out once when it is first seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec

from navarch.api import resources, selectors
from navarch.api.pods import all_containers, is_sidecar
from navarch.api.selectors import LabelSelector, Requirement
from navarch.api.times import parse_time
from navarch.api.types import core_v1, meta_v1

LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"
"""The field selector of the pods that scheduling looks at."""

HostPort = tuple[str, int, str]
"""(protocol, port, host address); the address "0.0.0.0" stands for all."""

Labels = Mapping[str, str]

_encode = msgspec.json.Encoder(order="sorted").encode
_encode_as_is = msgspec.json.Encoder().encode


class PodSelector(NamedTuple):
    """Some pods: of these namespaces (or of those that match a selector), with labels that match."""

    namespaces: tuple[str, ...]
    namespace_selector: LabelSelector | None
    selector: LabelSelector

    def matches(self, namespace: str, labels: Labels, namespaces: Mapping[str, Labels]) -> bool:
        """``namespaces`` gives the labels of each namespace."""
        if not self.selector.matches(labels):
            return False
        if namespace in self.namespaces:
            return True
        of = self.namespace_selector
        return of is not None and of.matches(namespaces.get(namespace, {}))


class Term(NamedTuple):
    """A term of pod affinity or anti-affinity."""

    pods: PodSelector
    topology_key: str


class Terms(NamedTuple):
    """All of a pod's terms; preferred ones with their weights, anti-affinity's negative."""

    affinity: tuple[Term, ...] = ()
    anti_affinity: tuple[Term, ...] = ()
    preferred: tuple[tuple[int, Term], ...] = ()


NO_TERMS = Terms()


class ClaimUse(NamedTuple):
    """A claim that a pod uses, by ``namespace/name``; ``ephemeral``: it is made for this pod alone."""

    key: str
    ephemeral: bool = False


class Disk(NamedTuple):
    """A disk that a pod names in its spec, of a kind that cannot be mounted twice. ``monitors``: a cluster's (RBD)."""

    kind: str
    id: str
    read_only: bool = False
    monitors: tuple[str, ...] = ()


MAX_AMOUNT = 1 << 55


def saturated(amount: int) -> int:
    """An amount that columns of int64 can add up and multiply by a hundred. Quantities may be anything: 2**55 bytes, or
    millicores, and more are all the same to us."""
    return max(-MAX_AMOUNT, min(MAX_AMOUNT, amount))


class Shape:
    """The common part of the pods of one template, worked out once for all of them. ``requests`` in millicores and base
    units, ``pods`` (always 1) included; ``likeness`` is equal for pods that scheduling cannot tell apart."""

    __slots__ = ("__dict__", "claims", "disks", "host_ports", "likeness", "nonzero", "requests", "spec", "terms")

    def __init__(self, pod: core_v1.Pod, likeness: bytes) -> None:
        self.spec = pod.spec
        self.likeness = likeness
        self.requests = {r: saturated(n) for r, n in resources.pod_requests(pod).items()} | {"pods": 1}
        cpu, memory = resources.nonzero_requests(pod)
        self.nonzero = saturated(cpu), saturated(memory)
        self.host_ports = host_ports(pod)
        self.terms = terms(pod)
        self.claims, self.disks = storage(pod) if pod.spec.volumes else ((), ())

    def naming(self, pod: core_v1.Pod, likeness: bytes) -> Shape:
        """The shape of a pod that differs from those of this shape in the nodes that it names only."""
        shape = Shape.__new__(Shape)
        shape.spec, shape.likeness = pod.spec, likeness
        shape.requests, shape.nonzero, shape.host_ports = self.requests, self.nonzero, self.host_ports
        shape.terms, shape.claims, shape.disks = self.terms, self.claims, self.disks
        return shape

    @cached_property
    def images(self) -> tuple[str, ...]:
        return tuple(normalized_image(c.image or "") for c in all_containers(self.spec))

    @cached_property
    def choice(self) -> bytes:
        return _encode([self.spec.node_selector, self.spec.affinity.node_affinity if self.spec.affinity else None])

    @cached_property
    def tolerance(self) -> bytes:
        return _encode(self.spec.tolerations)


def chosen_by_name(spec: core_v1.PodSpec) -> list[str] | None:
    """The only nodes that required node affinity leaves, if every term of it names nodes."""
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is None:
        return None
    names: dict[str, None] = {}
    for term in required.node_selector_terms:
        here = [f.values or () for f in term.match_fields or () if f.key == "metadata.name" and f.operator == "In"]
        if not here:
            return None
        names |= dict.fromkeys(here[0])
    return list(names)


_shapes: dict[bytes, Shape] = {}  # of the pods seen last; a shape follows from its key alone
MAX_SHAPES = 4096


def shape_of(pod: core_v1.Pod) -> Shape:
    """The shape of a pod, shared by those that are alike in all that scheduling looks at. Those that name their nodes
    share what does not follow from the names."""
    meta, spec = pod.metadata, pod.spec
    owners = [(o.kind, o.name) for o in meta.owner_references or () if o.controller]
    volumes = [v for v in spec.volumes or () if not (v.projected or v.config_map or v.secret or v.empty_dir)]
    names = meta.name if volumes else ""  # of which ephemeral claims are made
    affinity = spec.affinity
    names_nodes = chosen_by_name(spec) is not None
    rest = (affinity.pod_affinity, affinity.pod_anti_affinity, "named") if affinity and names_nodes else affinity
    key = _encode_as_is(
        (
            meta.namespace, meta.labels, owners, names, volumes,
            [(c.image, c.resources, c.ports, c.restart_policy) for c in spec.init_containers or ()],
            [(c.image, c.resources, c.ports) for c in spec.containers],
            spec.resources, spec.overhead, spec.node_selector, rest, spec.tolerations,
            spec.topology_spread_constraints, spec.node_name, spec.priority, spec.resource_claims,
        )
    )  # fmt: skip
    shape = _shapes.get(key)
    if shape is None:
        if len(_shapes) >= MAX_SHAPES:
            _shapes.clear()
        shape = _shapes[key] = Shape(pod, key)
    if affinity and names_nodes:
        return shape.naming(pod, key + _encode_as_is(affinity.node_affinity))
    return shape


class PodInfo:
    """A pod and its derived facts (see Shape)."""

    __slots__ = (
        "__dict__", "claims", "disks", "host_ports", "labels", "namespace", "nonzero", "pod", "requests", "shape", "terms",
        "uid",
    )  # fmt: skip

    def __init__(self, pod: core_v1.Pod) -> None:
        self.pod = pod
        meta = pod.metadata
        self.uid = meta.uid or ""
        self.namespace = meta.namespace or ""
        self.labels: Labels = meta.labels or {}
        self.shape = shape = shape_of(pod)
        self.requests, self.nonzero, self.host_ports = shape.requests, shape.nonzero, shape.host_ports
        self.terms, self.claims, self.disks = shape.terms, shape.claims, shape.disks

    def renew(self, pod: core_v1.Pod) -> None:
        """Takes a later state of the pod, of the same shape and labels."""
        self.pod = pod
        self.__dict__.clear()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.pod.metadata.name}"

    @property
    def profile(self) -> str:
        """The name of the profile that schedules it."""
        return self.pod.spec.scheduler_name or "default-scheduler"

    @property
    def priority(self) -> int:
        return self.pod.spec.priority or 0

    @property
    def terminating(self) -> bool:
        return self.pod.metadata.deletion_timestamp is not None

    @cached_property
    def started(self) -> float:
        """Unix time since when it runs or, if it does not, exists."""
        text = self.pod.status.start_time or self.pod.metadata.creation_timestamp
        return parse_time(text) if text else 0.0

    @cached_property
    def importance(self) -> tuple[float, float, str]:
        """Sort key: of higher priority, then longer running, first."""
        return -self.priority, self.started, self.uid

    @property
    def images(self) -> tuple[str, ...]:
        """The images of all containers, as nodes report them."""
        return self.shape.images

    @property
    def choice(self) -> bytes:
        """Equal for pods that choose nodes alike: by node selector and node affinity."""
        return self.shape.choice

    @property
    def tolerance(self) -> bytes:
        """Equal for pods that tolerate the same taints."""
        return self.shape.tolerance

    @property
    def likeness(self) -> bytes:
        """Equal for pods that scheduling cannot tell apart."""
        return self.shape.likeness


def storage(pod: core_v1.Pod) -> tuple[tuple[ClaimUse, ...], tuple[Disk, ...]]:
    """The claims and the disks of a pod's volumes."""
    claims: list[ClaimUse] = []
    disks: list[Disk] = []
    namespace, name = pod.metadata.namespace or "", pod.metadata.name
    for v in pod.spec.volumes or ():
        if v.persistent_volume_claim:
            claims.append(ClaimUse(f"{namespace}/{v.persistent_volume_claim.claim_name}"))
        elif v.ephemeral:
            claims.append(ClaimUse(f"{namespace}/{name}-{v.name}", True))
        elif v.gce_persistent_disk:
            disks.append(Disk("gce", v.gce_persistent_disk.pd_name, bool(v.gce_persistent_disk.read_only)))
        elif v.aws_elastic_block_store:
            disks.append(Disk("aws", v.aws_elastic_block_store.volume_id))  # not even read-only twice
        elif v.iscsi:
            disks.append(Disk("iscsi", v.iscsi.iqn, bool(v.iscsi.read_only)))
        elif v.rbd:
            where = f"{v.rbd.pool or 'rbd'}/{v.rbd.image}"
            disks.append(Disk("rbd", where, bool(v.rbd.read_only), tuple(v.rbd.monitors)))
    return tuple(claims), tuple(disks)


def host_ports(pod: core_v1.Pod) -> tuple[HostPort, ...]:
    """Of the containers that run all the time: not of init containers that end."""
    return tuple(
        (p.protocol or "TCP", p.host_port, p.host_ip or "0.0.0.0")
        for c in [*filter(is_sidecar, pod.spec.init_containers or ()), *pod.spec.containers]
        for p in c.ports or ()
        if p.host_port
    )


def normalized_image(name: str) -> str:
    """With the tag that an image without tag or digest stands for."""
    return name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest"


def narrowed(
    selector: meta_v1.LabelSelector | None,
    labels: Labels,
    same: Sequence[str] | None,
    other: Sequence[str] | None = None,
) -> LabelSelector:
    """A selector with matchLabelKeys and mismatchLabelKeys put in, for a pod of these labels (KEPs 3243 and 3633)."""
    narrowed_selector = selectors.from_struct(selector)
    more = [Requirement(k, "in", (labels[k],)) for k in same or () if k in labels]
    more += [Requirement(k, "notin", (labels[k],)) for k in other or () if k in labels]
    if not more or narrowed_selector.nothing:
        return narrowed_selector
    return LabelSelector(tuple(sorted({*narrowed_selector.requirements, *more}, key=lambda r: (r.key, r.operator, r.values))))


def terms(pod: core_v1.Pod) -> Terms:
    affinity = pod.spec.affinity
    if affinity is None or not (affinity.pod_affinity or affinity.pod_anti_affinity):
        return NO_TERMS
    namespace, labels = pod.metadata.namespace or "", pod.metadata.labels or {}

    def term(t: core_v1.PodAffinityTerm) -> Term:
        namespaces = tuple(sorted(t.namespaces or ()))
        of = None if t.namespace_selector is None else selectors.from_struct(t.namespace_selector)
        if not namespaces and of is None:
            namespaces = (namespace,)
        chosen = narrowed(t.label_selector, labels, t.match_label_keys, t.mismatch_label_keys)
        return Term(PodSelector(namespaces, of, chosen), t.topology_key)

    required: list[tuple[Term, ...]] = []
    preferred: list[tuple[int, Term]] = []
    for rules, sign in ((affinity.pod_affinity, 1), (affinity.pod_anti_affinity, -1)):
        musts = (rules.required_during_scheduling_ignored_during_execution if rules else None) or ()
        wishes = (rules.preferred_during_scheduling_ignored_during_execution if rules else None) or ()
        required.append(tuple(term(t) for t in musts))
        preferred += [(sign * w.weight, term(w.pod_affinity_term)) for w in wishes if w.pod_affinity_term]
    return Terms(required[0], required[1], tuple(preferred))
