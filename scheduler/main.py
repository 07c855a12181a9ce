"""The scheduler as a process: ``python -m scheduler``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence

from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.delegated import Delegated
from navarch.client.health import parse_address, serving
from navarch.client.leader import LeaderElector, LeadershipLost
from navarch.client.transport import connect
from navarch.world import RealWorld, World
from scheduler.framework.config import SchedulerConfig
from scheduler.io.httpserver import pages
from scheduler.io.leaderfence import Fence
from scheduler.options import SETTINGS, load
from scheduler.scheduler import PluginError, Scheduler

log = logging.getLogger(__name__)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scheduler", description="Binds pods to nodes.")
    add = parser.add_argument
    add(
        "--kubeconfig", default="", help="how to reach the API server; default: clientConnection.kubeconfig in --config"
    )
    add("--config", metavar="FILE", help="a KubeSchedulerConfiguration (profiles, plugins, weights, arguments)")
    add("--plugin", action="append", default=[], metavar="MODULE:CLASS", help="a plugin of yours, on in all profiles")
    add("--set", action="append", default=[], metavar="FLAG=VALUE", help=f"one of: {', '.join(SETTINGS.kinds)}")
    add("--address", default="", help="serve /healthz, /metrics, /explain on 127.0.0.1:PORT or a socket's path")
    add("--leader-elect", action="store_true", help="wait for the Lease kube-system/kube-scheduler")
    add("--identity", default="", help="name in the Lease; default: a new uid")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = load(options.set, options.config, options.plugin)
        address = parse_address(options.address) if options.address else None
        config.leader_election.leader_elect = config.leader_election.leader_elect or options.leader_elect
    except ValueError as error:
        print(f"scheduler: {error}")
        return 2
    for warning in config.warnings:
        log.warning("%s: %s", options.config, warning)
    path = options.kubeconfig or config.kubeconfig
    if not path:
        print("scheduler: --kubeconfig, or clientConnection.kubeconfig in the configuration, is required")
        return 2
    world = RealWorld()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        client = Client(connect(kubeconfig.load(path)), world, user_agent="kube-scheduler")
        elector = elector_of(client, world, config, options.identity)
        scheduler = Scheduler(client, world, config, fence=Fence(elector, client, world) if elector else None)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            if address:
                await stack.enter_async_context(serving(pages(scheduler), address, Delegated(client, world).check))
            async with world.task_group() as group:
                group.start(elector.run(scheduler.run) if elector else scheduler.run())
                await stop.wait()
                group.cancel()

    try:
        world.run(run)
    except PluginError as error:
        print(f"scheduler: {error}")
        return 2
    except BaseExceptionGroup as group:
        lost, other = group.split(LeadershipLost)
        if lost is None or other is not None:
            raise
        log.error("leaderelection lost: %s", lost.exceptions[0])
        return 1  # another one leads then
    return 0


def elector_of(client: Client, world: World, config: SchedulerConfig, identity: str) -> LeaderElector | None:
    """None without leader election."""
    election = config.leader_election
    if not election.leader_elect:
        return None
    where = election.resource_namespace, election.resource_name
    duration, deadline, period = election.times
    return LeaderElector(
        client, world, *where, identity or world.uid(),
        lease_duration=duration, renew_deadline=deadline, retry_period=period,
    )  # fmt: skip
