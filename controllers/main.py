"""The command line: ``python -m controllers --kubeconfig FILE [--set NAME=VALUE]...``; ``main(argv)`` after a fork."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import pathlib
import signal

from controllers.config import Config, describe
from controllers.manager import Manager
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.health import health_pages, parse_address, serving
from navarch.client.leader import LeadershipLost
from navarch.client.transport import connect
from navarch.world import RealWorld, World

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="controllers",
        description="Runs navarch's controllers: deployments, replica sets, endpoints, namespaces, nodes and others.",
        epilog="settings for --set (named as kube-controller-manager's flags):\n" + describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out.add_argument("--kubeconfig", metavar="FILE", help="how to reach the API server (default: as kubectl finds it)")
    out.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="set a knob; may be repeated")
    out.add_argument("--address", metavar="ADDR", help="serve /healthz, /readyz, /metrics on 127.0.0.1:PORT or a path")
    out.add_argument("--identity", metavar="NAME", default="", help="this process's name in the leader's Lease")
    out.add_argument("-v", "--verbose", action="store_true", help="log more")
    return out


def main(argv: list[str]) -> int:
    """Runs until SIGTERM or SIGINT. Returns the exit code: 0 stopped, 1 leadership lost, 2 wrong usage."""
    arguments = parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        config = Config().with_settings(arguments.set)
        from controllers.nodes.ipam import pools

        if config.allocate_node_cidrs:
            pools(config)
        cluster = kubeconfig.load(arguments.kubeconfig)
    except (ValueError, OSError, kubeconfig.KubeconfigError) as error:
        log.error("%s", error)
        return 2
    world = RealWorld()
    return world.run(lambda: _run(arguments, config, cluster, world))


async def _run(arguments: argparse.Namespace, config: Config, cluster: kubeconfig.Config, world: World) -> int:

    client = Client(connect(cluster), world, "kube-controller-manager")
    manager = Manager(client, world, config, root_ca=_root_ca(config, cluster), identity=arguments.identity)
    unknown = sorted(config.named - set(manager.factories()))
    if unknown:
        names = ", ".join(manager.factories())
        log.error("controllers: %s: not in the list of known controllers: %s", ", ".join(unknown), names)
        await client.close()
        return 2
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    code = 0

    async def work() -> None:
        nonlocal code
        try:
            await manager.run()
        except LeadershipLost as error:
            # Others may be leading already: only a fresh start is safe.
            log.error("leadership lost: %s", error)
            code = 1
        stop.set()

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        if arguments.address:
            pages = health_pages(lambda: "" if manager.ready else "caches are not synced", manager.context.metrics.text)
            await stack.enter_async_context(serving(pages, parse_address(arguments.address)))
        async with world.task_group() as group:
            task = group.start(work(), name="manager")
            await stop.wait()
            task.cancel()
    return code


def _root_ca(config: Config, cluster: kubeconfig.Config) -> str:
    """The bundle to publish: the file of the knob root-ca-file, else the CA that the kubeconfig trusts."""
    if config.root_ca_file:
        return pathlib.Path(config.root_ca_file).read_text()
    return cluster.ca.decode()
