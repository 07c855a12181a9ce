"""The ingress controller as a process: ``python -m proxy.ingress.main``. Runs in its node's namespaces, beside the proxy."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import grp
import logging
import pwd
import signal
from collections.abc import Sequence
from pathlib import Path

from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.health import health_pages, parse_address, serving
from navarch.client.informer import SharedInformers
from navarch.client.transport import connect
from navarch.world import RealWorld
from proxy.ingress.config import Place
from proxy.ingress.controller import SERVICE, IngressController
from proxy.ingress.nginx import Nginx, NginxError, fallback_pair
from proxy.publish import keep_slice, node_slice

NAME = "navarch-ingress"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proxy.ingress.main", description="Serves Ingresses with nginx.")
    parser.add_argument("--kubeconfig", required=True, help="how to reach the API server")
    parser.add_argument("--node-name", required=True)
    parser.add_argument("--node-ip", required=True, help="the address to listen on")
    parser.add_argument("--http-port", type=int, required=True, help="where the Service's port 80 ends")
    parser.add_argument("--https-port", type=int, required=True, help="where its port 443 ends")
    parser.add_argument("--directory", required=True, help="nginx' files; keys lie here, so it should be on no disk")
    parser.add_argument("--nginx-log", required=True, help="file for nginx' own messages")
    parser.add_argument("--address", default="", help="serve /healthz, /readyz, /metrics on 127.0.0.1:PORT or a path")
    return parser.parse_args(argv)


def unprivileged() -> str:
    """The user and group of nginx' workers: nobody, whose group has another name from distribution to distribution."""
    nobody = pwd.getpwnam("nobody")
    return f"{nobody.pw_name} {grp.getgrgid(nobody.pw_gid).gr_name}"


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    world = RealWorld()
    try:
        nginx = Nginx(Path(options.directory), Path(options.nginx_log))
    except (NginxError, OSError) as error:
        print(f"ingress: {error}")
        return 2
    place = Place(options.node_ip, options.http_port, options.https_port, options.directory, unprivileged())

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        client = Client(connect(kubeconfig.load(options.kubeconfig)), world, user_agent=NAME)
        informers = SharedInformers(client, world)
        events = EventRecorder(client, world, NAME, options.node_name)
        await world.blocking(nginx.write_pairs, {"fallback": fallback_pair(world.now())})
        controller = IngressController(client, world, informers, options.node_name, place, nginx, events)
        pages = health_pages(lambda: "" if controller.synced.is_set() else "nginx is not configured yet")
        ports = {"http": (options.http_port, "TCP"), "https": (options.https_port, "TCP")}
        endpoint_slice = node_slice(*SERVICE, NAME, options.node_name, options.node_ip, ports)

        async def publish() -> None:
            await controller.synced.wait()  # nobody is to be sent here before nginx listens
            await keep_slice(client, world, endpoint_slice)

        async with contextlib.AsyncExitStack() as stack, world.task_group() as group:
            if options.address:
                await stack.enter_async_context(serving(pages, parse_address(options.address)))
            group.start(informers.run(), name="informers")
            group.start(events.run(), name="events")
            group.start(controller.run(), name="ingresses")
            group.start(publish(), name="publish")
            await stop.wait()
            group.cancel()
        await client.close()

    world.run(run)
    nginx.stop()
    return 0
