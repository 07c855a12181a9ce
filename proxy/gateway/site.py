"""From Gateways and HTTPRoutes to the site that nginx serves, and to what their statuses say. Pure.

A name on a port belongs to the most specific listener that covers it, and only to that one. Its routes' entries are sorted by
the Gateway API's precedence; a location has those that can meet its requests, up to the first without conditions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from proxy.gateway.api import GROUP, Finding, Tree, by_age, key, spec_of
from proxy.gateway.hostnames import meet, owner
from proxy.gateway.listeners import Listener, listeners
from proxy.gateway.rules import Entry, Rules, Unsupported, for_listener
from proxy.ingress.backends import SecretOf, Services
from proxy.ingress.model import Host, Location, Site


@dataclass(frozen=True)
class Facts:
    """The objects that are looked up. ``inside``: Gateway -> port -> where nginx listens. ``labels``: of namespaces."""

    services: Services
    secret_of: SecretOf
    grants: Sequence[Tree]
    labels: Mapping[str, Mapping[str, str]]
    inside: Mapping[str, Mapping[int, int]]


@dataclass
class Parent:
    """A route as one of its Gateways sees it: an entry of status.parents."""

    reference: Tree
    findings: list[Finding]


@dataclass
class Plan:
    site: Site = field(default_factory=Site)
    listeners: dict[str, list[Listener]] = field(default_factory=dict)  # by Gateway
    parents: dict[str, list[Parent]] = field(default_factory=dict)  # by route


def plan(gateways: Iterable[Tree], routes: Iterable[Tree], facts: Facts) -> Plan:
    """The site for these Gateways, all of them ours, and all routes."""
    out = Plan()
    for gateway in by_age(gateways):
        out.listeners[key(gateway)] = listeners(
            gateway, facts.inside.get(key(gateway), {}), facts.secret_of, facts.grants, out.site.certificates
        )
    served: dict[tuple[str, str], list[tuple[str, list[Entry]]]] = defaultdict(list)  # (Gateway, listener) -> names, entries
    for route in by_age(routes):
        out.parents[key(route)] = _attach(route, out.listeners, facts, served)
    for name, group in out.listeners.items():
        for port in dict.fromkeys(one.port for one in group if one.serves):
            same = [one for one in group if one.serves and one.port == port]
            out.site.ports[same[0].inside] = port
            out.site.hosts += _hosts(same, {one.name: served[name, one.name] for one in same})
    out.site.hosts.sort(key=lambda host: (host.listens, host.name == "", host.name.startswith("*"), host.name))
    used = {name for host in out.site.hosts for name in host.certificates}
    out.site.certificates = {n: pair for n, pair in out.site.certificates.items() if n in used}
    return out


def _attach(
    route: Tree, groups: Mapping[str, list[Listener]], facts: Facts,
    served: dict[tuple[str, str], list[tuple[str, list[Entry]]]],
) -> list[Parent]:  # fmt: skip
    """Attaches a route to listeners; what each of its Gateways says of it."""
    rules = Rules(route, facts.services, facts.grants)
    refused: Finding | None = None
    entries: list[Entry] = []
    try:
        entries = rules.entries()
    except Unsupported as error:
        refused = Finding("Accepted", False, error.reason, str(error))
    reason, text = rules.missing[0] if rules.missing else ("ResolvedRefs", "")
    resolved = Finding("ResolvedRefs", not rules.missing, reason, text)
    out, joined = [], set()
    for reference in spec_of(route).get("parentRefs") or ():
        if (reference.get("group", GROUP), reference.get("kind", "Gateway")) != (GROUP, "Gateway"):
            continue
        gateway = f"{reference.get('namespace') or route['metadata']['namespace']}/{reference.get('name')}"
        if gateway not in groups:
            continue
        meetings, finding = _meeting(route, reference, groups[gateway], facts)
        out.append(Parent(reference, [refused or finding, resolved]))
        for listener, names in meetings if refused is None else ():
            if (gateway, listener.name) not in joined:
                joined.add((gateway, listener.name))
                listener.routes.append(key(route))
                served[gateway, listener.name] += [(name, entries) for name in names]
    return out


def _meeting(
    route: Tree, reference: Tree, group: Sequence[Listener], facts: Facts
) -> tuple[list[tuple[Listener, list[str]]], Finding]:
    """The listeners of a Gateway that a route attaches to, each with the names under which it is served there."""
    section, port = reference.get("sectionName"), reference.get("port")
    able = [one for one in group if section in (None, "", one.name) and port in (None, one.port)]
    if not able:
        return [], Finding("Accepted", False, "NoMatchingParent", "the Gateway has no listener of this name and port")
    namespace = str(route["metadata"]["namespace"])
    able = [one for one in able if one.allows(namespace, facts.labels.get(namespace, {}))]
    if not able:
        return [], Finding("Accepted", False, "NotAllowedByListeners", f"no listener takes HTTPRoutes of namespace {namespace}")
    hosts = [str(host).lower() for host in spec_of(route).get("hostnames") or ()] or [""]
    meetings = []
    for one in able:
        names = [name for name in dict.fromkeys(meet(one.hostname, host) for host in hosts) if name is not None]
        if names:
            meetings.append((one, names))
    if not meetings:
        return [], Finding("Accepted", False, "NoMatchingListenerHostname", "no listener has one of the route's hostnames")
    return meetings, Finding("Accepted", True, "Accepted")


def _hosts(same: Sequence[Listener], served: Mapping[str, list[tuple[str, list[Entry]]]]) -> list[Host]:
    """The hosts of the listeners of one port."""
    out, names = [], {one.hostname: one for one in same}
    listens = ((same[0].inside, same[0].protocol == "HTTPS"),)
    for one in same:
        by_name: dict[str, list[Entry]] = {one.hostname: []}
        for name, entries in served[one.name]:
            if names[owner(name, names) or ""] is one:
                by_name.setdefault(name, []).extend(entries)
        for name, entries in by_name.items():
            locations = _locations(entries, one.protocol.lower(), one.port)
            out.append(Host(name, locations, None, tuple(one.certificates), listens, deep=True))
    if "" not in names:
        out.append(Host("", listens=listens, refuses=True))
    return out


def _locations(entries: list[Entry], scheme: str, port: int) -> tuple[Location, ...]:
    entries = sorted(entries, key=lambda entry: entry.rank)
    out = []
    for path, exact in dict.fromkeys((entry.path, entry.exact) for entry in entries):
        choices = []
        for entry in entries:
            if entry.covers(path, exact):
                choices.append(for_listener(entry.choice, scheme, port))
                if not entry.choice.conditions:
                    break
        out.append(Location(path, exact, tuple(choices)))
    return tuple(sorted(out, key=lambda loc: (not loc.exact, -len(loc.path), loc.path)))


def without(built: Plan, owners: Mapping[str, str]) -> Plan:
    """The plan with a word on routes that nginx refuses: ``owners`` has nginx's reasons by route."""
    for route, why in owners.items():
        refused = Finding("Accepted", False, "UnsupportedValue", f"nginx refuses it: {why}")
        built.parents[route] = [replace(parent, findings=[refused, *parent.findings[1:]]) for parent in built.parents[route]]
    return built
