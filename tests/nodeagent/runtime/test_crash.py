"""Whatever dies in the middle of a pod's life, the next step or the next agent gets through, and nothing is left.

| step                         | agent              | crun                  | conmon                |
|------------------------------|--------------------|-----------------------|-----------------------|
| sandbox, shared PID or own   | between any two    | create, delete of its | create                |
|                              | changes (sampled)  | pause process         |                       |
| container made and started   | the same           | create (no start)     | create                |
| exec                         | it ends with it    | exec                  | (has none)            |
| runs                         | test_oci.py        | (is not there)        | running               |
| stops, is removed            | as above           | (is not asked)        | stopping              |

Before, in the middle, after each command. Image volumes: test_imagevolumes.py. containerd, its shims and the agent on it:
tests/e2e/test_containerd.py. Pulls: images/test_registry.py. CSI volumes: csi/faults.py. Volumes of a lab's classes:
tests/controllers/test_localpath.py. nginx: tests/proxy/ingress/test_routes.py and tests/e2e/test_ingress.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from navarch.linux import syscalls
from nodeagent.runtime import conmon
from nodeagent.runtime.oci import OciRuntime
from nodeagent.runtime.runtime import RuntimeError_
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.faulty import Changes, Faulty
from tests.nodeagent.runtime.kinds import OCI

STATE = Path("/run/navarch")
WHEN = ("before", "middle", "after")
FAULTS = [f"crun {command} {when}" for command in ("create", "exec") for when in WHEN]
FAULTS += [f"conmon create {when}" for when in WHEN] + ["conmon running", "conmon stopping"]
COMMANDS_OF_A_PAUSE = ("crun create", "crun delete", "conmon create")
FAULTS_OF_A_PAUSE = [f"{command} {when}" for command in COMMANDS_OF_A_PAUSE for when in WHEN]
KILLS = 10  # of the agent, spread over all its changes


def left() -> list[str]:
    found = [str(p) for name in ("sandboxes", "containers", "exits", "crun") for p in (STATE / name).iterdir()]
    found += [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if f"{STATE}/" in line]
    return found + [name for name in os.listdir("/sys/class/net") if len(name) == 14 and name.startswith("nv")]


def programs() -> list[str]:
    """Processes of the node that are conmon's or crun's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"--root={STATE}" in line:
            found.append(line)
    return found


async def until_nothing_is_left(oci: OciRuntime, data: Path) -> None:
    """What a container wrote is removed behind everybody's back, and a network goes a moment after its pod."""
    assert oci._cgroups.processes(oci._cgroups.path("")) == []
    await harness.until(lambda: left() == [] and programs() == [] and not list((data / "containers").iterdir()), 30)


async def attempt(oci: OciRuntime, sandbox: str, fault: str) -> None:
    """A container's life. Raises RuntimeError_ if something of it fails; then the container is gone, too."""
    container = await oci.create_container(sandbox, await harness.config(oci, "sleep", "1000"))
    try:
        await oci.start_container(container)
        if fault == "conmon running":
            os.kill(oci._containers[container].monitor, signal.SIGKILL)
            assert (await harness.until_exited(oci, container)).exit_code == 137
            raise RuntimeError_("Lost", "as any container that ends, it is made anew")
        code, _ = await oci.exec_sync(container, ["true"], 10)
        if code != 0:
            raise RuntimeError_("ExecFailed", str(code))
        if fault == "conmon stopping":
            os.kill(oci._containers[container].monitor, signal.SIGKILL)
        await oci.stop_container(container, 0)
    finally:
        await oci.remove_container(container)


async def live(oci: OciRuntime, name: str, fault: str = "", shared: bool = False) -> int:
    """A pod's life, as a pod's worker lives it: what fails is taken away and done again. How often something failed."""
    failures = 0

    async def done(work: object) -> object:
        nonlocal failures
        try:
            return await work  # type: ignore[misc]
        except RuntimeError_:
            failures += 1
            return None

    config = harness.sandbox_config(name, share_process_namespace=shared)
    sandbox = await done(oci.run_sandbox(config)) or await done(oci.run_sandbox(config))
    assert isinstance(sandbox, str), "it can be made at the second try"
    before = failures
    await done(attempt(oci, sandbox, fault))
    if failures > before:
        await attempt(oci, sandbox, "")
    await oci.remove_sandbox(sandbox)
    return failures


@pytest.mark.node
def test_crun_or_conmon_dies(image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(oci: OciRuntime) -> None:
        faulty = Faulty(oci, tmp_path / "faulty")
        bystander = await oci.run_sandbox(harness.sandbox_config("bystander"))
        container = await oci.create_container(bystander, await harness.config(oci, "sleep", "1000"))
        await oci.start_container(container)
        for shared, fault in [*((False, f) for f in FAULTS), *((True, f) for f in FAULTS_OF_A_PAUSE)]:
            if fault.count(" ") == 2:
                faulty.order(fault)
            # conmon waits for the streams of a container whose creator died: nobody hears of it until we give up.
            monkeypatch.setattr(conmon, "CREATE_TIMEOUT", 1.0 if fault == "crun create after" else 120.0)
            failures = await asyncio.wait_for(live(oci, "pod", fault, shared), 60)
            assert faulty.waiting() == [], "the fault came"
            assert failures <= 1, fault
            await harness.until(lambda: len(programs()) == 1)  # the bystander's conmon
            assert [s.config.name for s in await oci.list_sandboxes()] == ["bystander"], fault
            processes = oci._cgroups.processes(oci._cgroups.path(""))
            assert processes == [oci._containers[container].pid], fault
        assert (await harness.known(oci, container)).state == "running", "nobody else noticed"
        await oci.remove_sandbox(bystander)
        await until_nothing_is_left(oci, tmp_path)

    harness.run(OCI, image_root, tmp_path, body)


async def recover(oci: OciRuntime) -> None:
    """Uses whatever the agent before left, and removes all of it."""
    for container in await oci.list_containers():
        if container.state == "created":
            await oci.start_container(container.id)
        elif container.state == "running":
            assert await oci.exec_sync(container.id, ["true"], 10) == (0, b"")
    for sandbox in await oci.list_sandboxes():
        await oci.remove_sandbox(sandbox.id)
    for container in await oci.list_containers():
        await oci.remove_container(container.id)


def changes_of_a_life(image_root: Path, data: Path, last: int = 0) -> int:
    """A process that lives the lives of two pods, and dies before its change number ``last`` (0: tells how many there were)."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            changes = Changes(last)

            async def lives(oci: OciRuntime) -> None:
                await live(oci, "a")
                await live(oci, "b", shared=True)

            harness.run(OCI, image_root, data, lives)
            os.write(write, str(changes.count).encode())
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as file:
        count = file.read()
    status = os.waitpid(pid, 0)[1]
    assert not last or status == signal.SIGKILL, f"it ended by {status} before its change {last}"
    return int(count or 0)


@pytest.mark.node
def test_the_agent_dies_between_any_two_changes(image_root: Path, tmp_path: Path) -> None:
    async def recover_all(oci: OciRuntime) -> None:
        await recover(oci)
        await until_nothing_is_left(oci, tmp_path)

    every = changes_of_a_life(image_root, tmp_path)
    assert every > 5 * KILLS
    for number in range(KILLS):
        changes_of_a_life(image_root, tmp_path, 1 + (every - 1) * number // KILLS + number % 3)
        harness.run(OCI, image_root, tmp_path, recover_all)


async def until_there_is_room(oci: OciRuntime, full: Path, fillers: list[Path]) -> int:
    """Makes room file by file, and tries a pod's life each time: at first nothing of it works, then more and more. How many
    lives failed."""
    for failures in range(len(fillers)):
        try:
            await live(oci, "pod")
            return failures
        except (RuntimeError_, AssertionError):
            for sandbox in await oci.list_sandboxes():
                await oci.remove_sandbox(sandbox.id)
            assert await oci.list_containers() == []
            assert oci._cgroups.processes(oci._cgroups.path("")) == []
        fillers.pop().unlink()
    raise AssertionError(f"{full} has room, and still nothing works")


@pytest.mark.node
@pytest.mark.parametrize("place", ["state", "data"])
def test_inodes_are_used_up(place: str, image_root: Path, tmp_path: Path) -> None:
    """What cannot be made for want of inodes is told, leaves nothing, and works once there are some; pods can always go."""
    full = STATE if place == "state" else tmp_path / "data"
    for folder in (STATE, tmp_path / "data"):
        folder.mkdir(parents=True, exist_ok=True)
    syscalls.mount("full", full, "tmpfs", 0, "size=64m,nr_inodes=400")

    async def body(oci: OciRuntime) -> None:
        await live(oci, "first")
        bystander = await oci.run_sandbox(harness.sandbox_config("bystander"))
        container = await oci.create_container(bystander, await harness.config(oci, "sleep", "1000"))
        await oci.start_container(container)
        fillers = []
        with contextlib.suppress(OSError):
            for number in range(1000):
                (full / f"filler-{number}").touch()
                fillers.append(full / f"filler-{number}")
        assert fillers
        await oci.remove_sandbox(bystander)  # with no room at all
        await harness.until(lambda: not list((tmp_path / "data/containers").iterdir()), 30)
        while len(fillers) < 1000:  # and none of what that gave
            try:
                (full / f"filler-{len(fillers)}").touch()
            except OSError:
                break
            fillers.append(full / f"filler-{len(fillers)}")
        assert await until_there_is_room(oci, full, fillers) > 0
        for path in fillers:
            path.unlink()
        await until_nothing_is_left(oci, tmp_path / "data")

    harness.run(OCI, image_root, tmp_path / "data", body)
