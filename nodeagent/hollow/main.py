"""A fleet of simulated nodes as a process: ``python -m nodeagent.hollow --kubeconfig FILE --roster FILE``.

The roster says which nodes there are and which of them are off or cut off. It is read again whenever somebody asks for
``/status`` on the control socket, so the answer is about the fleet as the file wants it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import signal
from collections.abc import Sequence
from pathlib import Path

from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.health import Page, health_pages, serving
from navarch.client.transport import connect
from navarch.world import RealWorld, World
from nodeagent.hollow.fleet import Config, HollowFleet
from nodeagent.hollow.objects import Endpoint
from nodeagent.hollow.options import parse
from nodeagent.hollow.roster import HOST, Roster

log = logging.getLogger(__name__)


def lease_seconds(nodes: int, least: int, renewals: float) -> int:
    """How long Leases are valid: ``least``, or what keeps their renewals, four in that time, below so many a second."""
    return max(least, math.ceil(4 * nodes / renewals))


def bring_to(fleet: HollowFleet, roster: Roster) -> None:
    """Adds, removes, switches and cuts nodes until the fleet is as the roster has it."""
    leftovers = dict.fromkeys(fleet.names)
    for spec in roster.specs():
        on, cut = spec.name not in roster.off, spec.name in roster.cut
        if spec.name not in leftovers:
            fleet.add_node(spec, on=on, cut=cut)
            continue
        del leftovers[spec.name]
        if not on:
            fleet.power_off(spec.name)
        if cut:
            fleet.partition(spec.name)
        else:
            fleet.heal(spec.name)
        if on:
            fleet.power_on(spec.name)
    for name in leftovers:
        fleet.remove_node(name)


async def serve(options: argparse.Namespace, world: World) -> None:
    """Runs the fleet until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    read = _stamp(options.roster)
    roster = Roster.load(options.roster)

    def config(nodes: int) -> Config:
        lease = lease_seconds(nodes, options.lease, options.renewals)
        return Config(lease_duration=lease, lease_period=lease / 4, status_period=options.report)

    client = Client(connect(kubeconfig.load(options.kubeconfig)), world, "kubelet/hollow navarch")
    fleet = HollowFleet(client, world, config=config(len(roster)))
    bring_to(fleet, roster)

    def status(query: str) -> Page:
        nonlocal read
        if (stamp := _stamp(options.roster)) != read:
            read, desired = stamp, Roster.load(options.roster)
            bring_to(fleet, desired)
            fleet.config = config(len(desired))
        body = {
            "nodes": len(fleet.names),
            "ready": fleet.ready,
            "pods": fleet.pods,
            "lease": fleet.config.lease_duration,
        }
        return 200, "application/json", json.dumps(body).encode()

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(client.close)
        if options.tls_cert_file:
            from nodeagent.hollow.server import serving as serving_https
            from nodeagent.server.auth import Gate, server_context

            context = server_context(options.tls_cert_file, options.tls_private_key_file, options.client_ca_file)
            gate = Gate(client, world, "hollow")
            port = await stack.enter_async_context(serving_https(gate, "127.0.0.1", options.port, context))
            fleet.endpoint = Endpoint(HOST, port)
        if options.control:
            pages = health_pages(lambda: "" if fleet.synced else "not synced") | {"/status": status}
            await stack.enter_async_context(serving(pages, options.control))
            status("")  # whoever changed the roster before that could not ask
        async with world.task_group() as group:
            group.start(fleet.run(), "fleet")
            await stop.wait()
            group.cancel()


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when the file does: every version is a new file."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0
    return stat.st_ino, stat.st_mtime_ns


def main(argv: Sequence[str] | None = None) -> int:
    import sys

    options = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    world = RealWorld()
    world.run(lambda: serve(options, world))
    return 0
