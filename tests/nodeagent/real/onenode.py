"""A cluster of one node in this process: API server, agent, real containers on either runtime."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

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
from nodeagent.main import make_runtime
from tests.nodeagent.runtime.kinds import Kind

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
async def started(
    kind: Kind, world: RealWorld, client: Client, image_root: Path, folder: Path
) -> AsyncIterator[Agent]:
    """An agent on this runtime."""
    config = Config(
        runtime=kind.name, node_name="n1", node_ip=ADDRESS, root_dir=folder / "node", run_dir=Path("/run/navarch"), port=PORT,
        image_root=image_root, cpu="4", memory="2Gi", pod_cidr="10.244.7.0/24", cluster_dns=("10.96.0.10",), pod_max_pids=200,
        tls_cert_file=str(folder / "pki/node.crt"), tls_private_key_file=str(folder / "pki/node.key"),
        client_ca_file=str(folder / "pki/ca.crt"),
        eviction_hard="",  # the disk is the machine's
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


def run(kind: Kind, image_root: Path, folder: Path, body: Callable[[Cluster], Awaitable[None]]) -> None:
    give_address()
    world = RealWorld()

    async def main() -> None:
        async with (
            control_plane(world, folder) as (client, node),
            started(kind, world, node, image_root, folder) as agent,
        ):
            await body(Cluster(client, agent, folder / "pki"))

    world.run(main)


def give_address() -> None:
    """The node's address; a dummy link would do, but this kernel has none."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "replace", f"{ADDRESS}/32", "dev", "lo"], check=True)
