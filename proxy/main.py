"""The proxy as a process: ``python -m proxy``. Runs in its node's network namespace."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ipaddress
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.health import health_pages, parse_address, serving
from navarch.client.informer import SharedInformers
from navarch.client.transport import connect
from navarch.settings import Kind, Settings
from navarch.world import RealWorld, keep_running
from proxy.announcer import Announcer
from proxy.dns import Server
from proxy.healthchecks import HealthChecks
from proxy.policies import Policies
from proxy.proxy import Proxy
from proxy.publish import publish
from proxy.zone import Zone

log = logging.getLogger(__name__)


def _address(text: str) -> str:
    """ADDRESS or ADDRESS:PORT of IPv4, or an address of IPv6."""
    host, colon, port = text.rpartition(":")
    if text:
        ipaddress.ip_address(host if colon and "." in host else text)
    if colon and "." in host and not 0 < int(port) < 1 << 16:
        raise ValueError(text)
    return text


SETTINGS = Settings("proxy", {"dns-upstream": Kind("an IP address, maybe with :PORT, or nothing", _address)})


def check(settings: Sequence[str]) -> None:
    """Whether the proxy can be told this by ``--set``. Raises ValueError."""
    SETTINGS.read_all(settings)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proxy", description="Programs services and network policies; answers DNS.")
    parser.add_argument("--kubeconfig", required=True, help="how to reach the API server")
    parser.add_argument("--node-name", required=True)
    parser.add_argument("--node-ip", required=True, help="the address to answer DNS on")
    parser.add_argument("--cluster-cidr", default="", help="where pods live; clients outside it are masqueraded")
    parser.add_argument("--cluster-domain", default="cluster.local")
    parser.add_argument("--pod-socket", type=Path, help="where the node agent tells of new pods' addresses")
    parser.add_argument("--address", default="", help="serve /healthz, /readyz, /metrics on 127.0.0.1:PORT or a path")
    parser.add_argument("--set", action="append", default=[], metavar="FLAG=VALUE", help=f"one of: {', '.join(SETTINGS.kinds)}")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        upstream = SETTINGS.read_all(options.set).get("dns-upstream", "")
    except ValueError as error:
        print(f"proxy: {error}")
        return 2
    world = RealWorld()

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        client = Client(connect(kubeconfig.load(options.kubeconfig)), world, user_agent="kube-proxy")
        informers = SharedInformers(client, world)
        events = EventRecorder(client, world, "kube-proxy", options.node_name)
        proxy = Proxy(world, informers, options.node_name, options.cluster_cidr, events=events)
        policies = Policies(world, informers, options.node_name, options.node_ip, events=events, registry=proxy.registry)
        checks = HealthChecks(world, informers, options.node_name)
        announcer = Announcer(world, informers, options.node_name)
        zone = Zone(world, informers, options.cluster_domain, options.node_ip)
        server = Server(zone, options.node_ip, upstream=upstream)
        ready = (proxy.synced, policies.synced)
        text = "rules are not programmed yet"
        pages = health_pages(lambda: "" if all(part.is_set() for part in ready) else text, proxy.metrics)
        async with contextlib.AsyncExitStack() as stack, world.task_group() as group:
            if options.address:
                await stack.enter_async_context(serving(pages, parse_address(options.address)))
            group.start(informers.run(), name="informers")
            group.start(events.run(), name="events")
            group.start(proxy.run(), name="rules")
            group.start(policies.run(), name="policies")
            if options.pod_socket:
                group.start(policies.serve(options.pod_socket), name="new pods")
            group.start(keep_running(world, log, "health checks", checks.run), name="health checks")
            group.start(keep_running(world, log, "load balancers", announcer.run), name="load balancers")
            group.start(server.run(), name="dns")
            group.start(publish(client, world, options.node_name, options.node_ip), name="publish")
            await stop.wait()
            group.cancel()
        await client.close()

    world.run(run)
    return 0
