"""API server, agent, crun: real pods in a throwaway node. What no simulation can show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from navarch.api.types import core_v1
from navarch.world import RealWorld
from nodeagent.linux.cgroups import Cgroups, own_cgroup
from tests.nodeagent.flipper import exchange, flipping
from tests.nodeagent.real.onenode import Cluster, control_plane, done, give_address, run, running, started
from tests.nodeagent.runtime.kinds import Kind

pytestmark = pytest.mark.node


def test_logs_exec_and_deletion(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        script = "trap 'echo bye; exit 0' TERM; echo hello; echo oops >&2; sleep 1000 & wait"
        container: dict[str, Any] = {"name": "a", "command": ["sh", "-c", script], "env": [{"name": "V", "value": "1"}]}
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sh", "-c", "echo leaving > /proc/1/fd/1"]}}}
        await cluster.pod("p", {"containers": [container]})
        pod = await cluster.until("p", running)
        assert pod.status.pod_ip and pod.status.pod_ip.startswith("10.244.7.")
        assert sorted((await cluster.log("p")).splitlines()) == ["hello", "oops"]
        assert await cluster.log("p", tailLines="0") == ""
        assert (await cluster.log("p", timestamps="true", tailLines="1")).startswith("20")
        out, status = await cluster.exec("p", "sh", "-c", "echo $V; hostname; cat; exit 3", stdin=b"typed")
        assert out == "1\np\ntyped" and status["details"]["causes"][0] == {"reason": "ExitCode", "message": "3"}
        assert (await cluster.exec("p", "cat", "/etc/hosts"))[0].endswith(f"{pod.status.pod_ip}\tp\n")
        following = asyncio.ensure_future(cluster.log("p", follow="true"))
        await asyncio.sleep(0.2)
        await cluster.pods.delete("p", "default")
        assert (await asyncio.wait_for(following, 10)).endswith("leaving\nbye\n")
        await cluster.until_gone("p")
        for user, code in (("nobody", 403), ("", 401)):
            async with cluster.session(user) as session, session.get("/pods") as answer:
                assert answer.status == code
        async with cluster.session("") as session, session.get("/healthz") as answer:
            assert await answer.text() == "ok"

    run(kind, image_root, tmp_path, body)


def test_volumes_users_and_last_words(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        await cluster.client[core_v1.ConfigMap].create(
            msgspec.convert({"metadata": {"name": "cm", "namespace": "default"}, "data": {"k": "v1"}}, core_v1.ConfigMap)
        )
        script = "id -u; cat /cm/k; echo; stat -c '%a %g' /cm/k /e; echo x > /e/f; echo last > /dev/termination-log; exit 4"
        mounts = [{"name": "cm", "mountPath": "/cm"}, {"name": "e", "mountPath": "/e"}]
        spec = {
            "restartPolicy": "Never",
            "securityContext": {"runAsUser": 1000, "fsGroup": 2000},
            "initContainers": [{"name": "i", "command": ["sh", "-c", "echo init > /e/i"], "volumeMounts": mounts}],
            "containers": [
                {
                    "name": "a",
                    "command": ["sh", "-c", script],
                    "volumeMounts": mounts,
                }
            ],
            "volumes": [{"name": "cm", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {"medium": "Memory"}}],
        }
        await cluster.pod("p", spec)
        pod = await cluster.until("p", done)
        ended = (pod.status.container_statuses or [])[0].state.terminated
        assert (ended.exit_code, ended.message, ended.reason) == (4, "last\n", "Error")
        lines = (await cluster.log("p")).splitlines()
        assert lines == ["1000", "v1", "777 0", "2777 2000"] or lines == ["1000", "v1", "644 2000", "2777 2000"], lines
        await cluster.pods.delete("p", "default")
        await cluster.until_gone("p")

    run(kind, image_root, tmp_path, body)


def test_probes_restart_and_previous_log(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        script = "echo run; mkdir -p /w; echo ok > /w/index.html; touch /w/live; httpd -f -p 8080 -h /w"
        alive = {"exec": {"command": ["test", "-e", "/w/live"]}, "periodSeconds": 1, "failureThreshold": 1}
        spec = {
            "containers": [
                {
                    "name": "a",
                    "command": ["sh", "-c", script],
                    "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
                    "livenessProbe": alive,
                    "lifecycle": {"postStart": {"exec": {"command": ["sh", "-c", "echo started > /hook"]}}},
                }
            ]
        }
        await cluster.pod("p", spec)
        await cluster.until("p", running)
        assert (await cluster.exec("p", "cat", "/hook"))[0] == "started\n"
        await cluster.exec("p", "rm", "/w/live")
        await cluster.until("p", lambda p: (p.status.container_statuses or [])[0].restart_count == 1 and running(p))
        assert await cluster.log("p", previous="true") == "run\n"
        await cluster.exec("p", "sh", "-c", "kill -9 1; rm /w/index.html")
        await cluster.until("p", lambda p: not running(p))

    run(kind, image_root, tmp_path, body)


def neighbours() -> dict[str, Any]:
    """A pod's spec: container a has the whole volume e, c0 to c2 its sub path x, which an init container has made."""
    whole = [{"name": "e", "mountPath": "/e"}]
    part = [{"name": "e", "mountPath": "/s", "subPath": "x"}]
    prepare = "mkdir /e/x; touch /e/x/inside; ln -s / /e/y"
    script = "test -e /s/etc/passwd && echo ESCAPED; test -e /s/inside && echo in; sleep 1000"
    return {
        "containers": [
            {"name": "a", "volumeMounts": whole, "command": ["sleep", "1000"]},
            *({"name": f"c{n}", "volumeMounts": part, "command": ["sh", "-c", script]} for n in range(3)),
        ],
        "initContainers": [{"name": "i", "command": ["sh", "-c", prepare], "volumeMounts": whole}],
        "volumes": [{"name": "e", "emptyDir": {}}],
    }


async def very_deep_volumes_go(cluster: Cluster, folder: Path) -> None:
    """The pod makes a hundred directories in each other; its volume goes with it all the same."""
    deep = "cd /e; i=0; while [ $i -lt 100 ]; do mkdir d && cd d; i=$((i+1)); done; echo $i"
    assert (await cluster.exec("p", "sh", "-c", deep))[0] == "100\n"
    await cluster.pods.delete("p", "default")
    await cluster.until_gone("p")
    async with asyncio.timeout(20):
        while folder.exists():
            await asyncio.sleep(0.01)


def test_sub_paths_while_a_neighbour_swaps_them_for_links(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    async def body(cluster: Cluster) -> None:
        pod = await cluster.pod("p", neighbours())
        folder = tmp_path / "node/pods" / (pod.metadata.uid or "") / "volumes/kubernetes.io~empty-dir/e"
        async with asyncio.timeout(20):
            while not (folder / "y").is_symlink():
                await asyncio.sleep(0.01)
        with flipping(folder / "x", folder / "y"):
            await cluster.until("p", lambda p: len(list(_begun(p))) >= 2, timeout=50)
        if (folder / "x").is_symlink():
            exchange(folder / "x", folder / "y")
        await cluster.until("p", running, timeout=60)
        for n in range(3):
            async with asyncio.timeout(20):
                while not (text := await cluster.log("p", f"c{n}")):
                    await asyncio.sleep(0.05)
            assert text == "in\n"
        await very_deep_volumes_go(cluster, folder)

    run(kind, image_root, tmp_path, body)


def test_processes_sysctls_and_folders(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    """A pod has its own limit of processes. Safe kernel parameters are set; a command may be long; a missing folder is
    made."""

    async def body(cluster: Cluster) -> None:
        pod = await cluster.pod("p", {"containers": [{"name": "a", "command": ["sleep", "1000"]}]})
        await cluster.until("p", running)
        await cluster.exec("p", "sh", "-c", "for i in $(seq 300); do sleep 100 >/dev/null 2>&1 & done")
        whole = own_cgroup().removesuffix("/sys")
        used = Cgroups(whole).usage(f"{whole}/pods/besteffort/pod{pod.metadata.uid}")
        assert used is not None and 150 < used.pids <= 200
        sysctls = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "81"}]
        made = tmp_path / "made/here"
        spec = {
            "containers": [{"name": "a", "command": ["sleep", "1000"], "volumeMounts": [{"name": "h", "mountPath": "/h"}]}],
            "securityContext": {"sysctls": sysctls},
            "volumes": [{"name": "h", "hostPath": {"path": str(made)}}],
        }
        await cluster.pod("q", spec)
        await cluster.until("q", running)
        assert made.is_dir()
        assert (await cluster.exec("q", "cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"))[0] == "81\n"
        long = "x" * 100_000
        assert (await cluster.exec("q", "sh", "-c", "echo ${#0}", long))[0] == "100000\n"

    run(kind, image_root, tmp_path, body)


def _begun(pod: core_v1.Pod) -> Iterator[core_v1.ContainerStatus]:
    """Containers whose start was tried."""
    for status in pod.status.container_statuses or ():
        waiting = status.state.waiting if status.state else None
        if waiting is None or waiting.reason not in ("ContainerCreating", "PodInitializing"):
            yield status


def test_containers_survive_the_agent(kind: Kind, image_root: Path, tmp_path: Path) -> None:
    give_address()
    world = RealWorld()

    async def main() -> None:
        async with control_plane(world, tmp_path) as (client, node):
            async with started(kind, world, node, image_root, tmp_path) as agent:
                cluster = Cluster(client, agent, tmp_path / "pki")
                await cluster.pod("p", {"containers": [{"name": "a", "command": ["sleep", "1000"]}]})
                before = await cluster.until("p", running)
            async with started(kind, world, node, image_root, tmp_path) as agent:
                cluster = Cluster(client, agent, tmp_path / "pki")
                assert (await cluster.exec("p", "echo", "here"))[0] == "here\n"
                after = await cluster.until("p", running)
                assert after.status == before.status
                await cluster.pods.delete("p", "default", grace_period_seconds=1)
                await cluster.until_gone("p")

    world.run(main)
