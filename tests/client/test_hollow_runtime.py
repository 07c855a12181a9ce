"""The simulated runtime behaves as pods declare, on virtual time."""

from __future__ import annotations

import pytest

from navarch.virtual import SimulatedWorld
from nodeagent.runtime.hollow import HollowRuntime
from nodeagent.runtime.runtime import EXITED, RUNNING, ContainerConfig, Event, RuntimeError_, SandboxConfig
from nodeagent.runtime.stages import PREFIX, Stages, stages


def sandbox(uid: str = "u", **declared: str) -> SandboxConfig:
    annotations = {PREFIX + key.replace("_", "-"): value for key, value in declared.items()}
    return SandboxConfig(uid, "default", "p", annotations=annotations)


def test_stages() -> None:
    declared = {PREFIX + "start": "2s", PREFIX + "web.run": "1.5m", PREFIX + "exit-code": "3"}
    assert stages(declared, "web") == Stages(start=2, run=90, exit_code=3)
    assert stages(declared, "db").run is None
    assert stages(None) == Stages()
    with pytest.raises(ValueError):
        stages({PREFIX + "fail": "later"})


async def test_a_pods_life(world: SimulatedWorld) -> None:
    runtime = HollowRuntime(world, Stages(pull=3))
    await runtime.configure("10.1.2.0/29")
    seen: list[Event] = []

    async def listen() -> None:
        async for event in runtime.events():
            seen.append(event)

    async with world.task_group() as group:
        group.start(listen())
        began = world.monotonic()
        assert await runtime.image("web:1") is None
        image = await runtime.pull("web:1")
        assert world.monotonic() - began == 3 and await runtime.image(image.id) == image
        one = await runtime.run_sandbox(sandbox(start="1s", run="10s", exit_code="2", stop="5s"))
        ids = [await runtime.create_container(one, ContainerConfig(n, 0, image.id)) for n in "ab"]
        began = world.monotonic()
        for identity in ids:
            await runtime.start_container(identity)
        assert world.monotonic() - began == pytest.approx(2)
        await world.sleep(9.5)
        a, b = [await runtime.container(i) for i in ids]
        assert a is not None and (a.state, a.exit_code, a.reason) == (EXITED, 2, "Error")
        assert b is not None and b.state == RUNNING
        await runtime.stop_container(ids[1], 0.1)  # its 5 s are too long: killed
        b = await runtime.container(ids[1])
        assert b is not None and (b.state, b.exit_code) == (EXITED, 137)
        await runtime.stop_sandbox(one)
        await runtime.stop_sandbox(one)
        await runtime.remove_sandbox(one)
        assert await runtime.list_containers() == [] and await runtime.list_sandboxes() == []
        await world.sleep(1)  # the last events are on their way
        group.cancel()
    kinds = [e.kind for e in seen if e.pod_uid == "u"]
    assert kinds == ["sandbox", "started", "started", "exited", "exited", "sandbox"]


async def test_addresses_are_taken_round_and_round(world: SimulatedWorld) -> None:
    """Five of them; one that a sandbox had before is free again."""
    runtime = HollowRuntime(world, Stages(pull=3))
    with pytest.raises(RuntimeError_, match="no pod range"):
        await runtime.run_sandbox(sandbox())
    await runtime.configure("10.1.2.0/29")
    one = await runtime.run_sandbox(sandbox())
    await runtime.stop_sandbox(one)
    await runtime.remove_sandbox(one)
    for n in range(5):
        await runtime.run_sandbox(sandbox(f"u{n}"))
    all_ips = [s.ip for s in await runtime.list_sandboxes()]
    assert len(set(all_ips)) == 5
    with pytest.raises(RuntimeError_, match="no free address"):
        await runtime.run_sandbox(sandbox("u9"))
