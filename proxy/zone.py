"""The cluster's DNS zone: which records a name has, after Kubernetes' DNS specification 1.1 and CoreDNS' ways.

Everything is read from the informers' indexes at the moment of the question, so there is nothing to keep in step.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dnslib import CNAME, NS, PTR, QTYPE, RR, SOA, SRV, TXT, A

from navarch.api.types import core_v1, discovery_v1
from navarch.client.informer import SharedInformers, key_of
from navarch.world import World
from proxy.proxy import service_key

TTL = 5  # seconds, as CoreDNS' kubernetes plugin has it
MAX_ALIASES = 8  # in one chain of CNAMEs


class Missing(Exception):
    """NXDOMAIN."""


class Entry(NamedTuple):
    """One thing that a name stands for. ``host``: an address, or (``alias``) another name. ``port`` 0: none."""

    name: str
    host: str
    port: int = 0
    alias: bool = False


@dataclass
class Answer:
    """``outside``: a name that answers end at, which another server must be asked about for the rest."""

    answers: list[RR] = field(default_factory=list)
    additional: list[RR] = field(default_factory=list)
    outside: str = ""


class Zone:
    """Answers questions about the cluster domain. Names are lower case and without the final dot.

    ``address``: where this server answers; the zone's name server has it.
    """

    def __init__(
        self, world: World, informers: SharedInformers, domain: str = "cluster.local", address: str = ""
    ) -> None:
        self.world, self.address = world, address
        self.domain = tuple(domain.lower().strip(".").split("."))
        self.services = informers.informer(core_v1.Service, indexers={"ip": _service_addresses})
        self.slices = informers.informer(
            discovery_v1.EndpointSlice, indexers={"service": service_key, "address": _slice_addresses}
        )
        self.namespaces = informers.informer(core_v1.Namespace)

    def owns(self, name: str) -> bool:
        return tuple(name.split("."))[-len(self.domain) :] == self.domain

    def answer(self, name: str, kind: str) -> Answer:
        """This zone's records of a type for a name. Raises Missing; nothing of that type is an empty answer."""
        rest = tuple(name.split("."))[: -len(self.domain)]
        if not rest:
            return self._apex(name, kind)
        if rest == ("dns-version",):
            return Answer([RR(name, QTYPE.TXT, ttl=TTL, rdata=TXT("1.1.0"))] if kind == "TXT" else [])
        if rest == ("ns", "dns"):
            return Answer(_addresses(name, [self.address] if self.address else [], kind))
        match rest[-1]:
            case "svc":
                return self._records(name, self._entries(rest[:-1]), kind, ())
            case "pod":
                return self._pod(name, rest[:-1], kind)
        raise Missing

    def _apex(self, name: str, kind: str) -> Answer:
        if kind == "SOA":
            return Answer([self.soa()])
        if kind == "NS":
            server = f"ns.dns.{name}"
            extra = _addresses(server, [self.address] if self.address else [], "A")
            return Answer([RR(name, QTYPE.NS, ttl=TTL, rdata=NS(server))], extra)
        return Answer()

    def _pod(self, name: str, rest: tuple[str, ...], kind: str) -> Answer:
        if not rest or (len(rest) == 1 and self.namespaces.get(None, rest[0])):
            return Answer()
        if len(rest) != 2 or not self.namespaces.get(None, rest[1]):
            raise Missing
        try:
            address = str(ipaddress.IPv4Address(rest[0].replace("-", ".")))
        except ValueError:
            raise Missing from None
        return Answer(_addresses(name, [address], kind))

    # --- services ---

    def _entries(self, rest: tuple[str, ...]) -> list[Entry]:
        """The entries that a name below ``svc`` stands for. Raises Missing."""
        if not rest or (len(rest) == 1 and self.namespaces.get(None, rest[0])):
            return []
        service = self.services.get(rest[-1], rest[-2]) if len(rest) > 1 else None
        if service is None:
            raise Missing
        entries = list(dict.fromkeys(self._of(service, rest[:-2])))
        if not entries:
            raise Missing
        return entries

    def _of(self, service: core_v1.Service, front: tuple[str, ...]) -> Iterator[Entry]:
        """``front`` is what stands before the service's name: nothing, an endpoint's name, or _PORT, _PROTOCOL."""
        base = ".".join((service.metadata.name or "", service.metadata.namespace or "", "svc", *self.domain))
        spec = service.spec
        if spec.type == "ExternalName":
            target = (spec.external_name or "").strip(".").lower()
            if not front and target and not _is_address(target):
                yield Entry(base, target, alias=True)
            return
        if len(front) > 2:
            return
        port, protocol = (front[0].removeprefix("_"), front[1].removeprefix("_")) if len(front) == 2 else ("", "")
        if spec.cluster_ip == "None" or len(front) == 1:
            for piece in self._slices(service):
                numbers = [
                    p.port or 0 for p in piece.ports or () if _is_asked(p.name, p.protocol, port, protocol)
                ] or ([] if piece.ports else [0])
                for address, host in _ready(piece):
                    if len(front) != 1 or host.lower() == front[0]:
                        yield from (Entry(f"{host}.{base}", address, n) for n in numbers)
            return
        for p in spec.ports or ():
            if _is_asked(p.name, p.protocol, port, protocol):
                yield from (Entry(base, address, p.port) for address in _service_addresses(service))

    def _records(self, name: str, entries: list[Entry], kind: str, before: tuple[str, ...]) -> Answer:
        """``before``: the names that led here."""
        if kind == "SRV":
            return _services(name, [e for e in entries if not e.alias and e.port])
        aliases = [e.host for e in entries if e.alias]
        if aliases and kind in ("A", "AAAA", "CNAME"):
            return self._alias(name, aliases[0], kind, before)
        hosts = list(dict.fromkeys(e.host for e in entries if not e.alias))
        self.world.random.shuffle(hosts)
        return Answer(_addresses(name, hosts, kind))

    def _alias(self, name: str, target: str, kind: str, before: tuple[str, ...]) -> Answer:
        """A CNAME and what it leads to: stub resolvers do not go on by themselves. One that leads nowhere in this zone,
        or in a circle, is left out."""
        alias = RR(name, QTYPE.CNAME, ttl=TTL, rdata=CNAME(target))
        if kind == "CNAME":
            return Answer([alias])
        if not self.owns(target):
            return Answer([alias], outside=target)
        rest = tuple(target.split("."))[: -len(self.domain)]
        if target == name or target in before or len(before) >= MAX_ALIASES or rest[-1:] != ("svc",):
            next_ = self.answer(target, kind) if rest[-1:] == ("pod",) else Answer()
        else:
            try:
                next_ = self._records(target, self._entries(rest[:-1]), kind, (*before, name))
            except Missing:
                next_ = Answer()
        if next_.answers:
            next_.answers.insert(0, alias)
        return next_

    def _slices(self, service: core_v1.Service) -> list[discovery_v1.EndpointSlice]:
        return self.slices.by_index("service", key_of(service.metadata.namespace, service.metadata.name or ""))

    # --- addresses ---

    def reverse(self, name: str) -> list[RR]:
        """PTR records of ``d.c.b.a.in-addr.arpa``. Raises Missing."""
        parts = name.split(".")[:-2]
        address = ".".join(reversed(parts))
        for service in self.services.by_index("ip", address):
            target = ".".join((service.metadata.name or "", service.metadata.namespace or "", "svc", *self.domain))
            return [RR(name, QTYPE.PTR, ttl=TTL, rdata=PTR(target))]
        names = []
        for piece in self.slices.by_index("address", address):
            for key in service_key(piece):
                service_of = self.services.get_key(key)
                if service_of is None or service_of.spec.cluster_ip != "None":
                    continue
                namespace, _, short = key.partition("/")
                hosts = [host for a, host in _ready(piece) if a == address]
                names += [".".join((host, short, namespace, "svc", *self.domain)) for host in hosts]
        if not names:
            raise Missing
        return [RR(name, QTYPE.PTR, ttl=TTL, rdata=PTR(target)) for target in dict.fromkeys(names)]

    def soa(self) -> RR:
        domain = ".".join(self.domain)
        times = (int(self.world.now()) & 0xFFFFFFFF, 7200, 1800, 86400, TTL)
        return RR(domain, QTYPE.SOA, ttl=TTL, rdata=SOA(f"ns.dns.{domain}", f"hostmaster.{domain}", times))


def _is_asked(name: str | None, protocol: str | None, port: str, asked_protocol: str) -> bool:
    """Whether a port is the one that is asked for; "" asks for all."""
    return (not port or (name or "") == port) and (not asked_protocol or (protocol or "TCP").lower() == asked_protocol)


def _services(name: str, entries: list[Entry]) -> Answer:
    """SRV records, and the addresses of their targets."""
    answer = Answer()
    weight = max(1, 100 // max(1, len(entries)))
    for target, port in dict.fromkeys((e.name, e.port) for e in entries):
        answer.answers.append(RR(name, QTYPE.SRV, ttl=TTL, rdata=SRV(0, weight, port, target)))
    for target, address in dict.fromkeys((e.name, e.host) for e in entries):
        answer.additional += _addresses(target, [address], "A")
    return answer


def _addresses(name: str, addresses: Iterable[str], kind: str) -> list[RR]:
    return [RR(name, QTYPE.A, ttl=TTL, rdata=A(a)) for a in addresses] if kind == "A" else []


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _service_addresses(service: core_v1.Service) -> list[str]:
    spec = service.spec
    listed = spec.cluster_ips or [spec.cluster_ip or ""]
    return [a for a in listed if a and a != "None" and ":" not in a]


def _slice_addresses(piece: discovery_v1.EndpointSlice) -> list[str]:
    return [a for e in piece.endpoints or () for a in e.addresses]


def _ready(piece: discovery_v1.EndpointSlice) -> Iterator[tuple[str, str]]:
    """(address, host name) of ready endpoints. The slice controller makes unready ones ready where a service publishes
    them."""
    if piece.address_type != "IPv4":
        return
    for entry in piece.endpoints or ():
        if entry.conditions is None or entry.conditions.ready is not False:
            for address in entry.addresses:
                if ":" not in address and _is_address(address):
                    yield address, entry.hostname or address.replace(".", "-")
