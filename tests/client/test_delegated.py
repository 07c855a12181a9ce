"""Pages on a TCP address: who shows no token, or one without rights, reads health alone. With a real API server's reviews."""

from __future__ import annotations

import asyncio
import json

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import User
from apiserver.storage.memory import MemoryStore
from navarch.client.client import Client
from navarch.client.delegated import Delegated
from navarch.client.health import serving, text_page
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld

PAGES = {path: lambda query: text_page("the page") for path in ("/healthz", "/explain")}


async def get(address, path: str, token: str = "") -> int:
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    proof = f"Authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"GET {path}?pod=x HTTP/1.1\r\nHost: x\r\n{proof}\r\n".encode())
    answer = await reader.read(-1)
    writer.close()
    return int(answer.split(b" ")[1])


ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
RBAC = "/apis/rbac.authorization.k8s.io/v1/"
ROLE = b'{"metadata":{"name":"r"},"rules":[{"nonResourceURLs":["/explain"],"verbs":["get"]}]}'
BINDING = (
    b'{"metadata":{"name":"r"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"r"},'
    b'"subjects":[{"kind":"ServiceAccount","name":"reader","namespace":"default"}]}'
)


async def make_accounts(admin: Client) -> dict[str, str]:
    """Account reader, whose role has /explain, and account nobody, without a role: name -> token."""
    tokens = {}
    for name in ("reader", "nobody"):
        await admin.request("POST", ACCOUNTS, body=b'{"metadata":{"name":"%s"}}' % name.encode())
        answer = await admin.request("POST", f"{ACCOUNTS}/{name}/token", body=b'{"spec":{}}')
        tokens[name] = json.loads(answer.body)["status"]["token"]
    await admin.request("POST", RBAC + "clusterroles", body=ROLE)
    await admin.request("POST", RBAC + "clusterrolebindings", body=BINDING)
    return tokens


async def test_pages_over_tcp_need_a_token_with_rights(tmp_path):
    world = RealWorld()
    server, up = assemble(world, MemoryStore(), Config(store="memory")), asyncio.Event()

    def connect(*groups: str) -> Client:
        user = User("system:kube-scheduler", (*groups, "system:authenticated"))
        return Client(InProcessTransport(server.app, user), world, "test")

    async with world.task_group() as group:
        group.start(server.run(lambda _: up.set(), listen=False))
        await up.wait()
        tokens = await make_accounts(connect("system:masters"))
        gate = Delegated(connect(), world).check  # with the rights of a scheduler
        async with serving(PAGES, ("127.0.0.1", 0), gate) as address:
            assert await get(address, "/healthz") == 200
            assert await get(address, "/explain") == 401
            assert await get(address, "/explain", "wrong") == 401
            assert await get(address, "/explain", tokens["nobody"]) == 403
            assert await get(address, "/explain", tokens["reader"]) == 200
        async with serving(PAGES, str(tmp_path / "socket"), gate) as address:
            assert await get(address, "/explain") == 200
        group.cancel()
