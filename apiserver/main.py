"""The API server as a process: ``main(argv)`` runs it until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import ssl
import sys

from apiserver import config as configuration
from apiserver.config import Config
from apiserver.offload import share_fairly
from apiserver.storage.store import Unreadable
from navarch.world import RealWorld, World

log = logging.getLogger("apiserver")


def main(argv: list[str] | None = None) -> int:
    """Runs the server; returns the exit code."""
    config = configuration.parse(sys.argv[1:] if argv is None else argv)
    level = logging.DEBUG if config.verbosity >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    world = RealWorld()
    share_fairly()
    try:
        if not config.tls_cert_file:
            if not config.cert_dir:
                raise ValueError("give --tls-cert-file, --tls-private-key-file and --client-ca-file, or --cert-dir")
            from apiserver.tls import make_certificates

            config = make_certificates(world, config)
        world.run(lambda: serve(world, config))
    except (ValueError, OSError) as error:
        print(f"apiserver: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | ssl.SSLError) else 1  # 2: starting again would not help
    except ExceptionGroup as group:
        unreadable = first(group, Unreadable)
        if unreadable is None:
            raise
        print(f"apiserver: {unreadable}", file=sys.stderr)
        return 1
    return 0


def first(error: BaseException, of: type[Exception]) -> BaseException | None:
    """The first exception of a type in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        return next((match for e in error.exceptions if (match := first(e, of)) is not None), None)
    return error if isinstance(error, of) else None


async def serve(world: World, config: Config) -> None:
    """One server on its store, until a signal."""
    from apiserver.assembly import assemble, open_store

    store = await open_store(world, config.store)
    server = assemble(world, store, config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)

    def ready(addresses: list[tuple[str, int]]) -> None:
        # What is there now stays: the collector need not look at it again. What comes is bytes and short-lived trees without
        # cycles, so it may look rarely.
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        log.info("serving on %s, store %s", ", ".join(f"https://{h}:{p}" for h, p in addresses), store.kind)
        if config.cert_dir:
            from apiserver.tls import write_admin_kubeconfig

            print(f"kubeconfig: {write_admin_kubeconfig(config, addresses[0])}", flush=True)

    try:
        await server.run(ready)
    finally:
        await store.close()
