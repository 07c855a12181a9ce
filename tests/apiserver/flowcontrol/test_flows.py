"""Flow control in a whole server: headers, refusals, waiting, the objects that are kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apiserver.flowcontrol import keeping
from apiserver.flowcontrol.flows import Flows, list_seats
from apiserver.flowcontrol.inflight import InFlight
from apiserver.http.requestinfo import parse_request
from apiserver.request import User
from navarch.api.errors import TooManyRequests
from navarch.virtual import SimulatedWorld
from tests.apiserver.http.test_pages import ADMIN, serving
from tests.apiserver.registry.widget import Caller

GROUP = "/apis/flowcontrol.apiserver.k8s.io/v1"
BOB = User("bob", ("system:authenticated",))
PODS = parse_request("GET", "/api/v1/namespaces/default/pods", {})


def level(name: str, shares: int, **response: Any) -> dict[str, Any]:
    limited = {
        "nominalConcurrencyShares": shares, "borrowingLimitPercent": 0, "limitResponse": response or {"type": "Reject"},
    }  # fmt: skip
    return {
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": limited},
    }


def schema(name: str, level_name: str, user: str) -> dict[str, Any]:
    rule = {
        "subjects": [{"kind": "User", "user": {"name": user}}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
        ],
    }
    spec = {"priorityLevelConfiguration": {"name": level_name}, "matchingPrecedence": 50, "rules": [rule]}
    return {"kind": "FlowSchema", "metadata": {"name": name}, "spec": spec}


async def until(condition: Any) -> Any:
    async with asyncio.timeout(10):
        while not (found := await condition()):
            await asyncio.sleep(0.005)
    return found


def dangling(obj: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["status"] for c in (obj.get("status") or {}).get("conditions", ())}


def test_replies_tell_where_the_request_went() -> None:
    async def test(call: Caller) -> None:
        uids = {}
        for kind, name in (("flowschemas", "exempt"), ("prioritylevelconfigurations", "exempt")):
            uids[kind] = (await call("GET", f"{GROUP}/{kind}/{name}")).tree["metadata"]["uid"]

        async def known() -> Any:
            answer = await call("GET", "/api/v1/namespaces")
            return answer if answer.headers["x-kubernetes-pf-flowschema-uid"] else None

        answer = await until(known)
        assert answer.headers["x-kubernetes-pf-flowschema-uid"] == uids["flowschemas"]
        assert answer.headers["x-kubernetes-pf-prioritylevel-uid"] == uids["prioritylevelconfigurations"]
        for path in ("/api/v1/nodes/none", "/nothing"):  # errors, too
            assert (await call("GET", path)).headers["x-kubernetes-pf-flowschema-uid"] == uids["flowschemas"]
        text = (await call("GET", "/metrics")).tree
        assert (
            'apiserver_flowcontrol_current_executing_requests{flow_schema="exempt",priority_level="exempt"} 1' in text
        )
        assert 'apiserver_flowcontrol_nominal_limit_seats{priority_level="workload-low"} 245' in text

    serving(test)


def test_a_level_without_seats_refuses_and_says_when_to_come_again() -> None:
    async def test(call: Caller) -> None:
        assert (await call("POST", f"{GROUP}/prioritylevelconfigurations", level("none", 0))).code == 201
        assert (await call("POST", f"{GROUP}/flowschemas", schema("bobs", "none", "bob"))).code == 201
        bob = Caller(call.server, BOB)

        async def refused() -> Any:
            answer = await bob("GET", "/api/v1/namespaces")
            return answer if answer.code == 429 else None

        answer = await until(refused)
        assert answer.headers["retry-after"] == "1"
        assert answer.tree["reason"] == "TooManyRequests" and answer.tree["details"]["retryAfterSeconds"] == 1
        assert answer.headers["x-kubernetes-pf-prioritylevel-uid"]
        assert (await call("GET", "/api/v1/namespaces")).code == 200
        text = (await call("GET", "/metrics")).tree
        assert 'rejected_requests_total{flow_schema="bobs",priority_level="none",reason="concurrency-limit"}' in text
        # Without its level, the schema counts for nothing.
        assert (await call("DELETE", f"{GROUP}/prioritylevelconfigurations/none")).code == 200

        async def told() -> Any:
            found = (await call("GET", f"{GROUP}/flowschemas/bobs")).tree
            return found if dangling(found) == {"Dangling": "True"} else None

        condition = (await until(told))["status"]["conditions"][0]
        assert condition["reason"] == "NotFound" and condition["message"].endswith("but there is no such object")
        assert (await bob("GET", "/api/v1/namespaces")).code == 403

    serving(test)


def test_a_request_that_waited_in_vain_gives_back_no_seat_of_another() -> None:
    async def test(call: Caller) -> None:
        queuing = {"queues": 1, "handSize": 1, "queueLengthLimit": 9}
        few = level("few", 1, type="Queue", queuing=queuing)
        assert (await call("POST", f"{GROUP}/prioritylevelconfigurations", few)).code == 201
        assert (await call("POST", f"{GROUP}/flowschemas", schema("bobs", "few", "bob"))).code == 201
        found = call.server.gates.flows
        assert isinstance(found, Flows)

        async def known() -> Any:
            flow = found.flow_of(BOB, PODS)
            return flow if flow.schema.name == "bobs" and flow.level.name == "few" else None

        flow = await until(known)
        while found.enter(flow, found.world.monotonic()).turn is None:
            pass  # takes all seats, and then waits for one
        fair = flow.level.fair
        before = (fair.running, flow.schema.running, flow.level.demand.now)
        found.patience = 0.05
        answer = await Caller(call.server, BOB)("GET", "/api/v1/namespaces")
        assert answer.code == 429 and answer.headers["retry-after"]
        assert (fair.running, flow.schema.running, flow.level.demand.now) == before

    serving(test)


def test_default_objects_are_kept() -> None:
    async def test(call: Caller) -> None:
        async def told() -> Any:
            items = (await call("GET", f"{GROUP}/flowschemas")).tree["items"]
            return items if all(dangling(i) == {"Dangling": "False"} for i in items) else None

        assert len(await until(told)) == 13
        keeper = keeping.Keeper(call.server.resources)
        path = f"{GROUP}/prioritylevelconfigurations"

        async def shares(name: str, wanted: int, **annotations: str) -> int:
            patch = {
                "metadata": {"annotations": annotations},
                "spec": {"limited": {"nominalConcurrencyShares": wanted}},
            }
            answer = await call("PATCH", f"{path}/{name}", patch, "application/merge-patch+json")
            assert answer.code == 200
            await keeper.keep()
            return int((await call("GET", f"{path}/{name}")).tree["spec"]["limited"]["nominalConcurrencyShares"])

        own = {"apf.kubernetes.io/autoupdate-spec": "false"}
        assert await shares("workload-low", 7) == 100  # nobody took it over
        assert await shares("workload-low", 7, **own) == 7
        assert await shares("catch-all", 7, **own) == 5  # mandatory
        assert (await call("DELETE", f"{path}/global-default")).code == 200
        assert (await call("DELETE", f"{GROUP}/flowschemas/catch-all")).code == 200
        await keeper.keep()
        assert (await call("GET", f"{path}/global-default")).code == 200
        assert (await call("GET", f"{GROUP}/flowschemas/catch-all")).code == 200

    serving(test, ADMIN)


class NoCache:
    """Flows asks its cache for nothing but watches, which are not under test here."""


def flows(seats: int, queues: int = 16, length: int = 1000) -> Flows:
    made = Flows(SimulatedWorld(0), NoCache(), seats, patience=5.0)  # type: ignore[arg-type]
    queuing = {"queues": queues, "handSize": min(4, queues), "queueLengthLimit": length}
    levels = {"own": level("own", 1000, type="Queue", queuing=queuing)}
    schemas = {"all": schema("all", "own", "*") | {}}
    schemas["all"]["spec"]["distinguisherMethod"] = {"type": "ByUser"}
    made.configure(levels, schemas)
    made.levels["own"].set_seats(seats, made.world.monotonic())
    return made


async def test_the_flood_of_one_user_does_not_hold_up_another(world: SimulatedWorld) -> None:
    found = flows(5)
    found.world = world
    done: list[str] = []

    async def request(name: str) -> None:
        ticket = found.enter(found.flow_of(User(name, ()), PODS), world.monotonic())
        if ticket.turn is not None:
            await found.wait(ticket)
        await world.sleep(0.01)
        found.leave(ticket, world.monotonic())
        done.append(name)

    async with world.task_group() as group:
        for _ in range(1000):
            group.start(request("elephant"))
        await world.sleep(0.001)
        for _ in range(3):
            group.start(request("mouse"))
    mice = [at for at, name in enumerate(done) if name == "mouse"]
    assert len(done) == 1003 and mice[-1] < 25
    assert found.levels["own"].fair.running == found.levels["own"].demand.now == 0  # type: ignore[union-attr]
    assert (
        found.schemas["all"].dispatched == 1003
        and found.schemas["all"].running == found.schemas["all"].waiting == 0
    )


async def test_who_waits_too_long_or_goes_away_leaves_no_trace(world: SimulatedWorld) -> None:
    found = flows(1, queues=1, length=2)
    found.world = world
    flow = found.flow_of(BOB, PODS)
    first = found.enter(flow, world.monotonic())
    second, third = (found.enter(flow, world.monotonic()) for _ in range(2))
    with pytest.raises(TooManyRequests):
        found.enter(flow, world.monotonic())
    async with world.task_group() as group:
        task = group.start(found.wait(third))
        await world.sleep(0.1)
        task.cancel()
    with pytest.raises(TooManyRequests):
        await found.wait(second)
    assert found.schemas["all"].rejected == {"queue-full": 1, "time-out": 1}
    found.leave(first, world.monotonic())
    state = found.levels["own"]
    assert state.fair is not None and (state.fair.running, state.fair.waiting, state.demand.now) == (0, 0, 0)
    assert found.enter(flow, world.monotonic()).turn is None


async def test_who_waits_goes_on_when_the_queues_change(world: SimulatedWorld) -> None:
    found = flows(1)
    found.world = world
    flow = found.flow_of(BOB, PODS)
    first, second = (found.enter(flow, world.monotonic()) for _ in range(2))
    queuing = {"queues": 3, "handSize": 1, "queueLengthLimit": 10}
    found.configure({"own": level("own", 1000, type="Queue", queuing=queuing)}, {"all": found.schemas["all"].obj})
    found.levels["own"].set_seats(1, 0.0)
    assert second.turn is not None and not second.turn.done()
    found.leave(first, world.monotonic())
    await found.wait(second)
    found.leave(second, world.monotonic())
    assert found.levels["own"].fair.running == 0  # type: ignore[union-attr]


def test_large_lists_are_wide() -> None:
    assert [list_seats(n, "") for n in (0, 100, 101, 5000)] == [1, 1, 2, 10]
    assert list_seats(5000, "150") == 2 and list_seats(5000, "0") == 10 and list_seats(5, "x") == 1


def test_plain_limits() -> None:
    plain = InFlight(1, 1)
    read, write = plain.flow_of(BOB, PODS), plain.flow_of(BOB, parse_request("POST", "/api/v1/pods", {}))
    slot = plain.enter(read, 0.0)
    plain.enter(write, 0.0)
    with pytest.raises(TooManyRequests):
        plain.enter(read, 0.0)
    assert plain.enter(plain.flow_of(ADMIN, PODS), 0.0).reads is None
    plain.leave(slot, 0.0)
    plain.enter(read, 0.0)
