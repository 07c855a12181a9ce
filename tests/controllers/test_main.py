"""The command line, and what the process tells about itself."""

from __future__ import annotations

import pathlib

import aiohttp

from controllers.main import main
from controllers.manager import Manager
from navarch.client.client import Client
from navarch.client.health import health_pages, serving
from navarch.client.transport import InProcessTransport
from navarch.world import RealWorld


def test_wrong_usage(tmp_path: pathlib.Path) -> None:
    assert main(["--kubeconfig", str(tmp_path / "none")]) == 2
    assert main(["--set", "no-such-knob=1"]) == 2
    assert main(["--set", "cluster-cidr=10.0.0.0/28"]) == 2


async def test_health_and_metrics(tmp_path: pathlib.Path) -> None:
    socket = str(tmp_path / "c.sock")
    world = RealWorld()

    async def no_server(scope: object, receive: object, send: object) -> None:
        raise AssertionError("nothing is asked of the API server")

    manager = Manager(Client(InProcessTransport(no_server, None), world), world)
    connector = aiohttp.UnixConnector(socket)
    pages = health_pages(lambda: "" if manager.ready else "caches are not synced", manager.context.metrics.text)
    async with serving(pages, socket), aiohttp.ClientSession(connector=connector) as session:
        for path in ("healthz", "livez", "readyz"):
            async with session.get(f"http://x/{path}") as answer:
                assert (answer.status, await answer.text()) == (200, "ok")
        manager.context.metrics.worked("some-controller", 0.1)
        async with session.get("http://x/metrics") as answer:
            text = await answer.text()
        assert 'workqueue_work_duration_seconds_count{name="some-controller"} 1.0' in text
