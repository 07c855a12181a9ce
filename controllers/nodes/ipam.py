"""Pod CIDRs: every node gets a subnet of the cluster's ranges that no other node has."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from controllers.config import Config
from controllers.controller import Context, Controller
from navarch.api.types import core_v1
from navarch.client.events import NORMAL, WARNING

Node = core_v1.Node
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class RangeFull(Exception):
    """No subnet is left."""


class Pool:
    """Subnets of one range. Next fit: a subnet that was given back is used again as late as possible."""

    def __init__(self, cidr: str, prefix: int, reserved: Sequence[str] = ()) -> None:
        """``prefix``: length of a node's subnet; ``reserved``: ranges that no subnet may touch. Raises ValueError."""
        self.range = ipaddress.ip_network(cidr)
        if not self.range.prefixlen <= prefix <= self.range.max_prefixlen:
            raise ValueError(f"node CIDR mask size {prefix} does not fit cluster CIDR {cidr}")
        if prefix - self.range.prefixlen > 16:
            raise ValueError(f"cluster CIDR {cidr} holds more than 65536 subnets of size /{prefix}")
        self.prefix = prefix
        self.size = 1 << (prefix - self.range.prefixlen)
        self._used: dict[int, str] = {}  # owner by number
        self._next = 0
        for text in reserved:
            self._reserve(ipaddress.ip_network(text))

    def _reserve(self, network: Network) -> None:
        if network.version != self.range.version or not network.overlaps(self.range):
            return
        first = max(int(network.network_address), int(self.range.network_address))
        last = min(int(network.broadcast_address), int(self.range.broadcast_address))
        for number in range(self._number(first), self._number(last) + 1):
            self._used.setdefault(number, "")

    def _number(self, address: int) -> int:
        return (address - int(self.range.network_address)) >> (self.range.max_prefixlen - self.prefix)

    def _subnet(self, number: int) -> str:
        base = int(self.range.network_address) + (number << (self.range.max_prefixlen - self.prefix))
        return f"{ipaddress.ip_address(base) if self.range.version == 4 else ipaddress.IPv6Address(base)}/{self.prefix}"

    def holds(self, cidr: str) -> bool:
        network = ipaddress.ip_network(cidr, strict=False)
        return network.version == self.range.version and network.overlaps(self.range)

    def allocate(self, owner: str) -> str:
        """A subnet that nobody has. Raises RangeFull."""
        for step in range(self.size):
            number = (self._next + step) % self.size
            if number not in self._used:
                self._used[number] = owner
                self._next = (number + 1) % self.size
                return self._subnet(number)
        raise RangeFull(str(self.range))

    def occupy(self, cidr: str, owner: str) -> str | None:
        """Notes that ``owner`` has ``cidr`` (of whatever size). Returns who else has part of it, None if nobody."""
        network = ipaddress.ip_network(cidr, strict=False)
        other = None
        for number in range(
            max(0, self._number(int(network.network_address))),
            min(self.size - 1, self._number(int(network.broadcast_address))) + 1,
        ):
            if self._used.setdefault(number, owner) != owner:
                other = self._used[number]
        return other

    def release(self, cidr: str, owner: str) -> None:
        """Gives back what ``owner`` has of ``cidr``."""
        network = ipaddress.ip_network(cidr, strict=False)
        for number in range(
            max(0, self._number(int(network.network_address))),
            min(self.size - 1, self._number(int(network.broadcast_address))) + 1,
        ):
            if self._used.get(number) == owner:
                del self._used[number]


def pools(config: Config) -> list[Pool]:
    """The pools that the knobs describe, one a family. Raises ValueError."""
    ranges = [c.strip() for c in config.cluster_cidr.split(",") if c.strip()]
    reserved = [c.strip() for c in config.service_cluster_ip_range.split(",") if c.strip()]
    out = []
    for cidr in ranges:
        four = ipaddress.ip_network(cidr).version == 4
        special = config.node_cidr_mask_size_ipv4 if four else config.node_cidr_mask_size_ipv6
        single = config.node_cidr_mask_size if len(ranges) == 1 else 0
        out.append(Pool(cidr, special or single or (24 if four else 64), reserved))
    return out


class NodeIPAMController(Controller):
    """Keys are nodes."""

    name = "node-ipam-controller"
    workers = 1  # so that subnets follow the order in which nodes came

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.events = context.recorder("cidrAllocator")
        self.pools = pools(self.config)
        self.nodes = self.informer(Node)
        self.keys_are_of(self.nodes)
        self._cidrs: dict[str, list[str]] = {}  # by node: what it has, or what we are about to write
        self._without: dict[str, None] = {}  # nodes for which nothing was left
        self.nodes.add_handler(self._node_changed)

    def _node_changed(self, kind: str, old: Node | None, new: Node) -> None:
        name = new.metadata.name or ""
        if kind == "DELETED":
            for cidr in self._cidrs.pop(name, ()):
                for pool in self.pools:
                    if pool.holds(cidr):
                        pool.release(cidr, name)
            self._without.pop(name, None)
            for waiting in self._without:
                self.queue.add(waiting)
            return
        written = cidrs_of(new)
        if written and self._cidrs.get(name) != written:
            self._occupy(new, name, written)
        if not written:
            self.queue.add(name)

    def _occupy(self, node: Node, name: str, written: list[str]) -> None:
        for cidr in self._cidrs.pop(name, ()):  # we meant to give another one
            for pool in self.pools:
                if pool.holds(cidr):
                    pool.release(cidr, name)
        self._cidrs[name] = written
        for cidr in written:
            for pool in self.pools:
                if pool.holds(cidr) and (other := pool.occupy(cidr, name)):
                    text = f"Node {name} status is now: CIDRAssignmentFailed"
                    self.log.error("node %s: its pod CIDR %s overlaps with that of %s", name, cidr, other)
                    self.events.event(node, WARNING, "CIDRAssignmentFailed", text)

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(None, key)
        if node is None or cidrs_of(node):
            return None
        cidrs = self._cidrs.get(key)
        if cidrs is None:
            cidrs = []
            try:
                for pool in self.pools:
                    cidrs.append(pool.allocate(key))
            except RangeFull:
                for pool, cidr in zip(self.pools, cidrs, strict=False):
                    pool.release(cidr, key)
                text = f"Node {key} status is now: CIDRNotAvailable"
                self.events.event(node, NORMAL, "CIDRNotAvailable", text)
                self.log.error("node %s gets no pod CIDR: all of %s is given away", key, self.config.cluster_cidr)
                self._without[key] = None
                return None
            self._without.pop(key, None)
            # Kept until the node goes: should the write's answer be lost, the next attempt writes the same.
            self._cidrs[key] = cidrs
        patch = {
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        }
        await self.client[Node].patch(key, None, patch)
        return None


def cidrs_of(node: Node) -> list[str]:
    return list(node.spec.pod_cidrs or ([node.spec.pod_cidr] if node.spec.pod_cidr else ()))
