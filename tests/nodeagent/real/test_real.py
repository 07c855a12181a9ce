"""API server, agent, crun: real pods in a throwaway node. What no simulation can show."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from apiserver.assembly import assemble
from apiserver.config import Config as ServerConfig
from apiserver.request import User
from apiserver.storage.memory import MemoryStore
from lab.certificates import Authority
from navarch.api.errors import AlreadyExists, NotFound
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.linux.cgroups import Cgroups, own_cgroup
from nodeagent.main import make_runtime
from tests.nodeagent.flipper import exchange, flipping

pytestmark = pytest.mark.node
PORT = 10250
ADDRESS = "10.9.0.1"


class Cluster:
    """A one-node cluster in this process."""

    def __init__(self, client: Client, agent: Agent, pki: Path) -> None:
        self.client, self.agent, self.pki = client, agent, pki
        self.pods = client[core_v1.Pod]

    async def pod(self, name: str, spec: dict[str, Any], **meta: Any) -> core_v1.Pod:
        for c in [*spec["containers"], *spec.get("initContainers", ())]:
            c.setdefault("image", "busybox")
            c.setdefault("imagePullPolicy", "IfNotPresent")
        tree = {
            "metadata": {"name": name, "namespace": "default", **meta},
            "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 2, "automountServiceAccountToken": False} | spec,
        }
        return await self.pods.create(msgspec.convert(tree, core_v1.Pod), "default")

    async def until(self, name: str, condition: Callable[[core_v1.Pod], Any], timeout: float = 20) -> core_v1.Pod:
        found = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = await self.pods.get(name, "default")
                    if condition(found):
                        return found
                    await asyncio.sleep(0.02)
        except TimeoutError:
            told = [e.message for e in (await self.client[core_v1.Event].list("default")).items]
            status = msgspec.json.encode(found.status if found else None).decode()
            raise AssertionError(f"not so: {status}\n{told}") from None

    async def until_gone(self, name: str) -> None:
        async with asyncio.timeout(20):
            with contextlib.suppress(NotFound):
                while True:
                    await self.pods.get(name, "default")
                    await asyncio.sleep(0.02)

    def session(self, user: str = "kubelet-client") -> aiohttp.ClientSession:
        """A client of the agent's server."""
        context = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
        if user:
            context.load_cert_chain(self.pki / f"{user}.crt", self.pki / f"{user}.key")
        return aiohttp.ClientSession(f"https://{ADDRESS}:{PORT}", connector=aiohttp.TCPConnector(ssl=context))

    async def log(self, name: str, container: str = "a", **query: str) -> str:
        async with self.session() as session, session.get(f"/containerLogs/default/{name}/{container}", params=query) as r:
            return await r.text()

    async def exec(self, name: str, *command: str, stdin: bytes | None = None) -> tuple[str, dict[str, Any]]:
        """Output and final status."""
        query = [("command", c) for c in command] + [("stdout", "1"), ("stderr", "1")]
        if stdin is not None:
            query.append(("stdin", "1"))
        out, status = b"", {}
        async with self.session() as session:
            path = f"/exec/default/{name}/a"
            async with session.ws_connect(path, params=query, protocols=["v5.channel.k8s.io"]) as socket:
                if stdin is not None:
                    await socket.send_bytes(b"\0" + stdin)
                    await socket.send_bytes(b"\xff\0")
                async for message in socket:
                    if message.data[0] in (1, 2):
                        out += message.data[1:]
                    elif message.data[0] == 3:
                        status = json.loads(message.data[1:])
        return out.decode(), status


def named(cls: type[Any], name: str, namespace: str | None = None) -> Any:
    return msgspec.convert({"metadata": {"name": name, "namespace": namespace}}, cls)


def running(pod: core_v1.Pod) -> bool:
    return pod.status.phase == "Running" and all(s.ready for s in pod.status.container_statuses or ())


def done(pod: core_v1.Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


@contextlib.asynccontextmanager
async def started(world: RealWorld, client: Client, image_root: Path, folder: Path) -> AsyncIterator[Agent]:
    config = Config(
        node_name="n1", node_ip=ADDRESS, root_dir=folder / "node", run_dir=Path("/run/navarch"), port=PORT,
        image_root=image_root, cpu="4", memory="2Gi", pod_cidr="10.244.7.0/24", cluster_dns=("10.96.0.10",), pod_max_pids=200,
        eviction_hard="",  # the disk is the machine's
        tls_cert_file=str(folder / "pki/node.crt"), tls_private_key_file=str(folder / "pki/node.key"),
        client_ca_file=str(folder / "pki/ca.crt"),
    )  # fmt: skip
    agent = Agent(config, client, world, make_runtime(config, world))
    task = asyncio.ensure_future(agent.run())
    ready = asyncio.ensure_future(agent.ready.wait())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        task.result()
    try:
        yield agent
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def control_plane(world: RealWorld, folder: Path) -> AsyncIterator[tuple[Client, Client]]:
    """An administrator's client and the node's."""
    pki = folder / "pki"
    pki.mkdir()
    authority = Authority(pki, "test")
    authority.issue("node", "system:node:n1", ("system:nodes",), (ADDRESS,))
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
    authority.issue("nobody", "nobody")
    store = MemoryStore()
    server = assemble(world, store, ServerConfig())
    task = asyncio.ensure_future(server.run(listen=False))
    try:
        async with asyncio.timeout(10):
            while not server.ready:
                await asyncio.sleep(0.01)
        admin = User("admin", groups=("system:masters", "system:authenticated"))
        node = User("system:node:n1", groups=("system:nodes", "system:authenticated"))
        client = Client(InProcessTransport(server.app, admin), world)
        for name in ("default", "kube-node-lease"):
            with contextlib.suppress(AlreadyExists):
                await client[core_v1.Namespace].create(named(core_v1.Namespace, name))
        await client[core_v1.ServiceAccount].create(named(core_v1.ServiceAccount, "default", "default"))
        authority_map = named(core_v1.ConfigMap, "kube-root-ca.crt", "default")
        authority_map.data = {"ca.crt": (pki / "ca.crt").read_text()}
        await client[core_v1.ConfigMap].create(authority_map)
        yield client, Client(InProcessTransport(server.app, node), world)
    finally:
        server.stop()
        await task
        await store.close()


def run(image_root: Path, folder: Path, body: Callable[[Cluster], Awaitable[None]]) -> None:
    give_address()
    world = RealWorld()

    async def main() -> None:
        async with (
            control_plane(world, folder) as (client, node),
            started(world, node, image_root, folder) as agent,
        ):
            await body(Cluster(client, agent, folder / "pki"))

    world.run(main)


def give_address() -> None:
    """The node's address; a dummy link would do, but this kernel has none."""
    import subprocess

    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)


def test_logs_exec_and_deletion(image_root: Path, tmp_path: Path) -> None:
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

    run(image_root, tmp_path, body)


def test_volumes_users_and_last_words(image_root: Path, tmp_path: Path) -> None:
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

    run(image_root, tmp_path, body)


def test_probes_restart_and_previous_log(image_root: Path, tmp_path: Path) -> None:
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

    run(image_root, tmp_path, body)


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


def test_sub_paths_while_a_neighbour_swaps_them_for_links(image_root: Path, tmp_path: Path) -> None:
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

    run(image_root, tmp_path, body)


def test_processes_sysctls_and_folders(image_root: Path, tmp_path: Path) -> None:
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

    run(image_root, tmp_path, body)


def _begun(pod: core_v1.Pod) -> Iterator[core_v1.ContainerStatus]:
    """Containers whose start was tried."""
    for status in pod.status.container_statuses or ():
        waiting = status.state.waiting if status.state else None
        if waiting is None or waiting.reason not in ("ContainerCreating", "PodInitializing"):
            yield status


def test_containers_survive_the_agent(image_root: Path, tmp_path: Path) -> None:
    give_address()
    world = RealWorld()

    async def main() -> None:
        async with control_plane(world, tmp_path) as (client, node):
            async with started(world, node, image_root, tmp_path) as agent:
                cluster = Cluster(client, agent, tmp_path / "pki")
                await cluster.pod("p", {"containers": [{"name": "a", "command": ["sleep", "1000"]}]})
                before = await cluster.until("p", running)
            async with started(world, node, image_root, tmp_path) as agent:
                cluster = Cluster(client, agent, tmp_path / "pki")
                assert (await cluster.exec("p", "echo", "here"))[0] == "here\n"
                after = await cluster.until("p", running)
                assert after.status == before.status
                await cluster.pods.delete("p", "default", grace_period_seconds=1)
                await cluster.until_gone("p")

    world.run(main)
