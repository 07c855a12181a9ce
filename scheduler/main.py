"""The scheduler as a process: ``python -m scheduler``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.health import parse_address, serving
from navarch.client.leader import LeaderElector
from navarch.client.transport import connect
from navarch.world import RealWorld, World
from scheduler.config import FLAGS, SchedulerConfig
from scheduler.pages import pages
from scheduler.profiles import load_plugin
from scheduler.scheduler import Scheduler

log = logging.getLogger(__name__)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scheduler", description="Binds pods to nodes.")
    add = parser.add_argument
    add("--kubeconfig", required=True, help="how to reach the API server")
    add("--config", metavar="FILE", help="a KubeSchedulerConfiguration (profiles, plugins, weights, arguments)")
    add("--plugin", action="append", default=[], metavar="MODULE:CLASS", help="a plugin of yours, on in all profiles")
    add("--set", action="append", default=[], metavar="FLAG=VALUE", help=f"one of: {', '.join(FLAGS)}")
    add("--address", default="", help="serve /healthz, /metrics, /explain on 127.0.0.1:PORT or a socket's path")
    add("--leader-elect", action="store_true", help="wait for the Lease kube-system/kube-scheduler")
    add("--identity", default="", help="name in the Lease; default: a new uid")
    return parser.parse_args(argv)


def files_among_settings(settings: list[str], config: str, plugins: list[str]) -> tuple[list[str], str, list[str]]:
    """``--set config=FILE`` and ``--set plugin=MODULE:CLASS`` are the flags of that name: what `navarch up` can hand on."""
    left = []
    for setting in settings:
        name, _, value = setting.partition("=")
        if name == "config":
            config = value
        elif name == "plugin":
            plugins = [*plugins, value]
        else:
            left.append(setting)
    return left, config, plugins


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options.set, options.config, options.plugin = files_among_settings(options.set, options.config, options.plugin)
    try:
        text = Path(options.config).read_text() if options.config else ""
        config = SchedulerConfig.load(text, [load_plugin(p) for p in options.plugin])
        for setting in options.set:
            config.set(setting)
        address = parse_address(options.address) if options.address else None
        config.leader_elect = config.leader_elect or options.leader_elect
    except (ValueError, ImportError, OSError) as error:
        print(f"scheduler: {error}")
        return 2
    world = RealWorld()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        client = Client(connect(kubeconfig.load(options.kubeconfig)), world, user_agent="kube-scheduler")
        scheduler = Scheduler(client, world, config)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(client.close)
            if address:
                await stack.enter_async_context(serving(pages(scheduler), address))
            async with world.task_group() as group:
                group.start(_work(client, world, scheduler, config, options.identity))
                await stop.wait()
                group.cancel()

    world.run(run)
    return 0


async def _work(client: Client, world: World, scheduler: Scheduler, config: SchedulerConfig, identity: str) -> None:
    """With leader election, a process that loses the Lease ends: another one leads then."""
    if config.leader_elect:
        await LeaderElector(client, world, "kube-system", "kube-scheduler", identity or world.uid()).run(scheduler.run)
    else:
        await scheduler.run()
