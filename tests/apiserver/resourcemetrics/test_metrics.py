"""metrics.k8s.io, with agents that answer summaries over HTTPS, and with simulated nodes that have no agent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from apiserver.config import Config
from apiserver.resourcemetrics import shapes
from apiserver.resourcemetrics.shapes import Summary
from apiserver.tls import make_certificates
from navarch.world import RealWorld
from tests.apiserver.crd.support import MERGE, Caller, serving

Tree = dict[str, Any]
BASE = "/apis/metrics.k8s.io/v1beta1"
TIME = "2026-01-01T00:00:00Z"


def part(nanos: int, size: int) -> Tree:
    return {"cpu": {"time": TIME, "usageNanoCores": nanos}, "memory": {"time": TIME, "workingSetBytes": size}}


class Agent:
    """Answers with ``tree``; counts how often it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        self.tree: Tree = {"node": part(1_500_000_000, 64 << 20), "pods": []}

    async def summary(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.tree, headers={"Navarch-Window": "2.500"})


@asynccontextmanager
async def agent(config: Config) -> AsyncIterator[Agent]:
    made = Agent()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.tls_cert_file, config.tls_private_key_file)
    application = web.Application()
    application.router.add_get("/stats/summary", made.summary)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


async def node(call: Caller, name: str, port: int = 0) -> None:
    await call.ok("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"disk": "ssd"}}})
    status: Tree = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
    if port:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    await call.ok("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, MERGE)


async def pod(call: Caller, name: str, where: str, running: bool = True, **annotations: str) -> str:
    declared = {f"hollow.navarch.dev/{key}": value for key, value in annotations.items()}
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": where}
    metadata = {"name": name, "labels": {"app": name}, "annotations": declared}
    path = "/api/v1/namespaces/default/pods"
    made = await call.ok("POST", path, {"metadata": metadata, "spec": spec})
    if running:
        one = {"name": "c", "image": "i", "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
        status = {"phase": "Running", "containerStatuses": [one]}
        await call.ok("PATCH", f"{path}/{name}/status", {"status": status}, MERGE)
    return str(made["metadata"]["uid"])


def serve(tmp_path: Path, test: Callable[[Caller, Config], Awaitable[None]]) -> None:
    config = make_certificates(RealWorld(), Config(cert_dir=str(tmp_path), advertise_address="10.0.0.1"))

    async def main(call: Caller) -> None:
        account = {"metadata": {"name": "default"}}
        await call.ok("POST", "/api/v1/namespaces/default/serviceaccounts", account)
        await test(call, config)

    serving(main, config=config)


def test_agents_are_asked(tmp_path: Path) -> None:
    async def test(call: Caller, config: Config) -> None:
        async with agent(config) as one, agent(config) as other:
            await node(call, "n1", one.port)
            await node(call, "n2", other.port)
            await node(call, "dead", 1)
            uid = await pod(call, "p", "n1")
            await pod(call, "q", "n2")
            one.tree["pods"] = [{"podRef": {"uid": uid}, "containers": [{"name": "c"} | part(2_000_001, 5 << 20)]}]
            found = await call.ok("GET", f"{BASE}/nodes")
            assert found["kind"] == "NodeMetricsList"
            assert [o["metadata"]["name"] for o in found["items"]] == ["n1", "n2"]  # the dead one is left out
            assert found["items"][0]["usage"] == {"cpu": "1500m", "memory": "64Mi"}
            assert found["items"][0]["window"] == "2.5s" and found["items"][0]["timestamp"] == TIME
            assert found["items"][0]["metadata"]["labels"] == {"disk": "ssd"}
            await asyncio.sleep(1.1)
            asked = other.asked
            answers = await asyncio.gather(*(call.ok("GET", f"{BASE}/namespaces/default/pods/p") for _ in range(5)))
            assert answers[0]["containers"] == [{"name": "c", "usage": {"cpu": "2000001n", "memory": "5Mi"}}]
            # Five who ask together ask once; and nobody asks a node that has no such pod.
            assert one.asked == 2 and other.asked == asked
            listed = await call.ok("GET", f"{BASE}/namespaces/default/pods", labelSelector="app=p")
            assert [o["metadata"]["name"] for o in listed["items"]] == ["p"]
            missing = await call("GET", f"{BASE}/namespaces/default/pods/q")  # its agent does not know it yet
            assert missing.code == 404 and missing.message == 'pods.metrics.k8s.io "q" not found'
            assert (await call("DELETE", f"{BASE}/nodes/n1")).code == 405
            assert (await call("GET", f"{BASE}/namespaces/default/nodes")).code == 404
            table = await call.ok("GET", f"{BASE}/pods", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
            assert table["rows"][0]["cells"] == ["p", "2000001n", "5Mi", "2.5s"]

    serve(tmp_path, test)


def test_simulated_nodes_declare(tmp_path: Path) -> None:
    async def test(call: Caller, config: Config) -> None:
        await node(call, "h")
        await pod(call, "busy", "h", cpu="250m", memory="64Mi")
        await pod(call, "own", "h", **{"cpu": "1", "c.cpu": "10m"})
        await pod(call, "pending", "h", running=False, cpu="9")
        found = {o["metadata"]["name"]: o for o in (await call.ok("GET", f"{BASE}/pods"))["items"]}
        assert sorted(found) == ["busy", "own"]
        assert found["busy"]["containers"][0]["usage"] == {"cpu": "250m", "memory": "64Mi"}
        assert found["own"]["containers"][0]["usage"] == {"cpu": "10m", "memory": "0"}
        whole = await call.ok("GET", f"{BASE}/nodes/h")
        assert whole["usage"] == {"cpu": "260m", "memory": "64Mi"}

    serve(tmp_path, test)


def test_discovery_and_rights(tmp_path: Path) -> None:
    async def test(call: Caller, config: Config) -> None:
        assert [r["name"] for r in (await call.ok("GET", BASE))["resources"]] == ["nodes", "pods"]
        groups = [g["name"] for g in (await call.ok("GET", "/apis"))["groups"]]
        assert groups[-1] == "metrics.k8s.io"  # so that "pods" means those of core
        service = await call.ok("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io")
        assert service["status"]["conditions"][0]["reason"] == "Local"
        path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/view"
        view = await call.ok("GET", path)
        while not any(rule["apiGroups"] == ["metrics.k8s.io"] for rule in view.get("rules") or ()):
            await asyncio.sleep(0.005)
            view = await call.ok("GET", path)

    serve(tmp_path, test)


def test_another_server_takes_over(tmp_path: Path) -> None:
    """metrics-server's manifest works as it is: its APIService is in our place from then on."""

    async def test(call: Caller, config: Config) -> None:
        path = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
        reference = {"name": "metrics-server", "namespace": "kube-system"}
        await call.ok("PATCH", path, {"spec": {"service": reference, "insecureSkipTLSVerify": True}}, MERGE)
        while (await call("GET", f"{BASE}/nodes")).code != 503:
            await asyncio.sleep(0.005)
        await call.ok("DELETE", path)
        while (await call("GET", f"{BASE}/nodes")).code != 200:
            await asyncio.sleep(0.005)

    serve(tmp_path, test)


def test_what_is_not_known_is_not_shown() -> None:
    tree = {"metadata": {"name": "p", "uid": "u"}}
    fresh = {
        "podRef": {"uid": "u"},
        "containers": [{"name": "c", "cpu": {"time": TIME}, "memory": {"workingSetBytes": 1}}],
    }
    assert shapes.pod_metrics(tree, Summary({"pods": [fresh]})) is None
    assert shapes.pod_metrics(tree, Summary({"pods": [{"podRef": {"uid": "u"}, "containers": []}]})) is None
    assert shapes.node_metrics(tree, Summary({})) is None
    assert [shapes.duration(s) for s in (10.0, 1.5, 0.123)] == ["10s", "1.5s", "0.123s"]
