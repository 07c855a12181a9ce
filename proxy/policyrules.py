"""From NetworkPolicies, namespaces and pods to rules of the table ``navarch-policy``: pure, and only as much as changed.

A packet that is routed through the node meets two questions, one a pod that is on this node:

    out    the source's address -> the chain of its profile for egress, if any policy isolates it in that direction
    in     the target's address -> the same for ingress

A profile is a set of policies; pods that the same policies select share it. Its chain goes through the policies' chains,
each of which lets the packet go on to the next question (egress) or pass (ingress), and drops what none of them allowed.
Peers are sets of addresses, one a selector however many policies have it. So a pod that comes, goes or changes its
labels changes a few elements and no chain.

Every packet is asked about, not only the first of a connection: what is denied from now on is cut at once. Answers to an
allowed connection pass since they are asked about as what they answer: conntrack tells their direction, and the maps
``out-reply`` and ``in-reply`` lead to chains with source and target exchanged. The hook is after DNAT and before SNAT, in
both directions, so addresses are those of pods.

``handled`` are this node's pods whose policies are in force. Packets of a pod that is not (yet) among them are dropped
while there are policies at all: a new pod is isolated before it can send anything.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from navarch.api.networkpolicies import EGRESS, INGRESS, MAX_PORT, Labels, Member, PodPeer, Policy, Ports, Rule
from proxy.nftables import Layout
from proxy.rules import Rules

T = TypeVar("T")
Profile = tuple[str, tuple[str, ...]]  # a direction, and the keys of the policies that isolate a pod in it

TABLE = "ip navarch-policy"
RESOLVER_PORT = 53

SKELETON = f"""\
add table {TABLE}
delete table {TABLE}
add table {TABLE}
add set {TABLE} guarded {{ type ipv4_addr; flags interval; }}
add set {TABLE} handled {{ type ipv4_addr; }}
add set {TABLE} isolated {{ type ipv4_addr; }}
add set {TABLE} itself {{ type ipv4_addr . ipv4_addr; }}
add set {TABLE} resolver {{ type ipv4_addr . inet_proto . inet_service; }}
add map {TABLE} out {{ type ipv4_addr : verdict; }}
add map {TABLE} in {{ type ipv4_addr : verdict; }}
add map {TABLE} out-reply {{ type ipv4_addr : verdict; }}
add map {TABLE} in-reply {{ type ipv4_addr : verdict; }}
add chain {TABLE} target
add rule {TABLE} target ip daddr vmap @in
add rule {TABLE} target accept
add chain {TABLE} request
add rule {TABLE} request ip saddr vmap @out
add rule {TABLE} request goto target
add chain {TABLE} target-reply
add rule {TABLE} target-reply ip saddr vmap @in-reply
add rule {TABLE} target-reply accept
add chain {TABLE} reply
add rule {TABLE} reply ip daddr vmap @out-reply
add rule {TABLE} reply goto target-reply
add chain {TABLE} forward {{ type filter hook forward priority filter - 5; }}
add rule {TABLE} forward ip saddr . ip daddr @itself accept
add rule {TABLE} forward ip saddr @guarded ip saddr != @handled drop
add rule {TABLE} forward ip daddr @guarded ip daddr != @handled drop
add rule {TABLE} forward meta l4proto icmp ct state related accept
add rule {TABLE} forward ct direction original goto request
add rule {TABLE} forward ct direction reply goto reply
add rule {TABLE} forward ip saddr @isolated drop
add rule {TABLE} forward ip daddr @isolated drop
add chain {TABLE} input {{ type filter hook input priority filter - 5; }}
add rule {TABLE} input ip daddr . meta l4proto . th dport @resolver ip saddr @guarded ip saddr != @handled drop
add rule {TABLE} input ct direction original ip daddr . meta l4proto . th dport @resolver goto request
"""
LAYOUT = Layout(TABLE, SKELETON)


@dataclass(frozen=True)
class Here:
    """This node: its name, the range of its pods, and the address at which it answers DNS ("" for none)."""

    node: str
    pods: str = ""
    resolver: str = ""

    def resolver_pod(self) -> Member | None:
        """The node's resolver as a pod of kube-system with the labels of the cluster's DNS: it takes the place of DNS
        pods, and policies that let pods ask these are to let them ask it."""
        if not self.resolver:
            return None
        ports = (("dns", "UDP", RESOLVER_PORT), ("dns-tcp", "TCP", RESOLVER_PORT))
        return Member("kube-system", "(resolver)", self.resolver, "", {"k8s-app": "kube-dns"}, ports)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def peer_set(peer: PodPeer) -> str:
    return "peer-" + digest(f"{peer.namespace}|{peer.namespaces}|{peer.namespaces.nothing}|{peer.pods}|{peer.pods.nothing}")


def port_set(name: str, protocol: str) -> str:
    return f"port-{protocol.lower()}-{name}"


def policy_chain(policy: Policy, direction: str, reply: bool) -> str:
    readable = re.sub(r"[^A-Za-z0-9/_.-]", "-", policy.key)[:80]
    return f"{_short(direction)}{'-reply' if reply else ''}-{digest(policy.key)}-{readable}"


def profile_chain(policies: Iterable[str], direction: str, reply: bool) -> str:
    return f"{_short(direction)}{'-reply' if reply else ''}-of-{digest(' '.join(policies))}"


def _short(direction: str) -> str:
    return "in" if direction == INGRESS else "out"


def policy_rules(policy: Policy) -> Rules:
    """The chains of a policy, two for each direction that it speaks of."""
    rules = Rules()
    for direction in (INGRESS, EGRESS):
        entries = policy.rules(direction)
        if entries is None:
            continue
        for reply in (False, True):
            lines = dict.fromkeys(line for rule in entries for line in _lines(rule, direction, reply))
            rules.chains[policy_chain(policy, direction, reply)] = tuple(lines)
    return rules


def _lines(rule: Rule, direction: str, reply: bool) -> list[str]:
    """Lists what a rule lets pass: conditions, each of which ends in a verdict."""
    verdict = "accept" if direction == INGRESS else f"goto {'target-reply' if reply else 'target'}"
    peer_is_source = (direction == INGRESS) != reply
    address = "ip saddr" if peer_is_source else "ip daddr"
    peers = [""] if rule.anyone else [f"{address} @{peer_set(peer)} " for peer in rule.pods]
    if rule.blocks and not rule.anyone:
        peers.append(f"{address} {{ {', '.join(map(str, rule.blocks))} }} ")
    return [f"{peer}{port}{verdict}" for peer in peers for port in _port_conditions(rule.ports, reply)]


def _port_conditions(ports: tuple[Ports, ...] | None, reply: bool) -> list[str]:
    if ports is None:
        return [""]
    out = []
    address, number = ("ip saddr", "th sport") if reply else ("ip daddr", "th dport")  # where the target's port stands
    for protocol in dict.fromkeys(p.protocol for p in ports):
        own = [p for p in ports if p.protocol == protocol]
        head = f"meta l4proto {protocol.lower()} "
        if any(p.every for p in own):
            out.append(head)
            continue
        if ranges := merged((p.low, p.high) for p in own if not p.name):
            listed = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
            out.append(f"{head}{number} {{ {listed} }} ")
        out += [f"{head}{address} . {number} @{port_set(p.name, protocol)} " for p in own if p.name]
    return out


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in ranges that neither overlap nor touch: nftables refuses those that do."""
    out: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1] + 1:
            out[-1] = (out[-1][0], max(out[-1][1], high))
        else:
            out.append((low, min(high, MAX_PORT)))
    return out


def _selectors(policy: Policy | None) -> tuple[set[PodPeer], set[tuple[str, str]]]:
    """The peers and the names of ports (name, protocol) that a policy asks for."""
    rules = [*(policy.ingress or ()), *(policy.egress or ())] if policy is not None else []
    peers = {peer for rule in rules if not rule.anyone for peer in rule.pods}
    return peers, {(p.name, p.protocol) for rule in rules for p in rule.ports or () if p.name}


class Compiler:
    """Follows policies, namespaces and pods; :meth:`changes` gives the new rules of all owners that something changed for.

    Owners are a policy, a profile, a set, a pod, and ``gate``: whatever there is as soon as there is any policy.
    """

    def __init__(self, here: Here) -> None:
        self.here = here
        self.policies: dict[str, Policy] = {}
        self.namespaces: dict[str, Labels] = {}
        self.pods: dict[str, Member] = {}
        self._policies_of: dict[str, dict[str, Policy]] = {}  # namespace -> key -> policy
        self._pods_of: dict[str, dict[str, Member]] = {}
        self._peers: Counter[PodPeer] = Counter()  # how many policies ask for each
        self._near: dict[str, dict[PodPeer, None]] = {}  # peers of one namespace
        self._far: dict[PodPeer, None] = {}  # peers of namespaces by labels
        self._ports: Counter[tuple[str, str]] = Counter()
        self._profiles: Counter[Profile] = Counter()  # (direction, policies) -> pods that have it
        self._profiles_of: dict[str, tuple[Profile, ...]] = {}  # pod -> its profiles
        self._dirty_pods: dict[str, None] = {}
        self._dirty: dict[str, Rules] = {}
        self._gate = False
        self.put_here(here)

    def put_here(self, here: Here) -> None:
        """The node's own range or address became known."""
        self.here, resolver = here, here.resolver_pod()
        self.put_pod("kube-system/(resolver)", resolver)
        self._dirty["gate"] = self._gate_rules() if self._gate else Rules()

    def put_policy(self, key: str, policy: Policy | None) -> None:
        old = self.policies.get(key)
        if old == policy:
            return
        self._count(old, policy)
        for one in (old, policy):
            if one is not None:
                for pod_key, member in self._pods_of.get(one.namespace, {}).items():
                    if self.is_local(member) and one.pods.matches(member.labels):
                        self._dirty_pods[pod_key] = None
        _keep(self.policies, key, policy)
        namespace = key.partition("/")[0]
        _keep(self._policies_of.setdefault(namespace, {}), key, policy)
        self._dirty[f"policy:{key}"] = Rules() if policy is None else policy_rules(policy)
        if self._gate != bool(self.policies):
            self._gate = not self._gate
            self._dirty["gate"] = self._gate_rules() if self._gate else Rules()
            self._dirty_pods |= dict.fromkeys(k for k, m in self.pods.items() if self.is_local(m))

    def _count(self, old: Policy | None, new: Policy | None) -> None:
        """Takes note of the peers and ports that a policy asks for now, and no longer."""
        peers_before, ports_before = _selectors(old)
        peers, ports = _selectors(new)
        for peer in sorted(peers ^ peers_before, key=peer_set):
            self._peers[peer] += 1 if peer in peers else -1
            if self._peers[peer] == (1 if peer in peers else 0):
                self._toggle_peer(peer, peer in peers)
        for port in sorted(ports ^ ports_before):
            self._ports[port] += 1 if port in ports else -1
            if self._ports[port] == (1 if port in ports else 0):
                if port not in ports:
                    del self._ports[port]
                sets = {port_set(*port): "type ipv4_addr . inet_service;"} if port in ports else {}
                self._dirty[f"set:{port_set(*port)}"] = Rules(sets=dict(sets))
                self._dirty_pods |= dict.fromkeys(
                    k for k, m in self.pods.items() if any(p[:2] == port for p in m.ports)
                )

    def _toggle_peer(self, peer: PodPeer, exists: bool) -> None:
        place = self._near.setdefault(peer.namespace, {}) if peer.namespace else self._far
        if exists:
            place[peer] = None
        else:
            del self._peers[peer], place[peer]
        self._dirty[f"set:{peer_set(peer)}"] = Rules(sets={peer_set(peer): "type ipv4_addr;"} if exists else {})
        namespaces = [peer.namespace] if peer.namespace else list(self._pods_of)
        for namespace in namespaces:
            if peer.has_namespace(namespace, self.namespaces.get(namespace)):
                members = self._pods_of.get(namespace, {})
                self._dirty_pods |= dict.fromkeys(k for k, m in members.items() if peer.pods.matches(m.labels))

    def put_namespace(self, name: str, labels: Labels | None) -> None:
        if self.namespaces.get(name) != labels:
            _keep(self.namespaces, name, labels)
            self._dirty_pods |= dict.fromkeys(self._pods_of.get(name, ()))

    def put_pod(self, key: str, member: Member | None) -> None:
        old = self.pods.get(key)
        if old == member:
            return
        for one in (old, member):
            if one is not None:
                _keep(self._pods_of.setdefault(one.namespace, {}), key, member)
        _keep(self.pods, key, member)
        self._dirty_pods[key] = None

    def is_local(self, member: Member) -> bool:
        return bool(self.here.node) and member.node == self.here.node

    def changes(self) -> dict[str, Rules]:
        """New rules by owner, those first that others point to. Empties what it gives."""
        profiles: dict[Profile, None] = {}
        pods = {f"pod:{key}": self._pod_rules(key, profiles) for key in self._dirty_pods}
        for profile in profiles:
            direction, policies = profile
            if not self._profiles[profile]:
                del self._profiles[profile]
            owner = f"profile:{_short(direction)}:{' '.join(policies)}"
            self._dirty[owner] = self._profile_rules(profile) if profile in self._profiles else Rules()
        order = {"set": 0, "policy": 1, "profile": 2, "gate": 3}
        fixed = sorted(self._dirty, key=lambda owner: (order[owner.partition(":")[0]], owner))
        out = {owner: self._dirty[owner] for owner in fixed} | pods
        self._dirty, self._dirty_pods = {}, {}
        return out

    def everything(self) -> dict[str, Rules]:
        """The rules of all owners, made anew: what :meth:`changes` must have led to."""
        fresh = Compiler(self.here)
        for name, labels in self.namespaces.items():
            fresh.put_namespace(name, labels)
        for key, policy in self.policies.items():
            fresh.put_policy(key, policy)
        for key, member in self.pods.items():
            fresh.put_pod(key, member)
        return {owner: rules for owner, rules in fresh.changes().items() if rules != Rules()}

    def _gate_rules(self) -> Rules:
        elements = {("guarded", self.here.pods): ""} if self.here.pods else {}
        if self.here.resolver:
            elements |= {("resolver", f"{self.here.resolver} . {p} . {RESOLVER_PORT}"): "" for p in ("tcp", "udp")}
        return Rules(elements=elements)

    def _profile_rules(self, profile: Profile) -> Rules:
        direction, keys = profile
        rules = Rules()
        for reply in (False, True):
            jumps = [f"jump {policy_chain(self.policies[key], direction, reply)}" for key in keys]
            rules.chains[profile_chain(keys, direction, reply)] = (*jumps, "drop")
        return rules

    def _pod_rules(self, key: str, touched: dict[Profile, None]) -> Rules:
        member, rules = self.pods.get(key), Rules()
        profiles = self._profiles_for(member) if member is not None and self.is_local(member) else ()
        for profile in self._profiles_of.pop(key, ()):
            self._profiles[profile] -= 1
            touched[profile] = None
        for profile in profiles:
            self._profiles[profile] += 1
            touched[profile] = None
        if profiles:
            self._profiles_of[key] = profiles
        if member is None:
            return rules
        address, elements = member.address, rules.elements
        labels = self.namespaces.get(member.namespace)
        for peer in (*self._near.get(member.namespace, ()), *self._far):
            if peer.has(member, labels):
                elements[peer_set(peer), address] = ""
        for name, protocol, number in member.ports:
            if (name, protocol) in self._ports:
                elements[port_set(name, protocol), f"{address} . {number}"] = ""
        if self._gate and self.is_local(member):
            elements["handled", address] = ""
        for direction, keys in profiles:
            elements["isolated", address] = ""
            elements["itself", f"{address} . {address}"] = ""
            for reply in (False, True):
                where = f"{_short(direction)}{'-reply' if reply else ''}"
                elements[where, address] = f"goto {profile_chain(keys, direction, reply)}"
        return rules

    def _profiles_for(self, member: Member) -> tuple[Profile, ...]:
        own: Mapping[str, Policy] = self._policies_of.get(member.namespace, {})
        out = []
        for direction in (INGRESS, EGRESS):
            keys = tuple(sorted(key for key, policy in own.items() if policy.selects(member, direction)))
            if keys:
                out.append((direction, keys))
        return tuple(out)


def _keep(place: dict[str, T], key: str, value: T | None) -> None:
    if value is None:
        place.pop(key, None)
    else:
        place[key] = value
