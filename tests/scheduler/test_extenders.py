"""HTTP extenders, with a real HTTP server, with and without TLS, beside a real API server in the same process."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import zlib
from contextlib import asynccontextmanager

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import User
from apiserver.storage.memory import MemoryStore
from lab.certificates import Authority
from navarch.api.serialization import decode_yaml
from navarch.api.types import core_v1
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld
from scheduler.framework.config import SchedulerConfig
from scheduler.io.httpserver import pages
from scheduler.scheduler import Scheduler

logging.getLogger("scheduler").setLevel(logging.CRITICAL)


class Webhook:
    """Answers from a table of verb -> function of the request; keeps what it was asked."""

    def __init__(self, **answers) -> None:
        self.answers, self.asked = answers, []

    async def serve(self, reader, writer) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                length = next(int(x[16:]) for x in head.split("\r\n") if x.lower().startswith("content-length: "))
                body = json.loads(await reader.readexactly(length))
                verb = head.split(" ")[1].rpartition("/")[2]
                self.asked.append((verb, body))
                answer = self.answers[verb](body)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                status = "200 OK" if answer is not None else "500 Sorry"
                data = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self, context=None):
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        async with server:
            yield server.sockets[0].getsockname()[1]

    def count(self, verb: str) -> int:
        return sum(v == verb for v, _ in self.asked)


NODE = """{{apiVersion: v1, kind: Node, metadata: {{name: {0}}},
  status: {{allocatable: {{cpu: "2", memory: 4Gi, pods: "9", example.com/gpu: "0"}}}}}}"""
POD = """{{apiVersion: v1, kind: Pod, metadata: {{name: {0}}}, spec: {{tolerations: [{{operator: Exists}}], {2}
  containers: [{{name: c, image: i, resources: {{requests: {{{1}}}, limits: {{{1}}}}}}}]}}}}"""


class Bench:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def pod(self, name: str, asks: str = "", more: str = "") -> None:
        tree = decode_yaml(POD.format(name, asks, more))[0]
        await self.client.request("POST", "/api/v1/namespaces/default/pods", body=json.dumps(tree).encode())

    async def get(self, name: str) -> core_v1.Pod:
        return await self.client[core_v1.Pod].get(name, "default")

    async def node_of(self, name: str) -> str:
        while not (node := (await self.get(name)).spec.node_name):
            await asyncio.sleep(0.01)
        return node

    async def message(self, name: str, part: str) -> str:
        """The pod's condition, or an event about it, once it has this text."""
        while True:
            conditions = (await self.get(name)).status.conditions or ()
            texts = [c.message or "" for c in conditions]
            events = (await self.client[core_v1.Event].list("default")).items
            texts += [e.message or "" for e in events if e.involved_object.name == name]
            found = [t for t in texts if part in t]
            if found:
                return found[0]
            await asyncio.sleep(0.01)


def run(config, story, nodes=("n0", "n1", "n2")) -> None:
    """``config(port)`` is the extender's part of the configuration; the story is told to a Bench."""
    hook, extender = config

    async def main() -> None:
        world = RealWorld()
        server = assemble(world, MemoryStore(), Config(store="memory"))
        up = asyncio.Event()

        def connect(name: str) -> Client:
            user = User(name, ("system:masters", "system:authenticated"))
            return Client(InProcessTransport(server.app, user), world, "test")

        async with hook.listening(extender.get("ssl")) as port, world.task_group() as group:
            entry = {"urlPrefix": f"{extender['scheme']}://127.0.0.1:{port}/scheduler"} | extender["config"]
            tree = {"extenders": [entry], "podInitialBackoffSeconds": 1}
            group.start(server.run(lambda _: up.set(), listen=False))
            await up.wait()
            client = connect("admin")
            account = b'{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}'
            await client.request("POST", "/api/v1/namespaces/default/serviceaccounts", body=account)
            for name in nodes:
                tree_of_node = decode_yaml(NODE.format(name))[0]
                await client.request("POST", "/api/v1/nodes", body=json.dumps(tree_of_node).encode())
            scheduler = Scheduler(connect("scheduler"), world, SchedulerConfig.load(json.dumps(tree)))
            group.start(scheduler.run())
            async with asyncio.timeout(30):
                await story(Bench(client), scheduler)
            group.cancel()

    RealWorld().run(main)


def http(**config):
    return {"scheme": "http", "config": config}


def test_filters_and_ranks_with_names_only():
    hook = Webhook(
        filter=lambda a: {"nodenames": [n for n in a["nodenames"] if n != "n0"], "failedNodes": {"n0": "too noisy"}},
        rank=lambda a: [{"host": n, "score": 10 if n == "n2" else 1} for n in a["nodenames"]],
    )
    extender = http(filterVerb="filter", prioritizeVerb="rank", weight=5, nodeCacheCapable=True)

    async def story(bench: Bench, scheduler: Scheduler) -> None:
        await bench.pod("p")
        assert await bench.node_of("p") == "n2"
        assert [v for v, _ in hook.asked] == ["filter", "rank"]
        assert sorted(hook.asked[0][1]["nodenames"]) == ["n0", "n1", "n2"]
        assert hook.asked[0][1]["pod"]["metadata"]["name"] == "p" and "nodes" not in hook.asked[0][1]
        from scheduler.explain.explain import explain

        told = explain(scheduler.recent.get("default/p"), "n0")
        assert told["asked"]["refused"][0]["reason"] == "too noisy" and told["best"][0]["extenders"] == 500
        hook.answers["filter"] = lambda a: {"failedAndUnresolvableNodes": dict.fromkeys(a["nodenames"], "is full")}
        await bench.pod("q")
        text = await bench.message("q", "is full")
        assert text.startswith("0/3 nodes are available: 3 is full. preemption: 0/3 nodes are available: 3 Preemption")

    run((hook, extender), story)


def test_whole_nodes_managed_resources_and_errors():
    hook = Webhook(filter=lambda a: {"error": "out of paper"})
    gpu = {"name": "example.com/gpu", "ignoredByScheduler": True}
    extender = http(filterVerb="filter", managedResources=[gpu])

    async def story(bench: Bench, scheduler: Scheduler) -> None:
        await bench.pod("plain")
        await bench.node_of("plain")
        assert hook.asked == []  # not its business
        await bench.pod("p", 'example.com/gpu: "1"')  # of which no node has any: the extender counts them
        assert "out of paper" in await bench.message("p", "out of paper")
        names = [n["metadata"]["name"] for n in hook.asked[0][1]["nodes"]["items"]]
        assert sorted(names) == ["n0", "n1", "n2"]
        hook.answers["filter"] = lambda a: {"nodes": {"items": a["nodes"]["items"][:1]}}
        await bench.node_of("p")

    run((hook, extender), story)


def test_an_ignorable_extender_that_is_too_slow_is_done_without():
    async def never(asked):
        await asyncio.sleep(60)

    hook = Webhook(filter=never)

    async def story(bench: Bench, scheduler: Scheduler) -> None:
        await bench.pod("p")
        await bench.node_of("p")
        assert hook.count("filter") == 1
        manifest = json.dumps(decode_yaml(POD.format("q", "", ""))[0]).encode()
        given = base64.urlsafe_b64encode(zlib.compress(manifest)).decode()
        code, _, body = pages(scheduler)["/what-if"]("pod=" + given)
        assert code == 200 and len(json.loads(body)["notAsked"]) == 1
        assert hook.count("filter") == 1  # and it was not asked

    run((hook, http(filterVerb="filter", httpTimeout="100ms", ignorable=True)), story)


def test_victims_and_bindings():
    def preempt(asked):
        kept = {n: v for n, v in asked["nodeNameToVictims"].items() if n == "n1"}
        shown = {n: {"pods": [{"uid": p["metadata"]["uid"]} for p in v["pods"]]} for n, v in kept.items()}
        return {"nodeNameToMetaVictims": shown}

    hook = Webhook(preempt=preempt, bind=lambda a: {"error": "no ink"})

    async def story(bench: Bench, scheduler: Scheduler) -> None:
        await bench.pod("p")
        assert "no ink" in await bench.message("p", "no ink")

        async def bind(asked):
            await bench.client.request(
                "POST", f"/api/v1/namespaces/default/pods/{asked['podName']}/binding",
                body=json.dumps({"metadata": {"name": asked["podName"], "uid": asked["podUID"]},
                                 "target": {"kind": "Node", "name": asked["node"]}}).encode(),
            )  # fmt: skip
            return {}

        hook.answers["bind"] = bind
        await bench.node_of("p")
        for n in range(3):
            await bench.pod(f"low{n}", "cpu: 1500m")
        assert {await bench.node_of(f"low{n}") for n in range(3)} == {"n0", "n1", "n2"}
        await bench.client.request(
            "POST", "/apis/scheduling.k8s.io/v1/priorityclasses",
            body=b'{"apiVersion":"scheduling.k8s.io/v1","kind":"PriorityClass","metadata":{"name":"high"},"value":9}',
        )  # fmt: skip
        await bench.pod("high", "cpu: 1900m", "priorityClassName: high,")
        while not hook.count("preempt"):
            await asyncio.sleep(0.01)
        told = next(body for verb, body in hook.asked if verb == "preempt")
        assert set(told["nodeNameToVictims"]) == {"n0", "n1", "n2"}
        while (await bench.get("high")).status.nominated_node_name != "n1":
            await asyncio.sleep(0.01)

    run((hook, http(preemptVerb="preempt", bindVerb="bind")), story)


def test_over_tls_with_a_client_certificate(tmp_path):
    authority = Authority(tmp_path, "extenders")
    authority.issue("server", "extender", hosts=("127.0.0.1",))
    authority.issue("scheduler", "scheduler")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.load_verify_locations(tmp_path / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    hook = Webhook(filter=lambda a: {"nodenames": ["n1"]})
    tls = {"caFile": "ca.crt", "certFile": "scheduler.crt", "keyFile": "scheduler.key"}
    config = {
        "filterVerb": "filter", "nodeCacheCapable": True, "enableHTTPS": True,
        "tlsConfig": {k: str(tmp_path / v) for k, v in tls.items()},
    }  # fmt: skip

    async def story(bench: Bench, scheduler: Scheduler) -> None:
        await bench.pod("p")
        assert await bench.node_of("p") == "n1"

    run((hook, {"scheme": "https", "ssl": context, "config": config}), story)
