"""Which addresses of ``spec.externalIPs`` count: none that is somebody's already.

Whoever may make a Service may write any address there, so it must not take what others have (CVE-2020-8554): another
service's cluster IP or load balancer address, at whatever port, with or without endpoints; nor the API server's own
address at its port, by which agents and proxies reach it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from navarch.api.types import core_v1
from proxy.rules import EVERY_PORT, ingress_addresses, ipv4_only

API_SERVER = "default/kubernetes"  # the Service whose endpoints are API servers


class ExternalIPs:
    """Follows services; ``refused`` says what a service must do without."""

    def __init__(self) -> None:
        self._owners: dict[str, dict[str, None]] = {}  # address -> services that have it
        self._named: dict[str, dict[str, None]] = {}  # address -> services that name it as an external one
        self._own: dict[str, frozenset[str]] = {}  # service -> its addresses
        self._names: dict[str, frozenset[str]] = {}
        self._api: frozenset[tuple[str, int]] = frozenset()

    def put(self, key: str, service: core_v1.Service | None) -> list[str]:
        """Takes note of a service (None: gone). Returns the other services that this may have changed something for."""
        own: frozenset[str] = frozenset()
        names: frozenset[str] = frozenset()
        if service is not None:
            spec = service.spec
            own = frozenset(ipv4_only(spec.cluster_ips or [spec.cluster_ip]) + ipv4_only(ingress_addresses(service)))
            names = frozenset(ipv4_only(spec.external_ips or ()))
        changed = _put(self._owners, self._own, key, own)
        _put(self._named, self._names, key, names)
        return [other for other in self._naming(changed) if other != key]

    def put_api_servers(self, endpoints: Iterable[tuple[str, int]]) -> list[str]:
        """Takes note of where API servers are, as (address, port). Returns as ``put`` does."""
        before, self._api = self._api, frozenset(endpoints)
        return self._naming(address for address, _ in before ^ self._api)

    def _naming(self, addresses: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(key for address in sorted(addresses) for key in self._named.get(address, ())))

    def refused(self, key: str) -> frozenset[tuple[str, int]]:
        """(address, port) of what the service names and others have; mostly EVERY_PORT."""
        names = self._names.get(key)
        if not names:
            return frozenset()
        others = {(a, EVERY_PORT) for a in names if any(owner != key for owner in self._owners.get(a, ()))}
        return frozenset(others | {place for place in self._api if place[0] in names and key != API_SERVER})


def _put(places: dict[str, dict[str, None]], of: dict[str, frozenset[str]], key: str, now: frozenset[str]) -> frozenset[str]:
    """Makes ``now`` what the service has; returns what it has not any more, or only now."""
    before = of.pop(key, frozenset())
    for one in sorted(before - now):
        del places[one][key]
        if not places[one]:
            del places[one]
    for one in sorted(now - before):
        places.setdefault(one, {})[key] = None
    if now:
        of[key] = now
    return before ^ now
