"""The lab's switch: what a node that comes or goes must not change for the others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import networknamespace
from lab.addresses import Addresses, claim_index, release_index
from lab.namespaces import ProcessId, in_child
from navarch.linux.syscalls import (
    CLONE_NEWNET,
)

LAB = "test-switch"


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[Addresses]:
    found = Addresses(claim_index(str(tmp_path)))
    networknamespace.create(LAB, found)
    yield found
    networknamespace.destroy(LAB, found)
    release_index(str(tmp_path))


@pytest.fixture
def nodes() -> Iterator[list[ProcessId]]:
    """Three processes, each with a network namespace of its own."""
    processes = [subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE) for _ in range(3)]
    own = Path("/proc/self/ns/net").readlink()
    for process in processes:
        while Path(f"/proc/{process.pid}/ns/net").readlink() == own:
            assert process.poll() is None
    yield [ProcessId.of(process.pid) for process in processes]
    for process in processes:
        process.kill()
        process.wait()


def hardware(ip: Any, name: str) -> str:
    return str(ip.get_links(ifname=name)[0].get("address"))


@pytest.mark.root
def test_hardware_addresses_stay_when_nodes_come_and_go(addresses: Addresses, nodes: list[ProcessId]) -> None:
    def bridge() -> str:
        return str(networknamespace._inside(LAB, lambda ip: hardware(ip, networknamespace.BRIDGE)))

    def own(node: ProcessId) -> str:
        def inside() -> str:
            node.enter(CLONE_NEWNET)
            with networknamespace.IPRoute() as ip:
                return hardware(ip, "eth0")

        return str(in_child(inside))

    before = bridge()
    for number, node in enumerate(nodes, 1):
        networknamespace.plug(LAB, addresses, number, node)
    assert bridge() == before
    first = own(nodes[0])
    networknamespace.unplug(LAB, 1)
    assert bridge() == before
    networknamespace.plug(LAB, addresses, 1, nodes[0])
    assert bridge() == before and own(nodes[0]) == first
    assert len({before, *map(own, nodes)}) == 4


@pytest.mark.root
def test_the_unreachable_route_goes_and_a_leftover_is_taken_over(tmp_path: Path) -> None:
    def unreachable(found: Addresses) -> bool:
        shown = subprocess.run(["ip", "route", "show", found.range], capture_output=True, text=True, check=True).stdout
        return "unreachable" in shown

    found = Addresses(claim_index(str(tmp_path)))
    networknamespace.create(LAB, found)
    assert unreachable(found)
    release_index(str(tmp_path))  # as if the lab had been killed and its home deleted: the route is left
    networknamespace.destroy(LAB, None)
    assert unreachable(found)
    while Path("/sys/class/net", found.uplink).exists():  # the kernel takes a namespace apart in its own time
        pass
    assert claim_index(str(tmp_path), found.index) == found.index
    networknamespace.create(LAB, found)
    networknamespace.destroy(LAB, found)
    assert not unreachable(found)
    networknamespace.destroy(LAB, found)  # again: nothing to do
    release_index(str(tmp_path))
