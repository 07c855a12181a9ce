"""The list of a fleet's nodes, as a small file: groups of nodes that are alike, and what is different about single ones.

Whoever changes the fleet (``navarch node add --hollow``, ``node stop hollow-17``) writes the file anew; the fleet reads it
and brings itself to that state. So it makes no difference whether the fleet was running at that moment, and five
thousand nodes are a file of a few lines.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from navarch.api import wellknown
from navarch.api.types import core_v1
from nodeagent.hollow.objects import NodeSpec

RANGE = "100.64.0.0/10"  # pod addresses, a /24 a node. They lead nowhere: all fleets may have the same ones
HOST = "localhost"  # where the fleet's server answers for all nodes
PREFIX = "hollow-"
MAX_SUBNETS = 1 << 14  # subnets of the range
ZONE, REGION = wellknown.ZONE, wellknown.REGION
TAINT = "hollow.navarch.dev/node"


@dataclass
class Group:
    """Nodes ``hollow-FIRST`` and the ``count - 1`` that follow. ``zones``: over how many zones they are spread, 0: none."""

    first: int
    count: int
    cpu: str = "4"
    memory: str = "16Gi"
    pods: int = 110
    zones: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    tainted: bool = False  # keeps away pods that do not tolerate simulated nodes
    resources: dict[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)

    def spec(self, number: int, boot: int) -> NodeSpec:
        base = int(ipaddress.IPv4Network(RANGE).network_address) + (number << 8)
        labels = dict(self.labels)
        if self.zones:
            labels |= {ZONE: f"zone-{(number - 1) % self.zones + 1}", REGION: "hollow"}
        taints = (core_v1.Taint(key=TAINT, effect="NoSchedule"),) if self.tainted else ()
        return NodeSpec(
            name_of(number), self.cpu, self.memory, self.pods, str(ipaddress.IPv4Address(base + 1)), labels, taints,
            pod_cidr=f"{ipaddress.IPv4Address(base)}/24", boot=boot, resources=self.resources,
        )  # fmt: skip


@dataclass
class Roster:
    """``boots``: how often a node was switched on anew; ``downs``: how often all of them went down together."""

    groups: list[Group] = field(default_factory=list)
    removed: dict[str, None] = field(default_factory=dict)
    off: dict[str, None] = field(default_factory=dict)
    cut: dict[str, None] = field(default_factory=dict)
    boots: dict[str, int] = field(default_factory=dict)
    downs: int = 0

    @classmethod
    def load(cls, path: Path) -> Roster:
        """The roster of a file; an empty one if there is none."""
        try:
            tree = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        removed, off, cut = (dict.fromkeys(tree[name]) for name in ("removed", "off", "cut"))
        return cls([Group(**g) for g in tree["groups"]], removed, off, cut, tree["boots"], tree["downs"])

    def text(self) -> str:
        tree = asdict(self)
        return json.dumps(tree | {name: list(tree[name]) for name in ("removed", "off", "cut")}, indent=1)

    def __len__(self) -> int:
        return sum(g.count for g in self.groups) - len(self.removed)

    def __contains__(self, name: str) -> bool:
        number = number_of(name)
        return name not in self.removed and any(number in g.numbers for g in self.groups)

    @property
    def next_number(self) -> int:
        return max((g.first + g.count for g in self.groups), default=1)

    def add(self, group: Group) -> None:
        """Raises ValueError if there is no room."""
        if group.first + group.count > MAX_SUBNETS:
            raise ValueError(f"there is room for simulated nodes up to {name_of(MAX_SUBNETS - 1)}")
        last = self.groups[-1] if self.groups else None
        if last is not None and group == Group(**(asdict(last) | {"first": group.first, "count": group.count})):
            last.count += group.count  # more of the same
        else:
            self.groups.append(group)

    def remove(self, name: str) -> None:
        self.off.pop(name, None)
        self.cut.pop(name, None)
        self.boots.pop(name, None)
        self.removed[name] = None
        for group in [g for g in self.groups if all(name_of(n) in self.removed for n in g.numbers)]:
            if group is not self.groups[-1]:  # the last one tells which number comes next
                self.groups.remove(group)
                for number in group.numbers:
                    self.removed.pop(name_of(number), None)

    def stop(self, name: str) -> None:
        if name not in self.off:
            self.off[name] = None
            self.boots[name] = self.boots.get(name, 0) + 1

    def specs(self) -> Iterator[NodeSpec]:
        """Every node, also those that are off."""
        for group in self.groups:
            for number in group.numbers:
                name = name_of(number)
                if name not in self.removed:
                    yield group.spec(number, self.downs + self.boots.get(name, 0))


def name_of(number: int) -> str:
    return f"{PREFIX}{number}"


def number_of(name: str) -> int:
    """0 if that is no name of a simulated node."""
    text = name.removeprefix(PREFIX)
    return int(text) if name.startswith(PREFIX) and text.isdigit() and text[0] != "0" else 0
