"""The process of a fleet: its roster, and that pods do not notice when it is started anew. On virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld
from nodeagent.hollow.fleet import HollowFleet
from nodeagent.hollow.main import bring_to, lease_seconds
from nodeagent.hollow.roster import MAX_SUBNETS, TAINT, Group, Roster, name_of, number_of
from tests.client.double import Double
from tests.client.test_fleet import LEASE, POD, pod

# Roster


def names(roster: Roster) -> list[str]:
    return [spec.name for spec in roster.specs()]


def test_a_group_describes_its_nodes() -> None:
    roster = Roster()
    roster.add(Group(1, 4, cpu="8", zones=3, labels={"disk": "ssd"}, tainted=True))
    first, *_, last = roster.specs()
    assert first.labels["topology.kubernetes.io/zone"] == last.labels["topology.kubernetes.io/zone"] == "zone-1"
    assert (first.cpu, first.labels["disk"], first.taints[0].key) == ("8", "ssd", TAINT)
    assert (first.pod_cidr, first.address) == ("100.64.1.0/24", "100.64.1.1")
    assert (last.pod_cidr, last.address) == ("100.64.4.0/24", "100.64.4.1")
    with pytest.raises(ValueError, match="room"):
        roster.add(Group(roster.next_number, MAX_SUBNETS))


@given(
    st.lists(st.one_of(st.integers(1, 5), st.tuples(st.sampled_from(["remove", "stop", "start"]), st.integers(0, 20))))
)
def test_any_changes_leave_a_roster_that_a_file_holds(changes: list[Any]) -> None:
    roster, expected, given_out = Roster(), {}, 0
    for change in changes:
        if isinstance(change, int):
            roster.add(Group(roster.next_number, change, cpu=str(change)))
            expected |= {name_of(given_out + n + 1): 0 for n in range(change)}
            given_out += change
            continue
        what, number = change
        name = name_of(number)
        if name not in roster:
            assert name not in expected
        elif what == "remove":
            roster.remove(name)
            del expected[name]
        elif what == "stop" and name not in roster.off:
            roster.stop(name)
            expected[name] += 1
        else:
            roster.off.pop(name, None)
    assert {spec.name: spec.boot for spec in roster.specs()} == expected
    assert len(roster) == len(expected) and roster.next_number == given_out + 1


def test_the_file_holds_all(tmp_path: Path) -> None:
    roster = Roster()
    roster.add(Group(1, 3))
    roster.add(Group(4, 2, zones=2))
    roster.add(Group(6, 2, zones=2))
    assert len(roster.groups) == 2, "more of the same is one group"
    roster.stop("hollow-2")
    roster.remove("hollow-5")
    roster.cut["hollow-1"] = None
    file = tmp_path / "roster.json"
    assert Roster.load(file) == Roster()
    file.write_text(roster.text())
    assert Roster.load(file) == roster


def test_names() -> None:
    assert number_of("hollow-17") == 17
    assert [number_of(n) for n in ("hollow-", "hollow-0", "hollow-017", "node-1", "hollow-1a")] == [0] * 5


def test_leases_last_longer_when_there_are_many_nodes() -> None:
    assert [lease_seconds(n, 40, 100) for n in (1, 1000, 1001, 5000)] == [40, 40, 41, 200]
    assert lease_seconds(100, 4, 100) == 4 and lease_seconds(1000, 4, 100) == 40


# Processes


def restarted(
    before: list[tuple[str, dict[str, Any]]], between: Any, after: Any, down: bool = False, seconds: float = 20
) -> None:
    """One fleet plays the pods ``before``, ends, and another one follows it."""
    world = SimulatedWorld()
    roster = Roster()
    roster.add(Group(1, 2))

    async def main() -> None:
        server = Double()
        client = Client(InProcessTransport(server, None), world)

        def fleet() -> HollowFleet:
            made = HollowFleet(client, world)
            bring_to(made, roster)
            return made

        async with world.task_group() as group:
            group.start(fleet().run())
            await world.sleep(0.5)
            for path, tree in before:
                server.put(path, tree)
            await world.sleep(seconds)
            group.cancel()
        between(server)
        if down:
            roster.downs += 1
        second = fleet()
        async with world.task_group() as group:
            group.start(second.run())
            await world.sleep(5)
            await after(world, server, second)
            group.cancel()

    world.run(main)


def test_pods_do_not_notice_that_the_process_was_started_anew() -> None:
    kept: dict[str, Any] = {}

    async def after(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        assert {p: server.objects[p] for p in kept} == kept
        assert fleet.running("hollow-1") == ["default/p/web"]
        assert fleet.ready == 2 and server.objects[LEASE + "hollow-1"]
        server.put(*pod("later", "hollow-1"))
        await world.sleep(5)
        later = server.objects[POD + "later"]["status"]
        assert later["podIP"] != kept[POD + "p"]["status"]["podIP"], "addresses that are taken stay taken"
        # It runs for forty seconds in all, however many processes count them.
        await world.sleep(7)
        assert server.objects[POD + "job"]["status"]["phase"] == "Running"
        await world.sleep(6)
        assert server.objects[POD + "job"]["status"]["phase"] == "Succeeded"
        fleet.kill_container("default", "p", "web", 1)
        await world.sleep(5)
        assert server.objects[POD + "p"]["status"]["containerStatuses"][0]["restartCount"] == 1

    path, job = pod("job", "hollow-2", run="40s")
    job["spec"]["restartPolicy"] = "Never"
    before = [pod("p", "hollow-1"), (path, job)]
    restarted(before, lambda server: kept.update({p: server.objects[p] for p, _ in before}), after)


def test_containers_are_started_anew_when_the_machine_was() -> None:
    async def after(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        await world.sleep(5)
        status = server.objects[POD + "p"]["status"]
        assert status["containerStatuses"][0]["restartCount"] == 1 and status["phase"] == "Running"

    restarted([pod("p", "hollow-1")], lambda server: None, after, down=True)


def test_what_was_under_way_goes_on() -> None:
    """A pod that was starting and one that was deleted meanwhile."""

    def between(server: Double) -> None:
        assert server.objects[POD + "slow"]["status"]["phase"] == "Pending"
        tree = server.objects[POD + "gone"]
        meta = {**tree["metadata"], "deletionTimestamp": "2026-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}
        server.put(POD + "gone", {**tree, "metadata": meta})

    async def after(world: SimulatedWorld, server: Double, fleet: HollowFleet) -> None:
        assert POD + "gone" not in server.objects
        await world.sleep(30)
        assert server.objects[POD + "slow"]["status"]["phase"] == "Running"

    restarted([pod("slow", "hollow-1", start="30s"), pod("gone", "hollow-2")], between, after)


async def test_a_fleet_is_brought_to_what_the_roster_says(world: SimulatedWorld) -> None:
    roster = Roster()
    roster.add(Group(1, 3))

    server = Double()
    fleet = HollowFleet(Client(InProcessTransport(server, None), world), world)
    bring_to(fleet, roster)
    async with world.task_group() as group:
        group.start(fleet.run())
        await world.sleep(0.5)
        server.put(*pod("p", "hollow-1"))
        await world.sleep(5)
        roster.stop("hollow-1")
        roster.remove("hollow-2")
        roster.add(Group(4, 1, cpu="1"))
        bring_to(fleet, roster)
        assert fleet.names == ["hollow-1", "hollow-3", "hollow-4"] and fleet.running("hollow-1") == []
        silent = server.objects[LEASE + "hollow-1"]
        await world.sleep(30)
        assert server.objects[LEASE + "hollow-1"] == silent
        assert server.objects["/api/v1/nodes/hollow-4"]["status"]["capacity"]["cpu"] == "1"
        del roster.off["hollow-1"]
        bring_to(fleet, roster)
        await world.sleep(10)
        assert server.objects[LEASE + "hollow-1"] != silent
        assert server.objects[POD + "p"]["status"]["containerStatuses"][0]["restartCount"] == 1
        group.cancel()
