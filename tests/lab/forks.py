"""A supervisor of components that tests make up: each is a module of a few lines in a folder of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lab.forking import Spec
from lab.paths import LabPaths
from lab.supervisor import Supervisor, request
from tests.e2e.harness import wait_for

LOOP = """
import asyncio, signal
from navarch.world import RealWorld

def main(argv):
    async def body():
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        {work}
        await stop.wait()
    RealWorld().run(body)
    return 0
"""


class Forks:
    """Components and the supervisor that runs them, in a thread of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.paths = LabPaths("forks")
        self.paths.make()

    def spec(self, name: str, text: str, **options: Any) -> Spec:
        """A component whose module is ``text``; its socket for questions is there."""
        module = f"{name}_of_{self.directory.name.replace('-', '_')}"
        (self.directory / f"{module}.py").write_text(text)
        log = str(self.directory / f"{name}.log")
        return Spec(name, module=module, log=log, alive=str(self.paths.run / f"{name}.alive"), **options)

    def looping(self, name: str, work: str = "pass", **options: Any) -> Spec:
        return self.spec(name, LOOP.replace("{work}", work), **options)

    @contextmanager
    def supervised(self, *specs: Spec) -> Iterator[Supervisor]:
        supervisor = Supervisor(self.paths)
        ready = threading.Event()
        thread = threading.Thread(target=supervisor.serve, args=(ready.set,))
        thread.start()
        assert ready.wait(30)
        try:
            self.start(*specs)
            yield supervisor
        finally:
            request(self.paths, "shutdown", timeout=30)
            thread.join()

    def start(self, *specs: Spec) -> None:
        request(self.paths, "start", specs=[asdict(s) for s in specs])

    def state(self, name: str) -> dict[str, Any]:
        return next(c for c in request(self.paths, "list") if c["name"] == name)

    def wait(self, name: str, condition: Callable[[dict[str, Any]], bool], timeout: float = 60) -> dict[str, Any]:
        """The component's state once the condition holds."""

        def holds() -> dict[str, Any] | None:
            state = self.state(name)
            assert condition(state), state
            return state

        return dict(wait_for(holds, name, timeout))

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()


@pytest.fixture
def forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forks:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    return Forks(tmp_path)
