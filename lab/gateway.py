"""The lab's gateway: the process on the machine's side of a lab that does what nodes, in namespaces of their own, cannot.

It pulls images for all nodes; if there is a registry, it lets nodes reach it; if the lab has a way out, it asks the machine's
resolver for them (lab/dnsrelay.py).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from lab.dnsrelay import DNSRelay
from navarch.egress import Egress
from navarch.world import RealWorld
from nodeagent.images import registries
from nodeagent.images.distribution import Transport
from nodeagent.images.pull import Puller
from nodeagent.images.puller import PullServer
from nodeagent.images.store import ImageStore

log = logging.getLogger(__name__)
PIECE = 64 << 10


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m lab.gateway", description="Pulls images and asks resolvers for a lab's nodes."
    )
    p.add_argument("--images", type=Path, required=True, help="the home's image store")
    p.add_argument("--socket", type=Path, required=True, help="where agents ask for images")
    p.add_argument(
        "--registries", type=Path, action="append", default=[], help="registries.conf; the first one counts most"
    )
    p.add_argument("--range", action="append", default=[], metavar="CIDR", help="the lab's own addresses")
    p.add_argument("--closed", default="", metavar="REASON", help="why nothing outside may be reached")
    p.add_argument("--dns", default="", metavar="HOST:PORT", help="answer the nodes' resolvers here, over TCP")
    p.add_argument("--resolv-conf", type=Path, default=Path("/etc/resolv.conf"), help="the machine's resolvers")
    p.add_argument(
        "--relay", default="", metavar="HOST:PORT=HOST:PORT", help="pass connections on, for the lab's registry"
    )
    return p


async def serve(options: argparse.Namespace, world: RealWorld) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    transport = Transport(world, Egress(options.closed, tuple(options.range)))
    store = ImageStore(options.images)
    puller = Puller(world, store, transport, lambda: registries.load(*options.registries))
    async with world.task_group() as group:
        group.start(PullServer(puller).serve(options.socket), name="pulls")
        if options.dns:
            group.start(DNSRelay(world, options.resolv_conf).serve(*_place(options.dns)), name="dns")
        if options.relay:
            here, _, there = options.relay.partition("=")
            group.start(relay(_place(here), _place(there)), name="relay")
        await stop.wait()
        group.cancel()
    await transport.close()


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


async def relay(here: tuple[str, int], there: tuple[str, int]) -> None:
    """Passes TCP connections on, until cancelled. Raises OSError if it cannot listen."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            other_reader, other_writer = await asyncio.open_connection(*there)
            await asyncio.gather(_pass_on(reader, other_writer), _pass_on(other_reader, writer))
            other_writer.close()
        writer.close()

    server = await asyncio.start_server(connection, *here)
    async with server:
        await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    world = RealWorld()
    world.run(lambda: serve(options, world))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
