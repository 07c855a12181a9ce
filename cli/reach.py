"""``navarch why POD --to TARGET``: may the pod open this connection, and which NetworkPolicies say so."""

from __future__ import annotations

import ipaddress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cli.errors import CommandError
from navarch.api.errors import NotFound
from navarch.api.networkpolicies import (
    MAX_PORT,
    PROTOCOLS,
    Cluster,
    Labels,
    Member,
    Party,
    Policy,
    decide,
    member_of,
    policy_of,
)
from navarch.api.types import core_v1, networking_v1

if TYPE_CHECKING:
    from cli.session import Session

Tree = dict[str, Any]


def parse(text: str) -> tuple[str, str, str]:
    """(target, port, protocol) of ``TARGET:PORT[/PROTOCOL]``; the port may be a name. Raises CommandError."""
    target, colon, rest = text.rpartition(":")
    port, _, protocol = rest.partition("/")
    protocol = protocol.upper() or "TCP"
    if not (colon and target and port) or protocol not in PROTOCOLS:
        raise CommandError(f"--to {text}: say POD:PORT, NAMESPACE/POD:PORT or ADDRESS:PORT, with /UDP or /SCTP if not TCP")
    if port.isdigit() and not 0 < int(port) <= MAX_PORT:
        raise CommandError(f"--to {text}: a port is between 1 and {MAX_PORT}")
    return target, port, protocol


async def explain(session: Session, pod: str, to: str) -> Tree:
    """The answer as a tree. Raises CommandError for pods that are not there or have no address."""
    target, port_text, protocol = parse(to)
    nodes = {a.address: n.metadata.name or "" for n in (await session.client[core_v1.Node].list()).items
             for a in n.status.addresses or () if a.type == "InternalIP"}  # fmt: skip
    source = await _pod(session, pod)
    goal = await _party(session, target, nodes)
    port = _number(port_text, protocol, goal.member)
    namespaces = (await session.client[core_v1.Namespace].list()).items
    spaces: dict[str, Labels] = {n.metadata.name or "": n.metadata.labels or {} for n in namespaces}
    policies: list[Policy] = []
    for namespace in dict.fromkeys(m.namespace for m in (source.member, goal.member) if m is not None):
        objects = (await session.client[networking_v1.NetworkPolicy].list(namespace)).items
        policies += [policy_of(one) for one in objects]
    decision = decide(Cluster(policies, spaces), source, goal, protocol, port)
    return {
        "from": _name(source), "to": _name(goal), "port": port, "protocol": protocol, "allowed": decision.allowed,
        "egress": asdict(decision.egress), "ingress": asdict(decision.ingress),
    }  # fmt: skip


def lines(answer: Tree) -> list[str]:
    """The answer for people."""
    word = "may" if answer["allowed"] else "may not"
    out = [f"{answer['from']} {word} reach {answer['to']} at port {answer['port']}/{answer['protocol']}"]
    for side, end in (("egress", "from"), ("ingress", "to")):
        out.append(f"  {answer[side]['direction']} of {answer[end]}: {_words(answer[side])}")
    return out


def _words(side: Tree) -> str:
    if side["exempt"]:
        return f"allowed: {side['exempt']}"
    if not side["isolating"]:
        return "allowed: no NetworkPolicy selects the pod in this direction"
    if side["allowed"]:
        rules = ", ".join(f"{key} (spec.{side['direction'].lower()}[{number}])" for key, number in side["allowing"])
        return f"allowed by NetworkPolicy {rules}"
    return f"denied: NetworkPolicy {', '.join(side['isolating'])} selects the pod, and no rule allows this"


async def _pod(session: Session, text: str) -> Party:
    """A pod's end of a connection: the pod, or its node if it is on the node's network."""
    namespace, _, name = text.rpartition("/")
    namespace = namespace or session.namespace
    try:
        pod = await session.client[core_v1.Pod].get(name, namespace)
    except NotFound:
        raise CommandError(f'pods "{name}" not found in namespace "{namespace}"') from None
    if pod.spec.host_network:
        return Party(pod.status.pod_ip or "0.0.0.0", None, pod.spec.node_name or "")
    member = member_of(pod)
    if member is None:
        raise CommandError(f"pod {namespace}/{name} has no address: its phase is {pod.status.phase or 'unknown'}")
    return Party.pod(member)


async def _party(session: Session, text: str, nodes: dict[str, str]) -> Party:
    try:
        address = str(ipaddress.IPv4Address(text))
    except ValueError:
        return await _pod(session, text.removeprefix("pod/"))
    pods = (await session.client[core_v1.Pod].list("", field_selector=f"status.podIP={address}")).items
    for member in filter(None, map(member_of, pods)):
        return Party.pod(member)
    return Party(address, None, nodes.get(address, ""))


def _number(text: str, protocol: str, member: Member | None) -> int:
    if text.isdigit():
        return int(text)
    for name, kind, number in member.ports if member is not None else ():
        if (name, kind) == (text, protocol):
            return number
    raise CommandError(f"the target has no port named {text} of protocol {protocol}: say its number")


def _name(party: Party) -> str:
    if party.member is not None:
        return party.member.key
    return f"node {party.node}" if party.node else party.address

