"""Containers for real, on every runtime: crun under conmon, and containerd."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from navarch.api.types import core_v1
from navarch.world import RealWorld
from nodeagent.network.netlink import Netlink
from nodeagent.runtime.base import RealRuntime
from nodeagent.runtime.runtime import Device, Mount, PortMapping, Resources, RuntimeError_
from tests.nodeagent.runtime import harness
from tests.nodeagent.runtime.harness import Kind

pytestmark = pytest.mark.node


async def sleeping(runtime: RealRuntime, container_id: str, seconds: int) -> bool:
    """Whether a ``sleep`` of so many seconds runs in the container."""
    script = f"grep -lsz '^{seconds}$' /proc/[0-9]*/cmdline"
    return (await runtime.exec_sync(container_id, ["sh", "-c", script], 10))[1] != b""


def test_a_container_runs_logs_and_ends(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        container, text = await harness.result(runtime, sandbox, "sh", "-c", "echo hello; hostname; exit 3", name="c")
        assert text == "hello\npod\n"
        assert (container.exit_code, container.reason) == (3, "Error")
        assert container.created <= container.started <= container.finished
        await runtime.remove_sandbox(sandbox)
        assert await runtime.list_containers() == [] and await runtime.list_sandboxes() == []

    harness.run(kind, image_root, tmp_path, body)


def test_failures_say_why(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        before = runtime._cgroups.processes(runtime._cgroups.path(""))  # containerd's sandboxes have one
        for command, words in (
            ("nothere", 'exec: "nothere": executable file not found in $PATH'),
            ("/no/such", 'exec: "/no/such": stat /no/such: no such file or directory'),
            ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
            ("/tmp", 'exec: "/tmp": '),
        ):
            container_id = await runtime.create_container(sandbox, await harness.config(runtime, command, name="c"))
            with pytest.raises(RuntimeError_) as caught:
                await runtime.start_container(container_id)
            assert caught.value.reason == "RunContainerError" and words in caught.value.message
            container = await runtime.container(container_id)
            assert container is not None
            assert (container.state, container.exit_code, container.reason) == ("exited", 128, "StartError")
        mount = Mount("/dev/null/no", "/data")
        with pytest.raises(RuntimeError_, match="/dev/null/no"):
            await harness.result(runtime, sandbox, "true", mounts=(mount,))
        missing = await harness.config(runtime, "true")
        with pytest.raises(RuntimeError_, match="not found"):
            await runtime.create_container(sandbox, replace(missing, image="sha256:" + "0" * 64))
        root = core_v1.SecurityContext(run_as_non_root=True)
        with pytest.raises(RuntimeError_, match="container has runAsNonRoot and image will run as root") as caught:
            await runtime.create_container(sandbox, await harness.config(runtime, "true", security=root))
        assert caught.value.reason == "CreateContainerConfigError"
        assert runtime._cgroups.processes(runtime._cgroups.path("")) == before

    harness.run(kind, image_root, tmp_path, body)


def supplementary(text: str) -> str:
    """The output of ``id`` without the primary group among the others, where containerd puts it."""
    return re.sub(r"gid=(\S+) groups=\1,", r"gid=\1 groups=", text)


def test_security_settings(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        sandbox = await runtime.run_sandbox(harness.sandbox_config(privileged=True))
        numbers = itertools.count()

        async def run(script: str, **security: Any) -> str:
            context = msgspec.convert(security, core_v1.SecurityContext)
            pod = core_v1.PodSecurityContext(fs_group=2000, supplemental_groups=[3000])
            more = {"security": context, "pod_security": pod, "name": f"c{next(numbers)}"}
            return (await harness.result(runtime, sandbox, "sh", "-c", script, **more))[1]

        assert supplementary(await run("id")) == "uid=0(root) gid=0(root) groups=2000,3000\n"
        assert supplementary(await run("id; echo $HOME", runAsUser=101)) == (
            "uid=101(web) gid=102(www) groups=103(extra),2000,3000\n/home/web\n"
        )
        assert await run("id -u; id -g", runAsUser=1234, runAsGroup=5678) == "1234\n5678\n"
        assert "Read-only" in await run("touch /x 2>&1", readOnlyRootFilesystem=True)
        assert await run("touch /x && echo yes") == "yes\n"
        assert int(await run("ulimit -n")) > 1024
        bits = "grep -E 'CapEff|NoNewPrivs' /proc/self/status | tr -d '\\n'"
        assert await run(bits) == "CapEff:\t00000000a80425fbNoNewPrivs:\t0"
        assert await run(bits, capabilities={"drop": ["ALL"]}, allowPrivilegeEscalation=False) == (
            "CapEff:\t0000000000000000NoNewPrivs:\t1"
        )
        assert await run(bits, capabilities={"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}) == (
            "CapEff:\t0000000000000400NoNewPrivs:\t0"
        )
        assert "denied" in await run("echo 1 > /proc/sys/kernel/hostname 2>&1; mount -t tmpfs x /tmp 2>&1")
        assert await run("mount -t tmpfs x /tmp && echo mounted", privileged=True) == "mounted\n"
        assert await run("ls /dev | wc -l", privileged=True) != "0\n"
        seccomp = {"type": "RuntimeDefault"}
        assert await run("unshare -U true 2>&1 | head -1; grep Seccomp: /proc/self/status", seccompProfile=seccomp) == (
            "unshare: unshare(0x10000000): Operation not permitted\nSeccomp:\t2\n"
        )

    harness.run(kind, image_root, tmp_path, body)


SERVE = "echo hi > /tmp/f; httpd -f -p 80 -h /tmp"


def fetch(address: str, port: int) -> str:
    """A script that gets what SERVE serves (and waits a second for it to begin)."""
    ask = f"printf 'GET /f HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} {port} 2>/dev/null | tail -n 1 | grep hi"
    return f"for i in 1 2 3 4 5 6 7 8 9; do {ask} && exit 0; sleep 0.1; done; exit 1"


def following(address: str) -> str:
    return str(ipaddress.ip_address(address) + 1)


def give_node_address() -> None:
    """Pods see the node by an address, as it has one in a cluster."""
    with Netlink() as netlink, contextlib.suppress(OSError):  # another test on this node gave it already
        netlink.set_up(netlink.index("lo"))
        netlink.add_address(netlink.index("lo"), "192.0.2.1", 32)
        netlink.commit()


def test_pod_network(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        one = await runtime.run_sandbox(harness.sandbox_config("one", sysctls={"net.core.somaxconn": "77"}))
        two = await runtime.run_sandbox(harness.sandbox_config("two"))
        host = await runtime.run_sandbox(harness.sandbox_config("host", host_network=True))
        ips = {sandbox.config.name: sandbox.ip for sandbox in await runtime.list_sandboxes()}
        first = ips["one"]
        assert ips == {"one": first, "two": following(first), "host": ""} and first.startswith("10.244.7.")
        server = await runtime.create_container(one, await harness.config(runtime, "sh", "-c", SERVE))
        await runtime.start_container(server)
        give_node_address()
        get = fetch(first, 80)
        for sandbox in (one, two, host):
            container, text = await harness.result(runtime, sandbox, "sh", "-c", get, name="get")
            assert (container.exit_code, text) == (0, "hi\n")
        _, text = await harness.result(runtime, one, "sh", "-c", "cat /proc/sys/net/core/somaxconn; ip route", name="look")
        assert text.splitlines() == ["77", "default via 169.254.1.1 dev eth0 ", "169.254.1.1 dev eth0 scope link "]
        # An address of the range that no pod has is unreachable at once, rather than routed away.
        _, text = await harness.result(runtime, two, "sh", "-c", "nc -w 5 10.244.7.250 80 2>&1", name="none")
        assert "unreachable" in text or "No route" in text
        await runtime.stop_sandbox(one)
        await runtime.stop_sandbox(one)
        stopped = await runtime.container(server)
        assert stopped is not None and stopped.exit_code == 137
        await runtime.remove_sandbox(one)
        three = await runtime.run_sandbox(harness.sandbox_config("three"))
        third = next(s.ip for s in await runtime.list_sandboxes() if s.id == three)
        assert third == following(following(first))  # not the freed one

    harness.run(kind, image_root, tmp_path, body)


def test_host_ports(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        give_node_address()
        ports = (PortMapping(80, 8080), PortMapping(80, 8081, host_ip="192.0.2.1"))
        web = await runtime.run_sandbox(harness.sandbox_config("web", port_mappings=ports))
        other = await runtime.run_sandbox(harness.sandbox_config("other"))
        host = await runtime.run_sandbox(harness.sandbox_config("host", host_network=True))
        server = await runtime.create_container(web, await harness.config(runtime, "sh", "-c", SERVE))
        await runtime.start_container(server)

        async def ask(sandbox: str, address: str, port: int) -> bool:
            script = fetch(address, port)
            return (await harness.result(runtime, sandbox, "sh", "-c", script, name="ask"))[0].exit_code == 0

        for sandbox in (web, other, host):
            assert await ask(sandbox, "192.0.2.1", 8080) and await ask(sandbox, "192.0.2.1", 8081)
        assert await ask(host, "127.0.0.1", 8080) and not await ask(host, "127.0.0.1", 8081)
        with pytest.raises(RuntimeError_, match="File exists"):
            await runtime.run_sandbox(harness.sandbox_config("second", port_mappings=ports))
        await runtime.remove_sandbox(web)
        await runtime.run_sandbox(harness.sandbox_config("third", port_mappings=ports))

    harness.run(kind, image_root, tmp_path, body)


async def exec_of_short_commands(runtime: RealRuntime, main: str) -> None:
    """exec_sync: the command's exit code and output, a command that is not there, and one that takes too long."""
    assert await runtime.exec_sync(main, ["sh", "-c", "echo out $A; echo err >&2; exit 7"], 10) == (7, b"out b c\nerr\n")
    code, output = await runtime.exec_sync(main, ["nothere"], 10)
    assert code == 126 and b"not found" in output
    for timeout in (0.2, 2, 20):  # until it was long enough for the command to begin
        with pytest.raises(TimeoutError):
            await runtime.exec_sync(main, ["sh", "-c", "sleep 1001 & echo > /tmp/began; wait"], timeout)
        if (await runtime.exec_sync(main, ["cat", "/tmp/began"], 10))[0] == 0:
            break
    if runtime.name == "containerd":  # CRI ends the command, and not what it has started
        async with asyncio.timeout(10):
            while not await sleeping(runtime, main, 1001):
                await asyncio.sleep(0.02)
    else:
        assert not await sleeping(runtime, main, 1001)


async def exec_with_stdin_and_both_streams(runtime: RealRuntime, main: str) -> None:
    running = await runtime.exec(main, ["sh", "-c", "cat; echo end >&2"], stdin=True, tty=False)

    async def feed() -> None:
        await running.write(b"x" * 200_000)
        await running.close_stdin()

    streams = {1: b"", 2: b""}
    async with RealWorld().task_group() as group:
        group.start(feed())
        async for number, data in running.read():
            streams[number] += data
    assert (len(streams[1]), streams[2], await running.wait()) == (200_000, b"end\n", 0)
    await running.close()


async def exec_on_a_terminal(runtime: RealRuntime, main: str) -> None:
    # Of CRI's streams each comes in its own time: the size may follow what was typed after it.
    # busybox' stty says nothing, and ends well, while the terminal has no size.
    script = 'read x; until size=$(stty size 2> /dev/null) && [ "$size" ]; do sleep 0.01; done; echo $size; tty; echo $x $TERM'
    running = await runtime.exec(main, ["sh", "-c", script], stdin=True, tty=True)
    await running.resize(101, 37)
    await running.write(b"word\n")
    text = b"".join([data async for _, data in running.read()])
    assert text.split() == [b"word", b"37", b"101", b"/dev/pts/0", b"word", b"xterm"]
    assert await running.wait() == 0
    await running.close()


async def exec_ends_when_its_caller_goes(runtime: RealRuntime, main: str) -> None:
    running = await runtime.exec(main, ["sleep", "1002"], stdin=False, tty=False)
    while not await sleeping(runtime, main, 1002):
        pass
    await running.close()
    assert not await sleeping(runtime, main, 1002)


async def test_exec(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async with harness.runtime(kind, image_root, tmp_path) as runtime:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        main = await runtime.create_container(sandbox, await harness.config(runtime, "sleep", "1000", env=(("A", "b c"),)))
        await runtime.start_container(main)
        await exec_of_short_commands(runtime, main)
        await exec_with_stdin_and_both_streams(runtime, main)
        await exec_on_a_terminal(runtime, main)
        if not kind.is_cri:  # CRI has no way to end an exec
            await exec_ends_when_its_caller_goes(runtime, main)
        await runtime.stop_container(main, 0)
        with pytest.raises(RuntimeError_, match="not running"):
            await runtime.exec_sync(main, ["true"], 1)
        assert not list(Path("/run/navarch/containers").glob("*/exec-*"))


def test_attach_and_reopen_log(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        script = "while read x; do echo got $x; echo bad >&2; done; echo bye"
        config = await harness.config(runtime, "sh", "-c", script, stdin=True, stdin_once=True)
        container_id = await runtime.create_container(sandbox, config)
        await runtime.start_container(container_id)
        attached = await runtime.attach(container_id, stdin=True)
        await attached.write(b"a\n")
        seen: list[tuple[int, bytes]] = []
        async for item in attached.read():
            seen.append(item)
            if len(seen) == 2:
                await runtime.reopen_log(container_id)
                log = Path((await harness.known(runtime, container_id)).log_path)
                log.rename(f"{log}.1")
                await runtime.reopen_log(container_id)
                await harness.until(log.exists)
                await attached.close_stdin()
        assert sorted(seen[:2]) == [(1, b"got a\n"), (2, b"bad\n")] and seen[2:] == [(1, b"bye\n")]
        assert await attached.wait() == 0
        await attached.close()
        assert harness.log_text(await harness.until_exited(runtime, container_id)) == "bye\n"

    harness.run(kind, image_root, tmp_path, body)


def test_attach_to_a_terminal(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        script = "read x; until [ \"$(stty size)\" = '30 90' ]; do sleep 0.01; done; echo sized"  # it may follow the input
        terminal = await runtime.create_container(
            sandbox, await harness.config(runtime, "sh", "-c", script, stdin=True, tty=True, name="tty")
        )
        await runtime.start_container(terminal)
        attached = await runtime.attach(terminal, stdin=True)
        await attached.resize(90, 30)
        await attached.write(b"go\n")
        text = b"".join([data async for _, data in attached.read()])
        assert b"sized" in text
        await harness.until_exited(runtime, terminal)
        with pytest.raises(RuntimeError_, match="not running"):
            await runtime.attach(terminal, stdin=False)

    harness.run(kind, image_root, tmp_path, body)


def test_attach_without_stdin_once(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    """The input stays open for the next client; who has no more to say has done with it."""

    async def body(runtime: RealRuntime) -> None:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        for name, tty in (("open", False), ("open-tty", True)):
            script = "while read x; do echo got $x; done"
            options = {"stdin": True, "tty": tty, "name": name}
            open_ = await runtime.create_container(sandbox, await harness.config(runtime, "sh", "-c", script, **options))
            await runtime.start_container(open_)
            for word in ("one", "two"):
                attached = await runtime.attach(open_, stdin=True)
                await attached.write(f"{word}\n".encode())
                await attached.close_stdin()
                async with asyncio.timeout(10):
                    assert all([data async for _, data in attached.read()]) and await attached.wait() == 0
                await attached.close()
                log = await harness.known(runtime, open_)
                await harness.until(lambda log=log, word=word: f"got {word}" in harness.log_text(log))
            assert (await harness.known(runtime, open_)).state == "running"

    harness.run(kind, image_root, tmp_path, body)


def test_memory_limit_and_usage(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        pod = Resources(cpu_shares=512, cpu_quota=50_000, memory_limit=128 << 20, pids_limit=100)
        sandbox = await runtime.run_sandbox(harness.sandbox_config(resources=pod))
        own = Resources(cpu_shares=256, memory_limit=16 << 20, pids_limit=20, oom_score_adj=500)
        container, text = await harness.result(runtime, sandbox, "tail", "/dev/zero", name="eat", resources=own)
        assert (container.exit_code, container.reason) == (137, "OOMKilled")
        eat = "cat /proc/self/oom_score_adj; tail /dev/zero; exit $?"
        container, text = await harness.result(runtime, sandbox, "sh", "-c", eat, name="child", resources=own)
        assert (container.exit_code, container.reason, text.splitlines()[0]) == (137, "OOMKilled", "500")
        main = await runtime.create_container(sandbox, await harness.config(runtime, "sleep", "1000", resources=own))
        await runtime.start_container(main)
        usage = await runtime.usage()
        own_usage, whole = usage.containers[main], next(iter(usage.pods.values()))
        assert 0 < own_usage.cpu < 5 and 0 < own_usage.working_set < 16 << 20 and own_usage.faults > 0
        assert whole.cpu > own_usage.cpu and usage.node is not None and usage.node.cpu >= whole.cpu
        cgroups = runtime._cgroups
        assert cgroups.usage(cgroups.path("burstable/podpod")) is not None
        await runtime.remove_sandbox(sandbox)
        assert cgroups.usage(cgroups.path("burstable/podpod")) is None

    harness.run(kind, image_root, tmp_path, body)


def test_resize(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    """Limits of a container that runs, and of its pod, go up and down; below what is in use they cannot."""

    async def body(runtime: RealRuntime) -> None:
        def both(cpu: int, memory: int) -> Resources:
            return Resources(cpu_shares=cpu, cpu_quota=cpu * 100, memory_limit=memory << 20)

        sandbox = await runtime.run_sandbox(harness.sandbox_config(resources=both(200, 64)))
        main = await runtime.create_container(sandbox, await harness.config(runtime, "sleep", "1000", resources=both(200, 64)))
        await runtime.start_container(main)
        cgroups = runtime._cgroups
        places = [cgroups.path("burstable/podpod"), cgroups.path(f"burstable/podpod/{main}")]

        def limits(cgroup: str) -> tuple[int, int]:
            if cgroups.unified:
                top = cgroups.v2 / cgroup.lstrip("/")
                return int((top / "cpu.max").read_text().split()[0]), int((top / "memory.max").read_text()) >> 20
            cpu, memory = (cgroups.v1[c] / cgroup.lstrip("/") for c in ("cpu", "memory"))
            size = int((memory / "memory.limit_in_bytes").read_text()) >> 20
            return int((cpu / "cpu.cfs_quota_us").read_text()), size

        for pod, own in ((300, 300), (300, 100), (100, 100)):
            if pod >= 300:
                await runtime.resize_sandbox(sandbox, both(pod, pod))
            await runtime.resize_container(main, both(own, own))
            await runtime.resize_sandbox(sandbox, both(pod, pod))
            assert [limits(place) for place in places] == [(pod * 100, pod), (own * 100, own)]
        with pytest.raises(RuntimeError_, match="below current usage"):
            await runtime.resize_container(main, Resources(memory_limit=4096))
        assert limits(places[1]) == (10000, 100)
        await runtime.stop_container(main, 0)
        with pytest.raises(RuntimeError_, match="does not run"):
            await runtime.resize_container(main, both(100, 100))

    harness.run(kind, image_root, tmp_path, body)


def test_stop_honours_grace(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        script = "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"
        polite = await runtime.create_container(sandbox, await harness.config(runtime, "sh", "-c", script))
        deaf = await runtime.create_container(sandbox, await harness.config(runtime, "sleep", "1000", name="deaf"))
        for container_id in (polite, deaf):
            await runtime.start_container(container_id)
        log = Path((await harness.known(runtime, polite)).log_path)
        await harness.until(lambda: "up" in log.read_text())
        await runtime.stop_container(polite, 30)
        assert (await harness.known(runtime, polite)).exit_code == 5
        await runtime.stop_container(deaf, 0.1)
        await runtime.stop_container(deaf, 0.1)
        assert (await harness.known(runtime, deaf)).exit_code == 137
        await runtime.remove_container(deaf)
        await runtime.remove_container(deaf)
        assert await runtime.container(deaf) is None

    harness.run(kind, image_root, tmp_path, body)


def test_shared_namespaces(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        shared = await runtime.run_sandbox(harness.sandbox_config("shared", share_process_namespace=True))
        one = await runtime.create_container(shared, await harness.config(runtime, "sh", "-c", "sleep 1000 & wait", name="one"))
        await runtime.start_container(one)
        _, text = await harness.result(
            runtime, shared, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; echo; ps | grep -c '[s]leep.1000'", name="two"
        )
        lines = text.splitlines()
        assert lines[0] == "/pause -P " and int(lines[1]) >= 2
        await runtime.stop_container(one, 0)
        _, text = await harness.result(runtime, shared, "sh", "-c", "ps | grep '[s]leep'", name="three")
        assert text == ""  # its child went with it, although it is not its PID namespace's first
        await runtime.remove_sandbox(shared)
        host = await runtime.run_sandbox(harness.sandbox_config("host", host_pid=True, host_ipc=True, host_network=True))
        _, text = await harness.result(runtime, host, "sh", "-c", "hostname; cat /proc/1/cmdline | tr '\\0' ' '", name="look")
        assert text.startswith("navarch-test-") and "catatonit" in text
        await runtime.remove_sandbox(host)
        # /dev/shm and the host name are the pod's
        pod = await runtime.run_sandbox(harness.sandbox_config("pod"))
        await harness.result(runtime, pod, "sh", "-c", "echo there > /dev/shm/x", name="write")
        _, text = await harness.result(runtime, pod, "sh", "-c", "cat /dev/shm/x; hostname", name="read")
        assert text == "there\npod\n"

    harness.run(kind, image_root, tmp_path, body)


def test_events(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        seen: list[tuple[str, str]] = []

        async def listen() -> None:
            async for event in runtime.events():
                seen.append((event.kind, event.pod_uid))
                if event.kind == "removed" and not event.container_id:
                    return

        async with RealWorld().task_group() as group:
            group.start(listen())
            sandbox = await runtime.run_sandbox(harness.sandbox_config())
            await harness.result(runtime, sandbox, "true")
            await runtime.remove_sandbox(sandbox)
        assert seen == [(kind, "uid-pod") for kind in ("started", "exited", "sandbox", "removed", "removed")]

    harness.run(kind, image_root, tmp_path, body)


def test_mounts(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(runtime: RealRuntime) -> None:
        (tmp_path / "a/sub").mkdir(parents=True)
        (tmp_path / "a/file").write_text("content")
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        mounts = (
            Mount(str(tmp_path / "a/file"), "/data/deep/file"),
            Mount(str(tmp_path / "a/file"), "/etc/hosts", read_only=True),
            Mount(str(tmp_path / "a"), "/data", propagation="HostToContainer"),
            Mount(str(tmp_path / "a"), "/ro", read_only=True),
        )
        (tmp_path / "a/deep").mkdir()
        script = "exec 2>&1; cat /data/deep/file /etc/hosts; touch /data/new; touch /ro/no; pwd"
        _, text = await harness.result(runtime, sandbox, "sh", "-c", script, mounts=mounts, working_dir="/made/here")
        assert text == "contentcontenttouch: /ro/no: Read-only file system\n/made/here\n"
        assert (tmp_path / "a/new").exists()

    harness.run(kind, image_root, tmp_path, body)


def test_a_container_gets_devices(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    """By their nodes, by a folder of nodes, and by a CDI name; no other is there, and what is no device is refused."""
    cdi = Path("/run/cdi")

    async def body(runtime: RealRuntime) -> None:
        cdi.mkdir(exist_ok=True)
        edits = {"env": ["CDI=yes"], "deviceNodes": [{"path": "/dev/by-name", "hostPath": "/dev/full"}]}
        devices = [{"name": "one", "containerEdits": edits}]
        text = msgspec.json.encode({"cdiVersion": "0.6.0", "kind": "example.com/gpu", "devices": devices})
        (cdi / "gpu.json").write_bytes(text)
        sandbox = await runtime.run_sandbox(harness.sandbox_config())
        script = "exec 2>&1; ls /dev; echo x > /dev/fake0 && echo wrote; echo x > /dev/by-name || echo full; echo $CDI"
        _, text_out = await harness.result(
            runtime, sandbox, "sh", "-c", script, name="c",
            devices=[Device("/dev/null", "/dev/fake0", "rw")], cdi_devices=["example.com/gpu=one"],
        )  # fmt: skip
        assert {"fake0", "by-name"} <= set(text_out.split()) and "kmsg" not in text_out.split()
        assert "wrote\n" in text_out and text_out.endswith("full\nyes\n")
        for wrong, words in (
            ({"devices": [Device("/etc/passwd", "/dev/x")]}, '"/etc/passwd" is not a device node'),
            ({"cdi_devices": ["example.com/gpu=two"]}, "unresolvable CDI devices example.com/gpu=two"),
        ):
            with pytest.raises(RuntimeError_, match=words):
                await runtime.create_container(sandbox, await harness.config(runtime, "true", name="d", **wrong))
        await runtime.remove_sandbox(sandbox)

    harness.run(kind, image_root, tmp_path, body)


async def test_port_forward(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    """To a port that only the pod's loopback has, to one that nobody has, and on the node's own network."""
    give_node_address()
    async with harness.runtime(kind, image_root, tmp_path) as runtime:
        for name, host_network in (("own", False), ("host", True)):
            sandbox = await runtime.run_sandbox(harness.sandbox_config(name, host_network=host_network))
            serve = "echo hello > /tmp/f; httpd -f -p 127.0.0.1:8099 -h /tmp"
            server = await runtime.create_container(sandbox, await harness.config(runtime, "sh", "-c", serve))
            await runtime.start_container(server)
            with pytest.raises(RuntimeError_, match="failed to connect to localhost:81 inside the pod: dial tcp4"):
                await runtime.port_forward(sandbox, 81)

            async def text(sandbox: str = sandbox) -> bytes:
                reader, writer = await runtime.port_forward(sandbox, 8099)
                try:
                    writer.write(b"GET /f HTTP/1.0\r\n\r\n")
                    return (await reader.read()).splitlines()[-1]
                finally:
                    writer.close()

            async with asyncio.timeout(10):
                while True:
                    with contextlib.suppress(RuntimeError_):  # it does not listen yet
                        assert await text() == b"hello"
                        break
                    await asyncio.sleep(0.02)
            await runtime.remove_sandbox(sandbox)
