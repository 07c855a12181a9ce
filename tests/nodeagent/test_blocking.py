"""Nothing on a node's disk holds up the agent's event loop: CPU time of the loop is measured, and that it goes on turning."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from navarch.world import RealWorld
from nodeagent.config import Config
from nodeagent.pods import logrotate
from nodeagent.volumes.manager import PodVolumes
from tests.loopwatch import Watchdog

FILES = 12_000  # 50,000 were tried, too


class NoCsi:
    """No volumes of drivers."""

    def next_republish(self, uid: str) -> None:
        pass

    async def tear_down(self, uid: str) -> None:
        pass


def turns(work: Any) -> int:
    """How often the loop turned while the work was done; whatever blocks it is an error."""
    watchdog, count = Watchdog(0.05), 0

    async def main() -> None:
        nonlocal count
        doing = asyncio.ensure_future(work())
        while not doing.done():
            await asyncio.sleep(0.002)
            count += 1
        await doing

    watchdog.run(main)
    assert not watchdog.slow, watchdog.report()
    return count


def test_a_pod_with_very_many_files_goes(tmp_path: Path) -> None:
    config = Config(node_name="n", root_dir=tmp_path, run_dir=tmp_path / "run")
    folder = config.pods_dir / "uid" / "volumes" / "kubernetes.io~empty-dir" / "v"
    for i in range(50):
        (folder / f"d{i}").mkdir(parents=True)
        where = os.open(folder / f"d{i}", os.O_DIRECTORY)
        for j in range(FILES // 50):
            os.close(os.open(f"f{j}", os.O_CREAT, dir_fd=where))
        os.close(where)
    none: Any = None
    volumes = PodVolumes(config, RealWorld(), none, none, none, "uid", NoCsi())  # type: ignore[arg-type]
    assert turns(lambda: volumes.tear_down(lambda: False)) > 20
    assert not folder.exists()


def large_logs(folder: Path, containers: list[str]) -> None:
    """Writes for each container a log of 100 bytes and five that were rotated before."""
    for name in containers:
        (folder / f"{name}.log").write_bytes(b"x" * 100)
        for number in range(5):
            (folder / f"{name}.log.2000010{number}-000000").write_bytes(b"old")


def running_container(folder: Path, name: str) -> SimpleNamespace:
    return SimpleNamespace(id=name, state=logrotate.RUNNING, log_path=str(folder / f"{name}.log"))


def test_logs_are_turned_over(tmp_path: Path) -> None:
    """Many containers with large logs: sizes are looked up, and old logs removed, beside the loop."""
    calls: list[str] = []

    async def blocking(work: Any, *arguments: Any) -> Any:
        calls.append(getattr(work, "__name__", ""))
        return await asyncio.to_thread(work, *arguments)

    async def reopen_log(container: str) -> None:
        (tmp_path / f"{container}.log").write_bytes(b"")

    async def once(_: float) -> None:
        if calls:
            raise asyncio.CancelledError

    names = [f"c{i}" for i in range(100)]
    large_logs(tmp_path, names)
    containers = {name: running_container(tmp_path, name) for name in [*names, "absent"]}
    node: Any = SimpleNamespace(
        config=Config(node_name="n", max_log_size=50, max_log_files=3),
        world=SimpleNamespace(now=lambda: 1e9 + len(calls), sleep=once, blocking=blocking),
        runtime=SimpleNamespace(reopen_log=reopen_log), workers=lambda: [SimpleNamespace(containers=containers)],
    )  # fmt: skip

    async def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await logrotate.run(node)

    turns(run)
    assert calls.count("_thin_out") == 100
    for name in names:
        kept = sorted(path.name for path in tmp_path.glob(f"{name}.log.*"))
        assert len(kept) == 2 and kept[0] == f"{name}.log.20000104-000000"  # the newest of old, and the one of now
        assert (tmp_path / f"{name}.log").read_bytes() == b""
