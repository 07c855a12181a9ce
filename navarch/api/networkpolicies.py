"""NetworkPolicies as rules on pods, and one plain answer: may this packet pass, and which policies say so.

The proxy turns :class:`Policy` into nftables (proxy/policyrules.py); ``navarch why connect`` asks :func:`decide`, which is
also the reference that the proxy's rules are tested against. Semantics are those of networking.k8s.io/v1:

- A pod is isolated in a direction if any policy of that direction selects it; then only what some policy allows may pass.
- A connection needs the leave of both ends: the egress of its source and the ingress of its target.
- A pod may always talk to itself, and its own node may always talk to it, and it to its own node.
- Pods on their node's network are no pods to a policy, neither as subject nor as peer: their traffic is the node's.
- A port by name is the port of that name of the pod that is the target.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import msgspec

from navarch.api import selectors
from navarch.api.pods import TERMINAL_PHASES, is_sidecar
from navarch.api.selectors import LabelSelector
from navarch.api.types import core_v1, networking_v1
from navarch.api.types.base import Struct

INGRESS, EGRESS = "Ingress", "Egress"
PROTOCOLS = ("TCP", "UDP", "SCTP")
MAX_PORT = 65535

Labels = Mapping[str, str]


# A pod as policies see it: a twentieth of what a whole Pod takes in memory, on every node for every pod.


class SlimContainer(Struct, kw_only=True):
    ports: list[core_v1.ContainerPort] | None = None
    restart_policy: str | None = msgspec.field(default=None, name="restartPolicy")


class SlimPodSpec(Struct, kw_only=True):
    node_name: str | None = msgspec.field(default=None, name="nodeName")
    host_network: bool | None = msgspec.field(default=None, name="hostNetwork")
    containers: list[SlimContainer] | None = None
    init_containers: list[SlimContainer] | None = msgspec.field(default=None, name="initContainers")


class SlimPodStatus(Struct, kw_only=True):
    phase: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")


class SlimMetadata(Struct, kw_only=True):
    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = msgspec.field(default=None, name="resourceVersion")
    labels: dict[str, str] | None = None


class SlimPod(Struct, kw_only=True):
    """A Pod of which only what policies ask for is decoded."""

    _gvk_ = ("", "v1", "Pod")
    metadata: SlimMetadata = msgspec.field(default_factory=SlimMetadata)
    spec: SlimPodSpec = msgspec.field(default_factory=SlimPodSpec)
    status: SlimPodStatus = msgspec.field(default_factory=SlimPodStatus)


@dataclass(frozen=True)
class Member:
    """A pod that has a network and an address of its own; ``ports``: (name, protocol, number) of its containers."""

    namespace: str
    name: str
    address: str
    node: str = ""
    labels: Labels = field(default_factory=dict)
    ports: tuple[tuple[str, str, int], ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def member_of(pod: SlimPod | core_v1.Pod) -> Member | None:
    """The pod as policies see it; None for one without an address of its own: not yet, no longer, or its node's."""
    address = ipv4(pod.status.pod_ip or "")
    if pod.spec.host_network or not address or pod.status.phase in TERMINAL_PHASES:
        return None
    sidecars = [c for c in pod.spec.init_containers or () if is_sidecar(cast(core_v1.Container, c))]
    ports = [
        (port.name, port.protocol or "TCP", port.container_port)
        for container in [*sidecars, *(pod.spec.containers or ())]
        for port in container.ports or ()
        if port.name and 0 < port.container_port <= MAX_PORT
    ]
    meta = pod.metadata
    return Member(
        meta.namespace or "", meta.name or "", address, pod.spec.node_name or "",
        meta.labels or {}, tuple(dict.fromkeys(ports)),
    )  # fmt: skip


def ipv4(text: str) -> str:
    """The IPv4 address in its usual form; "" for anything else."""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        return ""


@dataclass(frozen=True)
class PodPeer:
    """Pods by labels in one namespace, or, with ``namespace`` "", in namespaces by labels."""

    pods: LabelSelector
    namespace: str = ""
    namespaces: LabelSelector = selectors.NOTHING

    def has_namespace(self, name: str, labels: Labels | None) -> bool:
        """``labels`` is None for a namespace that is not known (yet): no selector takes it."""
        if self.namespace:
            return name == self.namespace
        return labels is not None and self.namespaces.matches(labels)

    def has(self, member: Member, namespace_labels: Labels | None) -> bool:
        return self.has_namespace(member.namespace, namespace_labels) and self.pods.matches(member.labels)


@dataclass(frozen=True)
class Ports:
    """Ports of one protocol: from ``low`` to ``high``, or by name."""

    protocol: str
    low: int = 1
    high: int = MAX_PORT
    name: str = ""

    @property
    def every(self) -> bool:
        return not self.name and (self.low, self.high) == (1, MAX_PORT)


@dataclass(frozen=True)
class Rule:
    """One entry of ingress or egress. ``pods`` and ``blocks`` together are its peers; ``anyone``: it names none.
    ``ports``: None for all traffic, whatever its protocol. ``blocks`` have their exceptions taken out already."""

    anyone: bool
    pods: tuple[PodPeer, ...] = ()
    blocks: tuple[ipaddress.IPv4Network, ...] = ()
    ports: tuple[Ports, ...] | None = None


@dataclass(frozen=True)
class Policy:
    """A NetworkPolicy. ``ingress`` and ``egress`` are None for a direction that it does not speak of."""

    namespace: str
    name: str
    pods: LabelSelector
    ingress: tuple[Rule, ...] | None = None
    egress: tuple[Rule, ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def rules(self, direction: str) -> tuple[Rule, ...] | None:
        return self.ingress if direction == INGRESS else self.egress

    def selects(self, member: Member, direction: str) -> bool:
        if self.rules(direction) is None or member.namespace != self.namespace:
            return False
        return self.pods.matches(member.labels)


def policy_of(policy: networking_v1.NetworkPolicy) -> Policy:
    """The policy of an object. Raises SelectorError for a selector that the API server would not have let in."""
    spec, namespace = policy.spec, policy.metadata.namespace or ""
    types = spec.policy_types or ([INGRESS, EGRESS] if spec.egress else [INGRESS])
    ingress = [(rule.from_, rule.ports) for rule in spec.ingress or ()]
    egress = [(rule.to, rule.ports) for rule in spec.egress or ()]
    return Policy(
        namespace,
        policy.metadata.name or "",
        selectors.from_struct(spec.pod_selector) if spec.pod_selector is not None else selectors.EVERYTHING,
        tuple(_rule(namespace, *one) for one in ingress) if INGRESS in types else None,
        tuple(_rule(namespace, *one) for one in egress) if EGRESS in types else None,
    )


def _rule(
    namespace: str,
    peers: list[networking_v1.NetworkPolicyPeer] | None,
    ports: list[networking_v1.NetworkPolicyPort] | None,
) -> Rule:
    pods, blocks = [], []
    for peer in peers or ():
        if peer.ip_block is not None:
            blocks += block_of(peer.ip_block)
        elif peer.namespace_selector is None:
            pods.append(PodPeer(selectors.from_struct(peer.pod_selector), namespace))
        else:
            inner = selectors.EVERYTHING if peer.pod_selector is None else selectors.from_struct(peer.pod_selector)
            pods.append(PodPeer(inner, "", selectors.from_struct(peer.namespace_selector)))
    every = [port for one in ports or () if (port := _ports(one)) is not None]
    return Rule(
        not peers,
        tuple(dict.fromkeys(pods)),
        tuple(ipaddress.collapse_addresses(blocks)),
        tuple(dict.fromkeys(every)) if ports else None,
    )


def _ports(port: networking_v1.NetworkPolicyPort) -> Ports | None:
    protocol = port.protocol or "TCP"
    if protocol not in PROTOCOLS:
        return None
    if port.port is None:
        return Ports(protocol)
    if isinstance(port.port, str):
        return Ports(protocol, 0, 0, port.port)
    low, high = max(port.port, 1), min(port.end_port or port.port, MAX_PORT)
    return Ports(protocol, low, high) if low <= high else None


def block_of(block: networking_v1.IPBlock) -> list[ipaddress.IPv4Network]:
    """The networks of a block less its exceptions. Of IPv6 there are none: pods have no such addresses."""
    try:
        remaining = [ipaddress.IPv4Network(block.cidr, strict=False)]
    except ValueError:
        return []
    for text in block.except_ or ():
        try:
            hole = ipaddress.IPv4Network(text, strict=False)
        except ValueError:
            continue
        rest: list[ipaddress.IPv4Network] = []
        for network in remaining:
            if hole.supernet_of(network):
                continue
            rest += network.address_exclude(hole) if network.supernet_of(hole) else [network]
        remaining = rest
    return remaining


# One packet


@dataclass(frozen=True)
class Party:
    """One end of a connection. ``member``: the pod with that address; ``node``: the node whose own address it is."""

    address: str
    member: Member | None = None
    node: str = ""

    @classmethod
    def pod(cls, member: Member) -> Party:
        return cls(member.address, member)


@dataclass(frozen=True)
class Side:
    """The word of one end's policies. ``isolating``: policies that select the pod; ``allowing``: (policy, number of its
    rule) pairs that let the connection pass. ``exempt``: why no policy was asked, "" if they were."""

    direction: str
    allowed: bool
    isolating: tuple[str, ...] = ()
    allowing: tuple[tuple[str, int], ...] = ()
    exempt: str = ""


@dataclass(frozen=True)
class Decision:
    egress: Side
    ingress: Side

    @property
    def allowed(self) -> bool:
        return self.egress.allowed and self.ingress.allowed


@dataclass
class Cluster:
    """All that a decision depends on: policies, labels of namespaces."""

    policies: list[Policy] = field(default_factory=list)
    namespaces: dict[str, Labels] = field(default_factory=dict)


def decide(cluster: Cluster, source: Party, target: Party, protocol: str, port: int) -> Decision:
    """Whether ``source`` may open a connection to ``port`` of ``target`` (after services are resolved: addresses are those
    of pods). ``protocol`` is one of PROTOCOLS, or another with port 0, which only rules without ports let pass."""
    return Decision(
        _side(cluster, EGRESS, source, target, target, protocol, port),
        _side(cluster, INGRESS, target, source, target, protocol, port),
    )


def _side(
    cluster: Cluster, direction: str, own: Party, other: Party, target: Party, protocol: str, port: int
) -> Side:
    if own.member is None:
        return Side(direction, True, exempt="no policy selects what is no pod, or is on its node's network")
    if other.member is not None and other.member.key == own.member.key:
        return Side(direction, True, exempt="a pod may always reach itself")
    if other.member is None and other.node and other.node == own.member.node:
        return Side(direction, True, exempt="a pod's own node may always reach it, and be reached by it")
    selecting = [p for p in cluster.policies if p.selects(own.member, direction)]
    if not selecting:
        return Side(direction, True)
    allowing = tuple(
        (policy.key, number)
        for policy in selecting
        for number, rule in enumerate(policy.rules(direction) or ())
        if _passes(cluster, rule, other, target, protocol, port)
    )
    return Side(direction, bool(allowing), tuple(p.key for p in selecting), allowing)


def _passes(cluster: Cluster, rule: Rule, other: Party, target: Party, protocol: str, port: int) -> bool:
    if not rule.anyone and not _is_peer(cluster, rule, other):
        return False
    return rule.ports is None or any(_is_port(ports, target.member, protocol, port) for ports in rule.ports)


def _is_peer(cluster: Cluster, rule: Rule, other: Party) -> bool:
    member = other.member
    if member is not None and any(p.has(member, cluster.namespaces.get(member.namespace)) for p in rule.pods):
        return True
    address = ipaddress.IPv4Address(other.address)
    return any(address in block for block in rule.blocks)


def _is_port(ports: Ports, member: Member | None, protocol: str, port: int) -> bool:
    if ports.protocol != protocol:
        return False
    if ports.name:
        return member is not None and (ports.name, protocol, port) in member.ports
    return ports.low <= port <= ports.high
