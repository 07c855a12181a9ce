"""The scheduler as a process: ``python -m scheduler``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Sequence

from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.leader import LeaderElector
from navarch.client.transport import connect
from navarch.world import RealWorld
from scheduler.config import FLAGS, SchedulerConfig
from scheduler.scheduler import Scheduler


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scheduler", description="Binds pods to nodes.")
    parser.add_argument("--kubeconfig", required=True, help="how to reach the API server")
    parser.add_argument("--set", action="append", default=[], metavar="FLAG=VALUE", help=f"one of: {', '.join(FLAGS)}")
    parser.add_argument("--leader-elect", action="store_true", help="wait for the Lease kube-system/kube-scheduler")
    parser.add_argument("--identity", default="", help="name in the Lease; default: a new uid")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = SchedulerConfig()
    try:
        for text in options.set:
            config.set(text)
    except ValueError as error:
        print(f"scheduler: {error}")
        return 2
    world = RealWorld()

    async def run() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        client = Client(connect(kubeconfig.load(options.kubeconfig)), world, user_agent="kube-scheduler")
        scheduler = Scheduler(client, world, config)
        work = scheduler.run
        if options.leader_elect:
            elector = LeaderElector(client, world, "kube-system", "kube-scheduler", options.identity or world.uid())

            async def elected() -> None:
                await elector.run(scheduler.run)

            work = elected
        async with world.task_group() as group:
            group.start(work())
            await stop.wait()
            group.cancel()
        await client.close()

    stop = asyncio.Event()
    world.run(run)
    return 0
