"""A pod that is deleted while extenders are asked whom to preempt for it."""

from __future__ import annotations

import asyncio

from navarch.api.types import core_v1
from scheduler.scheduler import Scheduler
from tests.scheduler.test_extenders import Bench, Webhook, http, run


def test_nothing_is_preempted_for_a_pod_that_is_deleted_while_extenders_are_asked():
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def preempt(told):
        asked.set()
        await go_on.wait()
        shown = {n: {"pods": [{"uid": p["metadata"]["uid"]} for p in v["pods"]]}
                 for n, v in told["nodeNameToVictims"].items()}  # fmt: skip
        return {"nodeNameToMetaVictims": shown}

    async def story(bench: Bench, scheduler: Scheduler) -> None:
        await bench.pod("low", "cpu: 1500m")
        assert await bench.node_of("low") == "n0"
        await bench.client.request(
            "POST", "/apis/scheduling.k8s.io/v1/priorityclasses",
            body=b'{"apiVersion":"scheduling.k8s.io/v1","kind":"PriorityClass","metadata":{"name":"high"},"value":9}',
        )  # fmt: skip
        await bench.pod("high", "cpu: 1900m", "priorityClassName: high,")
        await asked.wait()
        await bench.client[core_v1.Pod].delete("high", "default", grace_period_seconds=0)
        while scheduler.pods.get("default", "high"):
            await asyncio.sleep(0.01)
        go_on.set()
        await bench.pod("next", "cpu: 100m")
        assert await bench.node_of("next") == "n0"
        assert not scheduler.nominated and not (await bench.get("low")).metadata.deletion_timestamp

    run((Webhook(preempt=preempt), http(preemptVerb="preempt")), story, nodes=("n0",))
