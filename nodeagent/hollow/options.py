"""The command line of the fleet of simulated nodes, and what ``--set`` can say."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from navarch.settings import COUNT, NUMBER, POSITIVE, POSITIVE_DURATION, Kind, Settings

SETTINGS = Settings("hollow", {
    "node-lease-duration-seconds": POSITIVE,
    "lease-renewals-per-second": Kind("a number above 0", NUMBER.read),
    "node-status-report-frequency": POSITIVE_DURATION,
    "port": COUNT,
})  # fmt: skip


def parser() -> argparse.ArgumentParser:
    out = argparse.ArgumentParser(
        prog="python -m nodeagent.hollow",
        description="Simulates nodes: real API objects, containers that do not exist.",
    )
    add = out.add_argument
    add("--kubeconfig", required=True, help="how to reach the API server, with the rights of all these nodes together")
    add("--roster", type=Path, required=True, help="which nodes: a JSON file (see nodeagent/hollow/roster.py)")
    add("--control", default="", metavar="SOCKET", help="serve /status and /healthz on this unix socket")
    add("--node-lease-duration-seconds", dest="lease", type=int, default=40, help="renewed four times in so long")
    add(
        "--lease-renewals-per-second",
        dest="renewals",
        type=float,
        default=50.0,
        help="of all nodes together; with so many nodes that it would be more, Leases last longer",
    )
    add("--node-status-report-frequency", dest="report", type=float, default=300.0, help="seconds between heartbeats")
    add("--port", type=int, default=0, help="where logs and exec are refused, on 127.0.0.1; default: a free one")
    add("--tls-cert-file", default="", help="certificate of that server; without it there is none")
    add("--tls-private-key-file", default="")
    add("--client-ca-file", default="", help="CA whose client certificates the server takes")
    add("--set", action="append", default=[], metavar="FLAG=VALUE", help="any of the above")
    return out


def check(settings: Sequence[str]) -> None:
    """Whether the fleet can be told this by ``--set``. Raises ValueError."""
    SETTINGS.read_all(settings)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line; exits with a message if it is wrong."""
    commands = parser()
    options = commands.parse_args(argv)
    try:
        values = SETTINGS.read_all(options.set)
    except ValueError as error:
        commands.error(str(error))
    return commands.parse_args([*argv, *(f"--{name}={value}" for name, value in values.items())])
