"""Starts the node agent from a command line: ``python -m nodeagent --kubeconfig FILE --node-name NAME``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from navarch import egress
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.transport import connect
from navarch.world import RealWorld, World
from nodeagent.agent import Agent
from nodeagent.config import VERSION, Config, parse
from nodeagent.runtime.runtime import Runtime


def make_runtime(config: Config, world: World) -> Runtime:
    """The runtime that the configuration names."""
    if config.runtime == "hollow":
        from nodeagent.runtime.hollow import HollowRuntime

        return HollowRuntime(world)
    from nodeagent.images import registries
    from nodeagent.images.distribution import Transport
    from nodeagent.images.pull import Puller
    from nodeagent.images.puller import LocalPuller, RemotePuller
    from nodeagent.images.store import ImageStore
    from nodeagent.linux.cgroups import Cgroups, own_cgroup
    cgroups = Cgroups(config.cgroup_root or own_cgroup().removesuffix("/sys"))
    cgroups.prepare(join=not own_cgroup().endswith("/sys"), setting=config.max_pids)
    store = ImageStore(config.image_root)
    puller: LocalPuller | RemotePuller
    if config.image_puller:
        puller = RemotePuller(Path(config.image_puller), world)
    else:
        transport = Transport(world, egress.of_machine())
        puller = LocalPuller(Puller(world, store, transport, lambda: registries.load(config.registries_conf)))
    if config.runtime == "cri":
        from nodeagent.runtime.cri.layout import containerd_socket
        from nodeagent.runtime.cri.runtime import CriRuntime

        return CriRuntime(
            world,
            socket=config.cri_socket or containerd_socket(config.run_dir),
            run_dir=config.run_dir,
            data=config.root_dir / "containers",
            images=store,
            puller=puller,
            cgroups=cgroups,
            policy_socket=config.run_dir / "policies.sock",
        )
    from nodeagent.runtime.oci import OciRuntime

    return OciRuntime(
        world,
        state=config.run_dir / "runtime",
        data=config.root_dir / "containers",
        images=store,
        puller=puller,
        cgroups=cgroups,
        policy_socket=config.run_dir / "policies.sock",
    )


async def serve(config: Config, world: World) -> None:
    """Runs the agent until it is told to stop by SIGTERM or SIGINT."""
    client = Client(connect(kubeconfig.load(config.kubeconfig)), world, f"kubelet/{VERSION} (linux) navarch")
    agent = Agent(config, client, world, make_runtime(config, world))
    task = asyncio.ensure_future(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    loop.add_signal_handler(signal.SIGPWR, agent.shut_down)  # the node will be switched off
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await client.close()


def main(argv: Sequence[str] | None = None) -> int:
    """The agent as a program; the exit code."""
    import sys

    config, args = parse(sys.argv[1:] if argv is None else argv)
    level = logging.WARNING if args.v < 1 else logging.DEBUG if args.v >= 4 else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    if config.runtime == "oci":  # a CRI runtime is where it is: we must see the mounts that it sees
        from nodeagent.linux import hostnamespace

        hostnamespace.enter(config.run_dir / "mnt" / "ns")  # while there is only one thread
    world = RealWorld()
    world.run(lambda: serve(config, world))
    return 0
