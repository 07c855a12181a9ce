"""How much is used at present: readings of counters, and what the agent's pages make of them."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from navarch.api.types import core_v1, meta_v1
from navarch.virtual import SimulatedWorld
from nodeagent.config import Config
from nodeagent.linux.cgroups import NodeUsage, Usage
from nodeagent.linux.diskusage import DiskUse
from nodeagent.node import counters
from nodeagent.node.sampling import Readings, Sample, Sampler
from nodeagent.node.storage import PodDisk
from nodeagent.runtime.runtime import RUNNING, Container
from nodeagent.server import fsstats, stats


class Counters:
    """Half a core is used all the time; ``reads`` counts how often somebody looked."""

    def __init__(self, world: SimulatedWorld) -> None:
        self.world = world
        self.reads = 0

    async def read(self) -> NodeUsage:
        self.reads += 1
        return NodeUsage(Usage(cpu=self.world.monotonic() / 2), {}, {})


def rate(readings: Readings) -> int | None:
    before, now = readings.earlier.usage.node, readings.later.usage.node
    assert now is not None
    return readings.nano_cores(before, now)


async def test_sampler(world: SimulatedWorld) -> None:
    counters = Counters(world)
    sampler = Sampler(world, counters.read)

    first = await sampler.readings()  # takes a second: there is nothing yet to compare with
    assert (first.window, rate(first), counters.reads, world.monotonic()) == (1.0, 500_000_000, 2, 1.0)
    await world.sleep(0.5)
    assert await sampler.readings() is first
    await world.sleep(14.5)
    later = await sampler.readings()  # at once: compared with the last time
    assert (later.window, rate(later), counters.reads, world.monotonic()) == (15.0, 500_000_000, 3, 16.0)
    await world.sleep(3600)
    assert counters.reads == 3  # nobody asked, nobody looked
    late = await sampler.readings()
    assert (late.window, rate(late), counters.reads) == (1.0, 500_000_000, 5)
    await world.sleep(5)
    async with world.task_group() as group:
        asked = [group.start(sampler.readings()) for _ in range(9)]
    assert counters.reads == 6 and len({id(task.result()) for task in asked}) == 1


def readings(before: NodeUsage, now: NodeUsage) -> Readings:
    return Readings(Sample(1000.0, 0.0, before), Sample(1010.0, 10.0, now))


def test_rates_of_what_came_and_what_began_again() -> None:
    both = readings(NodeUsage(None, {}, {}), NodeUsage(None, {}, {}))
    assert both.nano_cores(Usage(cpu=1), Usage(cpu=3)) == 200_000_000
    assert both.nano_cores(None, Usage(cpu=1), started=1005.0) == 200_000_000  # since it started
    assert both.nano_cores(None, Usage(cpu=1)) is None
    assert both.nano_cores(None, Usage(cpu=100), started=900.0) is None  # an agent that is new, a container that is not
    assert both.nano_cores(Usage(cpu=9), Usage(cpu=1), started=1008.0) == 500_000_000  # the counter began again


def worker(name: str, uid: str, *containers: str) -> Any:
    spec = core_v1.PodSpec(containers=[core_v1.Container(name=c) for c in ("a", "b")])
    pod = core_v1.Pod(metadata=meta_v1.ObjectMeta(name=name, namespace="n", uid=uid), spec=spec)
    running = {
        f"{uid}-{c}": Container(f"{uid}-{c}", uid, c, 0, "i", "i", RUNNING, 900.0, started=901.0) for c in containers
    }
    return SimpleNamespace(pod=pod, containers=running, sandboxes={})


CONFIG = Config(node_name="node-1", cpu="2", memory="1Gi")
BEFORE = NodeUsage(Usage(cpu=10), {"u": Usage(cpu=4)}, {"u-a": Usage(cpu=1), "u-b": Usage(cpu=2)})
NOW = NodeUsage(
    Usage(cpu=20, working_set=300 << 20),
    {"u": Usage(cpu=9, working_set=100, pids=3)},
    {"u-a": Usage(cpu=3, working_set=40, rss=20, memory=50), "u-b": Usage(cpu=2, working_set=30)},
)


def test_summary() -> None:
    tree = stats.summary(readings(BEFORE, NOW), CONFIG, [worker("p", "u", "a", "b", "gone")], 5.0)
    node, (pod,) = tree["node"], tree["pods"]
    assert node["nodeName"] == "node-1" and node["startTime"] == "1970-01-01T00:00:05Z"
    assert node["cpu"]["usageNanoCores"] == 1_000_000_000 and node["cpu"]["usageCoreNanoSeconds"] == 20_000_000_000
    assert node["memory"]["workingSetBytes"] == 300 << 20 and node["memory"]["availableBytes"] <= 724 << 20
    assert pod["podRef"] == {"name": "p", "namespace": "n", "uid": "u"}
    assert pod["cpu"]["usageNanoCores"] == 500_000_000 and pod["process_stats"] == {"process_count": 3}
    assert [(c["name"], c["cpu"]["usageNanoCores"]) for c in pod["containers"]] == [("a", 200_000_000), ("b", 0)]
    memory = pod["containers"][0]["memory"]
    assert (memory["usageBytes"], memory["workingSetBytes"], memory["rssBytes"]) == (50, 40, 20)


def test_file_systems() -> None:
    one = worker("p", "u", "a", "b")
    one.uid = "u"
    tree = stats.summary(readings(BEFORE, NOW), CONFIG, [one], 5.0)
    use = {"a": DiskUse(10, 1)}
    disk = {"u": PodDisk(use, {"a": DiskUse(5, 1)}, {"v": DiskUse(3, 2)}, {"m": DiskUse(7, 4)})}
    whole = {"availableBytes": 900, "capacityBytes": 1000, "usedBytes": 100, "inodesFree": 9, "inodes": 10, "inodesUsed": 1}
    fsstats.add(tree, CONFIG, [one], disk, NOW, (whole, whole))
    assert tree["node"]["fs"] == tree["node"]["runtime"]["imageFs"] == whole and tree["node"]["rlimit"]["maxpid"] > 0
    (pod,) = tree["pods"]
    assert pod["containers"][0]["rootfs"] == whole | {"usedBytes": 10, "inodesUsed": 1}
    assert pod["containers"][0]["logs"]["usedBytes"] == 5 and "rootfs" not in pod["containers"][1]
    assert [(v["name"], v["usedBytes"], v["inodesUsed"]) for v in pod["volume"]] == [("v", 3, 2), ("m", 7, 4)]
    assert (pod["ephemeral-storage"]["usedBytes"], pod["ephemeral-storage"]["capacityBytes"]) == (18, 1000)
    assert fsstats.file_system(Path("/"), 5.0)["capacityBytes"] > 0 and fsstats.file_system(Path("/absent"), 5.0) == {}


def test_a_pod_is_the_sum_where_nobody_counts_it() -> None:
    bare = readings(NodeUsage(None, {}, BEFORE.containers), NodeUsage(None, {}, NOW.containers))
    tree = stats.summary(bare, CONFIG, [worker("p", "u", "a", "b")], 5.0)
    assert tree["pods"][0]["cpu"]["usageNanoCores"] == tree["node"]["cpu"]["usageNanoCores"] == 200_000_000
    assert tree["pods"][0]["memory"]["workingSetBytes"] == 70


SERIES = re.compile(r'[a-z_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [0-9.e+-]+( \d+)?')


def test_expositions() -> None:
    workers = [worker("p", "u", "a", "b")]
    resource = stats.resource(Sample(1010.0, 10.0, NOW), workers)
    assert 'container_cpu_usage_seconds_total{container="a",namespace="n",pod="p"} 3 1010000\n' in resource
    assert 'pod_memory_working_set_bytes{namespace="n",pod="p"} 100 1010000\n' in resource
    assert f"node_memory_working_set_bytes {300 << 20} 1010000\n" in resource
    cadvisor = stats.cadvisor(Sample(1010.0, 10.0, NOW), workers, CONFIG)
    assert (
        'container_memory_rss{container="a",id="/u-a",image="i",name="u-a",namespace="n",pod="p"} 20 1010000\n'
        in cadvisor
    )
    for text in (resource, cadvisor, stats.metrics(workers, counters.Counters())):
        for line in text.splitlines():
            assert line.startswith("# ") or SERIES.fullmatch(line), line
