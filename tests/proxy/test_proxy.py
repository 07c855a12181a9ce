"""The proxy among services that the kernel refuses: the guilty one is set aside and named, all others go on."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from lab.namespaces import in_child
from navarch.api.types import core_v1, discovery_v1
from navarch.client.informer import key_of
from navarch.linux.nftables import Nftables, NftablesError
from navarch.linux.syscalls import (
    CLONE_NEWNET,
    unshare,
)
from navarch.world import RealWorld
from proxy.nftables import TABLE
from proxy.programmer import Programmer
from proxy.proxy import Proxy
from proxy.rules import Place, Rules, service_rules
from tests.proxy.test_rules import CIDR, service, slice_of


class Kernel:
    """Refuses transactions that say a bad word; ``broken``: all of them."""

    def __init__(self, *bad):
        self.bad, self.broken, self.runs, self.has = list(bad), False, 0, ""

    def run(self, commands):
        self.runs += 1
        if self.broken or any(word in commands for word in self.bad):
            raise NftablesError("Error: syntax error, unexpected junk")
        self.has += commands
        return ""


def rules_of(number, name=None):
    made = service(name or f"s{number}", f"10.9.{number // 250}.{number % 250 + 1}")
    return service_rules(made, [slice_of(("10.9.1.1", "ready"))], Place("here"), CIDR)


@pytest.mark.parametrize("guilty", [[0], [499], [17, 18, 400], []])
def test_the_guilty_are_told_from_the_others(guilty):
    everything = {f"default/s{n}": rules_of(n) for n in range(500)}
    kernel = Kernel(*(f"s{n}/" for n in guilty))
    programmer = Programmer(kernel)
    refused = programmer.program(everything)
    assert sorted(refused) == sorted(f"default/s{n}" for n in guilty)
    assert programmer.rules.services.keys() == everything.keys() - refused.keys()
    assert kernel.runs <= 2 + 20 * len(guilty)
    # Later, beside others; and the next time, without a new look at all.
    kernel.bad.append("late/")
    change = {"default/late": rules_of(600, "late"), "default/good": rules_of(601, "good")}
    assert list(programmer.program(change)) == ["default/late"] and "default/good" in programmer.rules.services
    before = kernel.runs
    assert list(programmer.program({"default/late": change["default/late"]})) == ["default/late"]
    assert kernel.runs == before + 1
    kernel.bad.clear()
    assert programmer.program(change) == {} and "default/late" in programmer.rules.services
    assert programmer.program({"default/late": Rules()}) == {} and "default/late" not in programmer.rules.services


def test_a_service_keeps_the_rules_that_were_accepted():
    kernel = Kernel("10.9.1.66")
    programmer = Programmer(kernel)
    old = rules_of(1)
    programmer.program({"default/s1": old})
    new = service_rules(service("s1", "10.9.0.2"), [slice_of(("10.9.1.66", "ready"))], Place("here"), CIDR)
    assert programmer.program({"default/s1": new}) and programmer.rules.services == {"default/s1": old}


def test_nothing_can_be_said_when_not_even_an_empty_table_is_taken():
    kernel = Kernel()
    kernel.broken = True
    programmer = Programmer(kernel)
    with pytest.raises(NftablesError):
        programmer.program({"default/s1": rules_of(1)})
    kernel.broken = False
    assert programmer.program({"default/s1": rules_of(1)}) == {}


class Listed:
    """Stands for a synced informer whose handlers are called by hand."""

    def __init__(self, by_service=None):
        self.objects, self.by_service, self.handlers = {}, by_service, []

    def add_handler(self, handler):
        self.handlers.append(handler)

    async def wait_synced(self):
        pass

    def put(self, obj):
        self.objects[key_of(obj.metadata.namespace, obj.metadata.name)] = obj
        for handler in self.handlers:
            handler("MODIFIED", None, obj)

    def get_key(self, key):
        return self.objects.get(key)

    def list(self):
        return list(self.objects.values())

    def by_index(self, index, key):
        return [slice_of(("10.9.1.1", "ready"))]


def proxy_on(world, kernel):
    listed = {core_v1.Service: Listed(), discovery_v1.EndpointSlice: Listed(), core_v1.Node: Listed()}
    told = []
    events = SimpleNamespace(event=lambda obj, *rest: told.append((obj.metadata.name, *rest)))
    informers = SimpleNamespace(informer=lambda cls, **_: listed[cls])
    return Proxy(world, informers, "here", CIDR, kernel, events), listed[core_v1.Service], told


@asynccontextmanager
async def running(world, kernel, *names):
    """A proxy that has synced these Services, beside one that can put more, and what was told."""
    proxy, services, told = proxy_on(world, kernel)
    for number, name in enumerate(names):
        services.put(service(name, f"10.9.192.{number + 1}"))
    async with world.task_group() as group:
        group.start(proxy.run())
        await proxy.synced.wait()
        yield proxy, services, told
        group.cancel()


@pytest.fixture
def odd(monkeypatch):
    """Service default/odd has no rules until this is undone: an exception takes their place."""
    real = Proxy.rules_of

    def rules_of(self, key):
        if key == "default/odd":
            raise ZeroDivisionError("nobody has foreseen this")
        return real(self, key)

    monkeypatch.setattr(Proxy, "rules_of", rules_of)
    return monkeypatch


async def test_a_service_that_is_refused_is_named_and_tried_again(world, odd):
    kernel = Kernel("bad/")
    async with running(world, kernel, "a", "bad", "b", "odd") as (proxy, services, told):
        assert set(proxy.programmer.rules.services) == {"default/a", "default/b"}
        assert {t[:3] for t in told} == {
            ("bad", "Warning", "SyncProxyRulesFailed"),
            ("odd", "Warning", "SyncProxyRulesFailed"),
        }
        assert any("node here" in t[3] and "unexpected junk" in t[3] for t in told)
        assert b"navarch_proxy_services_set_aside 2.0" in proxy.metrics()
        runs, said = kernel.runs, len(told)
        await world.sleep(600)
        assert 8 <= len(told) - said <= 40 and kernel.runs - runs <= 25  # after 1, 2, 4 ... 60 s
        services.put(service("c", "10.9.192.9"))
        await world.sleep(1)
        assert "default/c" in proxy.programmer.rules.services
        kernel.bad.clear()
        odd.undo()
        await world.sleep(70)
        assert not proxy.aside and "default/bad" in proxy.programmer.rules.services
        assert "default/odd" in proxy.programmer.rules.services


async def test_who_names_anothers_address_is_told_and_does_without(world):
    kernel = Kernel()
    async with running(world, kernel, "web") as (proxy, services, told):
        thief = service("a", "10.9.192.66", external_ips=["10.9.192.1", "10.9.192.2"])
        services.put(thief)
        await world.sleep(1)
        elements = proxy.programmer.rules.services["default/a"].elements
        assert ("services", "10.9.192.2 . tcp . 80") in elements and ("services", "10.9.192.1 . tcp . 80") not in elements
        services.put(service("new", "10.9.192.2"))  # an address that was nobody's
        services.put(thief)
        await world.sleep(1)
        elements = proxy.programmer.rules.services["default/a"].elements
        assert {key for where, key in elements if where == "services"} == {"10.9.192.66 . tcp . 80"}
        assert [(t[0], t[2]) for t in told] == [("a", "ExternalIPRefused")] * 2
        assert "10.9.192.1, 10.9.192.2 belongs" in told[1][3]


async def test_a_kernel_that_takes_nothing_for_a_while(world):
    kernel = Kernel()
    async with running(world, kernel, "a", "bad", "b", "odd", "c") as (proxy, services, _):
        kernel.broken = True
        services.put(service("d", "10.9.192.10"))
        await world.sleep(30)
        assert "default/d" not in proxy.programmer.rules.services
        kernel.broken = False
        await world.sleep(70)
        assert "default/d" in proxy.programmer.rules.services and len(proxy.programmer.rules.services) == 6


@pytest.mark.root
def test_the_kernel_itself():
    """A refused service among others, and a table that somebody else has flushed."""
    assert os.geteuid() == 0

    def work():
        unshare(CLONE_NEWNET)
        nft, world = Nftables(), RealWorld()
        proxy, services, told = proxy_on(world, nft)

        async def main():
            bad = service("bad", "10.9.192.66")
            services.put(service("a", "10.9.192.1", node_port=30001, external_traffic_policy="Local"))
            services.put(bad)
            proxy.rules_of = lambda key: (
                Rules(elements={("services", "2001:db8::1 . tcp . 80"): "goto nowhere"})
                if key == "default/bad"
                else Proxy.rules_of(proxy, key)
            )
            async with world.task_group() as group:
                group.start(proxy.run())
                await proxy.synced.wait()
                first = nft.run(f"list table {TABLE}")
                nft.run("flush ruleset")
                services.put(service("b", "10.9.192.2"))
                while "default/b" not in proxy.programmer.rules.services:
                    await world.sleep(0.01)
                second = nft.run(f"list table {TABLE}")
                group.cancel()
            return ["10.9.192.1 " in first, "10.9.192.66" in first, "10.9.192.1 " in second, "10.9.192.2 " in second,
                    {t[0] for t in told} == {"bad"}]  # fmt: skip

        return world.run(main)

    assert in_child(work) == [True, False, True, True, True]
