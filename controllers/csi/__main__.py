"""The sidecar as a program: ``python -m controllers.csi --csi-address SOCKET ...``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from controllers.config import Config
from controllers.controller import Context, Controller
from controllers.csi.attacher import Attacher
from controllers.csi.driver import Driver
from controllers.csi.provisioner import Provisioner
from controllers.csi.registrar import Registrar
from controllers.csi.resizer import Resizer
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.informer import SharedInformers
from navarch.client.leader import LeaderElector
from navarch.client.transport import connect
from navarch.rpc.sockets import RpcError
from navarch.world import Backoff, RealWorld, World, keep_running, name_suffix

log = logging.getLogger("csi")
ROLES = ("registrar", "provisioner", "attacher", "resizer")


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m controllers.csi",
        description="The cluster's side of a CSI driver: registers it with the node, makes, attaches and resizes its volumes.",
    )
    out.add_argument("--csi-address", type=Path, required=True, metavar="SOCKET", help="the driver's socket")
    out.add_argument("--kubeconfig", metavar="FILE", help="how to reach the API server (default: the pod's service account)")
    out.add_argument(
        "--leader-election", metavar="NAMESPACE", default="",
        help="let one of several such sidecars make, attach and resize volumes: the holder of a Lease in this namespace",
    )  # fmt: skip
    out.add_argument("--roles", default=",".join(ROLES), help=f"which of {','.join(ROLES)} to play (default: all)")
    out.add_argument(
        "--node-name", default="", help="make and delete only volumes for this node (a driver whose volumes belong to nodes)"
    )
    out.add_argument(
        "--kubelet-registration-path", metavar="SOCKET", help="the driver's socket as the node sees it (default: --csi-address)"
    )
    out.add_argument(
        "--plugin-registration-path", type=Path, default=Path("/registration"), metavar="FOLDER",
        help="the node's plugins_registry (default: /registration)",
    )  # fmt: skip
    return out


async def run(arguments: argparse.Namespace, client: Client, world: World) -> None:
    """Waits for the driver, then plays its roles until cancelled."""
    driver, backoff = Driver(arguments.csi_address), Backoff(world, first=0.5, most=10.0)
    while True:
        try:
            await driver.meet()
            break
        except RpcError as error:
            log.warning("driver at %s: %s", arguments.csi_address, error)
            await world.sleep(backoff.next())
    log.info("driver %s", driver.name)
    informers = SharedInformers(client, world)
    context = Context(client, world, Config(), informers)
    roles = arguments.roles.split(",")
    controllers: list[Controller] = []
    if "provisioner" in roles:
        controllers.append(Provisioner(context, driver, arguments.node_name))
    if "attacher" in roles:
        controllers.append(Attacher(context, driver))
    if "resizer" in roles:
        controllers.append(Resizer(context, driver))


    async def work() -> None:
        async with world.task_group() as group:
            group.start(informers.run(), name="informers")
            for component, recorder in context.recorders.items():
                group.start(recorder.run(), name=f"events of {component}")
            for controller in controllers:
                group.start(keep_running(world, log, controller.name, controller.run), name=controller.name)

    try:
        async with world.task_group() as group:
            if "registrar" in roles:
                registrar = Registrar(driver.name, arguments.kubelet_registration_path or str(arguments.csi_address))
                group.start(registrar.run(arguments.plugin_registration_path), name="registrar")
            if arguments.leader_election:
                place = arguments.leader_election, f"csi-{driver.name.replace('.', '-')}"
                elector = LeaderElector(client, world, *place, f"{socket.gethostname()}_{name_suffix(world, 8)}")
                group.start(elector.run(work), name="leader election")
            else:
                group.start(work(), name="controllers")
    finally:
        await driver.close()


async def serve(arguments: argparse.Namespace, world: World) -> None:
    """Runs until SIGTERM or SIGINT."""
    cluster = kubeconfig.load(arguments.kubeconfig) if arguments.kubeconfig else kubeconfig.in_cluster()
    client = Client(connect(cluster), world, "csi-sidecar")
    task = asyncio.ensure_future(run(arguments, client, world))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await client.close()


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 stopped, 2 wrong usage."""
    arguments = parser().parse_args(argv)
    if unknown := [role for role in arguments.roles.split(",") if role not in ROLES]:
        parser().error(f"--roles: {', '.join(unknown)}: not one of {', '.join(ROLES)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    world = RealWorld()
    try:
        world.run(lambda: serve(arguments, world))
    except (ValueError, OSError, kubeconfig.KubeconfigError) as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # grpcio's threads may take seconds to end
