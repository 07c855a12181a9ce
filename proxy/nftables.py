"""nftables through libnftables in this process, and the transactions that bring the kernel from one rule set to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.rules import MASQUERADE, Rules

TABLE = "ip navarch"
OWN = "goto svc-"  # begins the verdict at a cluster IP; see rules.py

SKELETON = f"""\
add table {TABLE}
delete table {TABLE}
add table {TABLE}
add map {TABLE} services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
add map {TABLE} nodeports {{ type inet_proto . inet_service : verdict; }}
add set {TABLE} refused {{ type ipv4_addr . inet_proto . inet_service; }}
add set {TABLE} refused-nodeports {{ type inet_proto . inet_service; }}
add set {TABLE} dropped {{ type ipv4_addr . inet_proto . inet_service; }}
add set {TABLE} dropped-nodeports {{ type inet_proto . inet_service; }}
add set {TABLE} balancers {{ type ipv4_addr; }}
add set {TABLE} hairpin {{ type ipv4_addr . ipv4_addr; }}
add chain {TABLE} dispatch
add rule {TABLE} dispatch ip daddr . meta l4proto . th dport vmap @services
add rule {TABLE} dispatch fib daddr type local meta l4proto . th dport vmap @nodeports
add chain {TABLE} prerouting {{ type nat hook prerouting priority dstnat; }}
add rule {TABLE} prerouting jump dispatch
add chain {TABLE} output {{ type nat hook output priority -100; }}
add rule {TABLE} output jump dispatch
add chain {TABLE} postrouting {{ type nat hook postrouting priority srcnat; }}
add rule {TABLE} postrouting meta mark and {MASQUERADE} == {MASQUERADE} meta mark set meta mark xor {MASQUERADE} masquerade
add rule {TABLE} postrouting ct status dnat ip saddr . ip daddr @hairpin masquerade
add chain {TABLE} refuse
add rule {TABLE} refuse ip daddr . meta l4proto . th dport @refused reject
add rule {TABLE} refuse fib daddr type local meta l4proto . th dport @refused-nodeports reject
add rule {TABLE} refuse ip daddr . meta l4proto . th dport @dropped drop
add rule {TABLE} refuse fib daddr type local meta l4proto . th dport @dropped-nodeports drop
add rule {TABLE} refuse ip daddr @balancers reject
"""
HOOKS = "".join(
    f"add chain {TABLE} refuse-{hook} {{ type filter hook {hook} priority filter; }}\n"
    f"add rule {TABLE} refuse-{hook} ct state new jump refuse\n"
    for hook in ("input", "forward", "output")
)


@dataclass(frozen=True)
class Layout:
    """A table and the commands that make it anew, with what all owners share."""

    table: str
    skeleton: str


SERVICES = Layout(TABLE, SKELETON + HOOKS)


class Counted:
    """Elements by key with how many services want each: two services may share an endpoint's hairpin entry."""

    def __init__(self) -> None:
        self._verdicts: dict[tuple[str, str], dict[str, str]] = {}  # (set, key) -> service -> verdict

    def get(self, element: tuple[str, str]) -> str | None:
        owners = self._verdicts.get(element)
        if not owners:
            return None
        # Two pods may have one address for a moment. Which one counts must not depend on the order of events. Of services,
        # the one whose cluster IP it is: anybody may write another's address into spec.externalIPs.
        return owners[min(owners, key=lambda owner: (not owners[owner].startswith(OWN), owner))]

    def put(self, element: tuple[str, str], owner: str, verdict: str) -> None:
        self._verdicts.setdefault(element, {})[owner] = verdict

    def drop(self, element: tuple[str, str], owner: str) -> None:
        owners = self._verdicts.get(element)
        if owners is not None:
            owners.pop(owner, None)
            if not owners:
                del self._verdicts[element]


class RuleSet:
    """All owners' rules as they are (or will be, after the transaction) in one table of the kernel."""

    def __init__(self, layout: Layout = SERVICES) -> None:
        self.layout = layout
        self.services: dict[str, Rules] = {}
        self._elements = Counted()

    def full(self) -> str:
        """The transaction that replaces whatever is there by this rule set."""
        everything, self.services, self._elements = self.services, {}, Counted()
        return self.layout.skeleton + self.change(everything)

    def change(self, changes: Mapping[str, Rules]) -> str:
        """Takes new rules of some services (empty Rules: gone); returns the commands that make them so."""
        table = self.layout.table
        removed: dict[tuple[str, str], str | None] = {}
        for owner, new in changes.items():
            old = self.services.get(owner, Rules())
            for element in {**old.elements, **new.elements}:
                removed.setdefault(element, self._elements.get(element))
                self._elements.drop(element, owner)
                if element in new.elements:
                    self._elements.put(element, owner, new.elements[element])
        delete, add = [], []
        for element, before in removed.items():
            after = self._elements.get(element)
            where, key = element
            if before is not None and before != after:
                delete.append(f"delete element {table} {where} {{ {key} }}")
            if after is not None and before != after:
                add.append(f"add element {table} {where} {{ {key}{' : ' + after if after else ''} }}")
        chains, flushed, rules, deletions, sets, unset = [], [], [], [], [], []
        for owner, new in changes.items():
            old = self.services.get(owner, Rules())
            for name, kind in new.sets.items():
                if name not in old.sets:
                    spec = kind if isinstance(kind, str) else f"type ipv4_addr; flags dynamic,timeout; timeout {kind}s;"
                    sets.append(f"add set {table} {name} {{ {spec} }}")
            for name, lines in new.chains.items():
                if name not in old.chains:
                    chains.append(f"add chain {table} {name}")
                elif old.chains[name] != lines:
                    flushed.append(f"flush chain {table} {name}")
                if old.chains.get(name) != lines:
                    rules += [f"add rule {table} {name} {line}" for line in lines]
            dropped = [name for name in old.chains if name not in new.chains]
            flushed += [f"flush chain {table} {name}" for name in dropped]
            deletions += [f"delete chain {table} {name}" for name in dropped]
            unset += [f"delete set {table} {name}" for name in old.sets if name not in new.sets]
            if new.chains or new.elements or new.sets:
                self.services[owner] = new
            else:
                self.services.pop(owner, None)
        # Order: nothing may point at a chain or set that is not there (yet, or any more).
        steps = [*delete, *sets, *chains, *flushed, *rules, *add, *deletions, *unset]
        return "".join(step + "\n" for step in steps)
