"""The ingress controller on virtual time against a whole API server: nginx is a stand-in that refuses a word."""

from __future__ import annotations

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


def test_statuses_events_and_the_guilty():
    async def test(cluster):
        client, world = cluster.client, cluster.world
        await client[networking_v1.IngressClass].create(networking_v1.IngressClass(
            metadata=meta_v1.ObjectMeta(name="navarch"), spec=networking_v1.IngressClassSpec(controller=CONTROLLER)))
        spec = core_v1.ServiceSpec(type="LoadBalancer", ports=[core_v1.ServicePort(port=80)])
        meta = meta_v1.ObjectMeta(name="navarch-ingress", namespace="kube-system", annotations={ANNOUNCED_BY: "n1"})
        await client[core_v1.Service].create(core_v1.Service(metadata=meta, spec=spec))
        status = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]}}}
        await client[core_v1.Service].patch_status("navarch-ingress", "kube-system", status)
        for one in (service("web", None), service("other", None, port=81)):
            await client[core_v1.Service].create(one)
        informers = SharedInformers(client, world)
        events, program = EventRecorder(client, world, "navarch-ingress"), Program()
        controller = IngressController(client, world, informers, "n1", Place("10.0.0.1", 1, 2, "/run/x"), program, events)

        async def shown(name, address="192.0.2.9"):
            async def check():
                balancer = (await client[Ingress].get(name, "default")).status.load_balancer
                return [i.ip for i in (balancer.ingress if balancer else None) or ()] == ([address] if address else [])

            await cluster.until(check, 60)

        async def told(reason, text):
            async def check():
                return any(text in message for message in await cluster.events(reason))

            await cluster.until(check, 60)

        async with world.task_group() as group:
            for part in (informers, events, controller):
                group.start(part.run())
            made = ingress("a", {"a.test": [path("/", "web"), path("/x", "nobody")]})
            made.metadata.creation_timestamp = None
            await client[Ingress].create(made)
            await shown("a")
            await told("BackendNotFound", "there is no Service default/nobody")
            for number in range(6):
                made = ingress(f"i{number}", {f"{'bad' if number == 4 else 'good'}{number}.test": [path("/", "web")]})
                made.metadata.creation_timestamp = None
                await client[Ingress].create(made)
            await told("Rejected", "nginx refuses it: nginx: [emerg] not this")
            assert all(f"good{n}.test" in program.texts[-1] for n in (0, 1, 2, 3, 5)) and "a.test" in program.texts[-1]
            # nginx ends: it is started anew with what was in force; nothing else changes: it is left alone.
            count = len(program.texts)
            await world.sleep(60)
            assert len(program.texts) == count
            program.alive = 0
            program.ended()
            await world.sleep(1)
            assert len(program.texts) == count + 1 and program.texts[-1] == program.texts[-2]
            await client[Ingress].delete("i4", "default")
            trials = program.trials
            await world.sleep(5)
            assert program.trials <= trials + 1, "no more halving"
            # Another node answers now: it writes, this one does not.
            note = {"metadata": {"annotations": {ANNOUNCED_BY: "n2"}}}
            await client[core_v1.Service].patch("navarch-ingress", "kube-system", note)
            made = ingress("late", {"late.test": [path("/", "web")]})
            made.metadata.creation_timestamp = None
            await client[Ingress].create(made)
            await world.sleep(5)
            await shown("late", "")
            assert "late.test" in program.texts[-1]
            group.cancel()

    run_cluster(test)


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
