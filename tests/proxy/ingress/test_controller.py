"""The ingress controller on virtual time against a whole API server: nginx is a stand-in that refuses a word."""

from __future__ import annotations

import pytest

from navarch.api.errors import StatusError
from navarch.api.types import core_v1, meta_v1, networking_v1
from navarch.api.wellknown import ANNOUNCED_BY
from navarch.client.events import EventRecorder
from navarch.client.informer import SharedInformers
from proxy.ingress.config import Place
from proxy.ingress.controller import IngressController
from proxy.ingress.routes import CONTROLLER
from tests.controllers.cluster import run_cluster
from tests.proxy.ingress.objects import ingress, path, service
from tests.within import Within

Ingress = networking_v1.Ingress


class Program:
    """Stands for nginx: what it was told, in which order; refuses configurations with the word ``bad``."""

    def __init__(self):
        self.texts, self.trials, self.alive, self.ended = [], 0, 0, None

    def write_pairs(self, pairs):
        pass

    def forget_pairs(self, kept):
        pass

    def refusal(self, text):
        self.trials += 1
        return "nginx: [emerg] not this" if "bad" in text else ""

    def apply(self, text):
        assert "bad" not in text
        self.texts.append(text)
        self.alive = 7

    def pid(self):
        return self.alive

    def watch(self, ended):
        self.ended = ended


A = {"a.test": [path("/", "web"), path("/x", "nobody")]}


class Node:
    """The controller on node n1 of a cluster that announces the balancer's address there, with the Services web and other."""

    def __init__(self, cluster):
        self.cluster, self.client, self.world = cluster, cluster.client, cluster.world
        self.informers, self.program = SharedInformers(self.client, self.world), Program()
        self.events = EventRecorder(self.client, self.world, "navarch-ingress")
        place = Place("10.0.0.1", 1, 2, "/run/x")
        self.controller = IngressController(
            self.client, self.world, self.informers, "n1", place, self.program, self.events
        )

    async def make_services(self):
        await self.client[networking_v1.IngressClass].create(networking_v1.IngressClass(
            metadata=meta_v1.ObjectMeta(name="navarch"), spec=networking_v1.IngressClassSpec(controller=CONTROLLER)))
        services = self.client[core_v1.Service]
        spec = core_v1.ServiceSpec(type="LoadBalancer", ports=[core_v1.ServicePort(port=80)])
        meta = meta_v1.ObjectMeta(name="navarch-ingress", namespace="kube-system", annotations={ANNOUNCED_BY: "n1"})
        await services.create(core_v1.Service(metadata=meta, spec=spec))
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]}}}
        await services.patch_status("navarch-ingress", "kube-system", status)
        for one in (service("web", None), service("other", None, port=81)):
            await services.create(one)

    async def create(self, name, hosts):
        made = ingress(name, hosts)
        made.metadata.creation_timestamp = None
        await self.client[Ingress].create(made)

    async def shown(self, name, address="192.0.2.9"):
        async def check():
            balancer = (await self.client[Ingress].get(name, "default")).status.load_balancer
            return [i.ip for i in (balancer.ingress if balancer else None) or ()] == ([address] if address else [])

        await self.cluster.until(check, 60)

    async def told(self, reason, text):
        async def check():
            return any(text in message for message in await self.cluster.events(reason))

        await self.cluster.until(check, 60)

    async def create_seven(self):
        """Ingress a, and i0 to i5, of which nginx refuses i4; waits until that is told."""
        await self.create("a", A)
        for number in range(6):
            host = f"{'bad' if number == 4 else 'good'}{number}.test"
            await self.create(f"i{number}", {host: [path("/", "web")]})
        await self.told("Rejected", "nginx refuses it: nginx: [emerg] not this")


def on_node(test):
    async def main(cluster):
        node = Node(cluster)
        await node.make_services()
        async with cluster.world.task_group() as group:
            for part in (node.informers, node.events, node.controller):
                group.start(part.run())
            await test(node)
            group.cancel()

    run_cluster(main)


@pytest.fixture
def node():
    return Within(on_node)


async def test_statuses_and_events(node):
    await node.create("a", A)
    await node.shown("a")
    await node.told("BackendNotFound", "there is no Service default/nobody")


async def test_the_guilty_is_told_from_the_others(node):
    await node.create_seven()
    text = node.program.texts[-1]
    assert all(f"good{n}.test" in text for n in (0, 1, 2, 3, 5)) and "a.test" in text
    await node.world.sleep(60)
    await node.client[Ingress].delete("i4", "default")
    trials = node.program.trials
    await node.world.sleep(5)
    assert node.program.trials <= trials + 1, "no more halving"


async def test_nginx_that_ends_is_started_anew(node):
    """With what was in force; when nothing changes it is left alone."""
    await node.create_seven()
    program = node.program
    count = len(program.texts)
    await node.world.sleep(60)
    assert len(program.texts) == count
    program.alive = 0
    program.ended()
    await node.world.sleep(1)
    assert len(program.texts) == count + 1 and program.texts[-1] == program.texts[-2]


async def test_statuses_are_written_by_the_node_that_answers(node):
    await node.create("a", A)
    await node.shown("a")
    note = {"metadata": {"annotations": {ANNOUNCED_BY: "n2"}}}
    await node.client[core_v1.Service].patch("navarch-ingress", "kube-system", note)
    await node.create("late", {"late.test": [path("/", "web")]})
    await node.world.sleep(5)
    await node.shown("late", "")
    assert "late.test" in node.program.texts[-1]


def test_an_api_server_that_refuses_is_no_end(monkeypatch):
    async def test(cluster):
        world, informers = cluster.world, SharedInformers(cluster.client, cluster.world)
        program = Program()
        controller = IngressController(cluster.client, world, informers, "n1", Place("10.0.0.1", 1, 2, "/run/x"), program)
        real, calls = controller._report, []

        async def report(*arguments):
            calls.append(world.monotonic())
            if len(calls) < 4:
                raise StatusError("no", reason="InternalError", code=500)
            await real(*arguments)

        monkeypatch.setattr(controller, "_report", report)
        async with world.task_group() as group:
            group.start(informers.run())
            group.start(controller.run())
            await world.sleep(60)
            assert len(calls) == 4 and calls[3] - calls[0] < 10 and len(program.texts) == 1
            group.cancel()

    run_cluster(test)
