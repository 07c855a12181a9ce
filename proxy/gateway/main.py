"""The Gateway controller as a process: ``python -m proxy.gateway.main``. Runs in its node's namespaces, beside the proxy."""

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
from navarch.client.health import health_pages, parse_address, serving
from navarch.client.informer import SharedInformers
from navarch.client.transport import connect
from navarch.world import RealWorld
from proxy.gateway.controller import NAME, GatewayController
from proxy.ingress.config import Place
from proxy.ingress.main import unprivileged
from proxy.ingress.nginx import Nginx, NginxError, fallback_pair


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proxy.gateway.main", description="Serves Gateways with nginx.")
    parser.add_argument("--kubeconfig", required=True, help="how to reach the API server")
    parser.add_argument("--node-name", required=True)
    parser.add_argument("--node-ip", required=True, help="the address to listen on")
    parser.add_argument("--directory", required=True, help="nginx' files; keys lie here, so it should be on no disk")
    parser.add_argument("--nginx-log", required=True, help="file for nginx' own messages")
    parser.add_argument("--address", default="", help="serve /healthz, /readyz, /metrics on 127.0.0.1:PORT or a path")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    world = RealWorld()
    try:
        nginx = Nginx(Path(options.directory), Path(options.nginx_log))
    except (NginxError, OSError) as error:
        print(f"gateway: {error}")
        return 2
    place = Place(options.node_ip, 0, 0, options.directory, unprivileged())

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        client = Client(connect(kubeconfig.load(options.kubeconfig)), world, user_agent=NAME)
        informers = SharedInformers(client, world)
        await world.blocking(nginx.write_pairs, {"fallback": fallback_pair(world.now())})
        controller = GatewayController(client, world, informers, options.node_name, place, nginx)
        pages = health_pages(lambda: "" if controller.synced.is_set() else "nginx is not configured yet")
        async with contextlib.AsyncExitStack() as stack, world.task_group() as group:
            if options.address:
                await stack.enter_async_context(serving(pages, parse_address(options.address)))
            group.start(informers.run(), name="informers")
            group.start(controller.run(), name="gateways")
            group.start(controller.lead(), name="lead")
            await stop.wait()
            group.cancel()
        await client.close()

    world.run(run)
    nginx.stop()
    return 0
