"""The cri runtime and containerd: what is adopted after a restart, a runtime that hangs, a CNI plugin without an agent."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from navarch.api.types import core_v1
from nodeagent.images.store import Settings
from nodeagent.runtime.cri import messages, plugin, streaming
from nodeagent.runtime.runtime import ContainerConfig, RuntimeError_, SandboxConfig
from protos import cri_pb2 as cri
from tests.nodeagent.node import Node
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.kinds import RUN, Kind, on_cri

ADOPTED = {"goes-on": ("running", 0), "ends": ("exited", 137), "created": ("created", 0)}


@pytest.fixture
def kind(cri_node: Node) -> Kind:
    return on_cri(cri_node)


@pytest.mark.node
async def test_adoption(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    """A second runtime finds what the first one left running, and what ended meanwhile; it goes on to watch them."""
    config = harness.sandbox_config(share_process_namespace=True, annotations={"a": "b"}, labels={"c": "d"})
    async with harness.runtime(kind, image_root, tmp_path) as first:
        sandbox = await first.run_sandbox(config)
        goes_on, ends, created = [
            await first.create_container(sandbox, await harness.config(first, "sleep", "1000", name=name)) for name in ADOPTED
        ]
        for container_id in (goes_on, ends):
            await first.start_container(container_id)
        pid, before = (await harness.known(first, ends)).pid, await first.list_sandboxes()
    os.kill(pid, signal.SIGKILL)
    (RUN / "cri/networks/lost.json").write_text('{"address": "10.244.7.200"}')
    async with harness.runtime(kind, image_root, tmp_path) as second:
        assert await second.list_sandboxes() == before and before[0].config == config
        await second._container_ended(ends)
        assert {c.name: (c.state, c.exit_code) for c in await second.list_containers()} == ADOPTED
        assert [path.stem for path in (RUN / "cri/networks").iterdir()] == [sandbox]
        await second.start_container(created)
        os.kill((await harness.known(second, goes_on)).pid, signal.SIGKILL)
        assert (await harness.until_exited(second, goes_on)).exit_code == 137


@pytest.mark.node
async def test_a_dead_sandbox_is_told(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async with harness.runtime(kind, image_root, tmp_path) as runtime:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        os.kill(runtime._inventory.pids[sandbox], signal.SIGKILL)
        async with asyncio.timeout(10):
            while (await runtime.list_sandboxes())[0].ready:
                await asyncio.sleep(0.02)
        config = await harness.config(runtime, "true")
        with pytest.raises(RuntimeError_, match="is not ready"):
            await runtime.create_container(sandbox, config)


def stopped(pid: int) -> bool:
    """Whether all threads of a process stand still."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(text.rpartition(")")[2].split()[0] == "T" for text in stats)


@pytest.mark.node
async def test_a_runtime_that_hangs_is_told(
    kind: Kind, image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodeagent.runtime.cri.runtime.STATUS_PATIENCE", 0.2)
    async with harness.runtime(kind, image_root, tmp_path) as runtime:
        (pid,) = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/comm") if p.read_text() == "containerd\n"]
        os.kill(pid, signal.SIGSTOP)
        try:
            await harness.until(lambda: stopped(pid))
            with pytest.raises(RuntimeError_, match="sock does not answer") as caught:
                await runtime.images()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert caught.value.reason == "RuntimeNotReady"
        assert [image.tags for image in await runtime.images()] == [("docker.io/library/busybox:latest",)]


# -- the CNI plugin


def call_plugin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, config: dict[str, Any]
) -> tuple[int, Any]:
    monkeypatch.setenv("CNI_COMMAND", command)
    monkeypatch.setenv("CNI_CONTAINERID", "abc")
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(config)))
    code = plugin.main()
    text = capsys.readouterr().out
    return code, json.loads(text) if text else None


def test_the_plugin_without_an_agent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What is to be made fails, and may be tried again; what is to go is gone."""
    config = {"cniVersion": "0.4.0", "socket": str(tmp_path / "none")}
    code, answer = call_plugin(monkeypatch, capsys, "ADD", config)
    assert (code, answer["code"]) == (1, 11) and "the node agent does not answer" in answer["msg"]
    assert call_plugin(monkeypatch, capsys, "DEL", config) == (0, None)
    code, answer = call_plugin(monkeypatch, capsys, "VERSION", {})
    assert code == 0 and "0.4.0" in answer["supportedVersions"]


@pytest.mark.parametrize("mapping", [
    {"hostPort": 80, "containerPort": 8080, "protocol": "udp", "hostIP": "192.0.2.1"},
    {"HostPort": 80, "ContainerPort": 8080, "Protocol": "udp", "HostIP": "192.0.2.1"},
])  # fmt: skip
def test_the_plugin_reads_port_mappings_in_any_case(mapping: dict[str, Any]) -> None:
    ports = plugin.ports({"runtimeConfig": {"portMappings": [mapping]}})
    assert ports == [{"host_port": 80, "container_port": 8080, "protocol": "UDP", "host_ip": "192.0.2.1"}]


def test_results_of_old_and_new_cni_versions() -> None:
    assert plugin.result("0.4.0", "10.0.0.2", "/ns", "eth0")["ips"][0]["version"] == "4"
    assert "version" not in plugin.result("1.0.0", "10.0.0.2", "/ns", "eth0")["ips"][0]


# -- messages


def users() -> Iterator[tuple[str, dict[str, int], dict[str, int], tuple[int | None, str, int | None]]]:
    """Image's user, container's and pod's contexts; CRI's run_as_user, run_as_username, run_as_group."""
    yield "", {}, {}, (None, "", None)  # the image's own, which is root
    yield "101:102", {}, {}, (None, "", None)  # the image's own, its group included
    yield "", {"runAsUser": 5}, {"runAsUser": 6, "runAsGroup": 7}, (5, "", 7)
    yield "", {"runAsGroup": 7}, {}, (0, "", 7)  # no group without a user
    yield "web:www", {"runAsGroup": 7}, {}, (None, "web", 7)
    yield "12", {}, {"runAsGroup": 7}, (12, "", 7)


@pytest.mark.parametrize(("image", "own", "pod", "expected"), list(users()))
def test_users(
    image: str, own: dict[str, int], pod: dict[str, int], expected: tuple[int | None, str, int | None]
) -> None:
    config = ContainerConfig(
        "c", 0, "sha256:1", security=msgspec.convert(own, core_v1.SecurityContext),
        pod_security=msgspec.convert(pod, core_v1.PodSecurityContext),
    )  # fmt: skip
    sandbox = SandboxConfig("uid", "default", "pod")
    context = messages.container(config, sandbox, Settings(user=image), "id", "/p").linux.security_context
    user = context.run_as_user.value if context.HasField("run_as_user") else None
    group = context.run_as_group.value if context.HasField("run_as_group") else None
    assert (user, context.run_as_username, group) == expected


def test_what_cri_cannot_say_is_refused() -> None:
    strict = core_v1.PodSecurityContext(supplemental_groups_policy="Strict")
    config = ContainerConfig("c", 0, "sha256:1", pod_security=strict)
    with pytest.raises(RuntimeError_, match="supplementalGroupsPolicy: Strict"):
        messages.container(config, SandboxConfig("uid", "default", "pod"), Settings(), "id", "/p")


def test_handlers_of_old_and_new_runtimes() -> None:
    old = cri.StatusResponse(info={"config": '{"containerd": {"runtimes": {"runc": {}, "crun": {}}}}'})
    new = cri.StatusResponse(runtime_handlers=[cri.RuntimeHandler(name=""), cri.RuntimeHandler(name="kata")])
    assert messages.handlers(old) == ("", "crun", "runc") and messages.handlers(new) == ("", "kata")
    assert messages.handlers(cri.StatusResponse()) == ("",)


def test_exit_codes() -> None:
    causes = [{"reason": "ExitCode", "message": "3"}]
    assert streaming.exit_code(b'{"status": "Success"}') == 0
    failed = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    assert streaming.exit_code(json.dumps(failed).encode()) == 3
    for status, words in (
        (b'{"status": "Failure", "message": "no such thing"}', "no such thing"),
        (b"", "broke off"),
        (b"plain text", "plain text"),
    ):
        with pytest.raises(RuntimeError_, match=words):
            streaming.exit_code(status)
