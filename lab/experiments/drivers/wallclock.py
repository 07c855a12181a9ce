"""Both drivers of the wall clock share this: a control plane of its own for each run, and being up to date with it.

Every change is heard as ``navarch record`` hears it (lab/recording/following.py). A change that the experiment itself made may
be heard a moment after the server's answer; a condition that is asked in between would be told of the world before it (``rolled
out``, just after a new image). So a client notes what it has written, and before time goes by or a condition is asked the
driver waits until all of it has been heard.
"""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import orjson

from lab.experiments.drivers.driver import Plugin
from lab.experiments.drivers.hand import Hand
from lab.experiments.drivers.stage import StepFailed
from lab.experiments.run import Run
from lab.experiments.state import condition
from lab.recording.following import Following
from lab.simulation.applying import apply
from navarch.client.client import Client
from navarch.client.transport import Response
from navarch.world import TaskGroup, World
from nodeagent.hollow.objects import NodeSpec

HEARING = 10.0  # seconds that a change of our own may take to be heard before the run goes on without
SETTLING = 120.0  # seconds that the nodes may take to be schedulable
COMMAND_TIMEOUT = 600.0  # seconds
TICK = 0.5  # seconds between two words that time goes on
MACHINE_EVERY = 5.0  # seconds between two looks at how busy the machine is


class NotingClient(Client):
    """A client that notes the revisions that it has written, by uid."""

    def __init__(self, inner: Client) -> None:
        super().__init__(inner.transport, inner.world, inner.user_agent)
        self.written: dict[str, int] = {}

    async def request(self, method: str, path: str, **options: Any) -> Response:
        response = await super().request(method, path, **options)
        if method != "GET":
            self._note(response.body)
        return response

    def _note(self, body: bytes) -> None:
        try:
            meta = orjson.loads(body).get("metadata") or {}
            uid, revision = meta.get("uid", ""), int(meta.get("resourceVersion") or 0)
        except (ValueError, AttributeError):
            return
        if uid and revision and not meta.get("deletionTimestamp"):
            self.written[uid] = max(revision, self.written.get(uid, 0))


class _Sink:
    """Gives what is heard to the driver; marks and the end are the run's own."""

    def __init__(self, change: Callable[[float, str, str, int, bytes], None]) -> None:
        self.change = change

    def mark(self, time: float, name: str) -> None:
        pass

    def finish(self, time: float) -> None:
        pass


class WallClock:
    """A control plane on the wall clock as a driver; nodes are for subclasses. ``group``: of what runs beside the scenario."""

    def __init__(
        self, run: Run, hand: Hand, world: World, client: Client, group: TaskGroup, access: Mapping[str, Any],
        nodes: Sequence[NodeSpec],
    ) -> None:  # fmt: skip
        """``access``: the answer of the lab when it came up (drivers/hand.py)."""
        self.run, self.hand, self.group, self.access, self.nodes = run, hand, group, access, nodes
        self.world: World = world
        self.noting = NotingClient(client)
        self.client: Client = self.noting
        without = () if run.experiment.cluster.heartbeats == "full" else ("leases",)
        self._following = Following(client, _Sink(self._changed), without=without)
        self._heard: dict[str, int] = {}  # by uid
        self._news = asyncio.Event()

    # Being up to date

    async def follow(self) -> None:
        """Begins the recording; returns once everything that is there has been listed."""
        synced = asyncio.Event()
        self._following.begun = synced.set
        self.group.start(self._following.run(), "following")
        await synced.wait()

    def _changed(self, time: float, type: str, key: str, revision: int, value: bytes) -> None:
        uid = orjson.loads(value)["metadata"].get("uid", "")
        self._heard[uid] = 1 << 62 if type == "DELETED" else revision
        self.run.changed(time, type, key, revision, value)
        self._news.set()
        self._news = asyncio.Event()

    async def catch_up(self) -> None:
        """Until the run's state has what we wrote ourselves."""
        deadline = self.world.monotonic() + HEARING
        while pending := {u: r for u, r in self.noting.written.items() if self._heard.get(u, 0) < r}:
            if (remaining := deadline - self.world.monotonic()) <= 0:
                self.noting.written.clear()  # of a kind that is not followed
                return
            await self._wait(min(remaining, 1.0))
            self.noting.written = pending

    async def _wait(self, seconds: float) -> None:
        """For the next change, at most so long."""
        news = self._news
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            pass

    async def settle(self) -> None:
        """Until pods can be scheduled to all nodes of the file. Raises StepFailed."""
        try:
            await self.run_until(self._schedulable, SETTLING, "all nodes can be scheduled to")
        except TimeoutError as error:
            raise StepFailed(f"cluster.nodes: {error}") from error

    def _schedulable(self) -> bool:
        return all(self._usable(spec) for spec in self.nodes)

    def _usable(self, spec: NodeSpec) -> bool:
        node = self.run.state.get(f"/registry/nodes/{spec.name}")
        own = {(t.key, t.effect) for t in spec.taints}
        return (
            node is not None
            and condition(node, "Ready") == "True"
            and all((t["key"], t["effect"]) in own for t in node["spec"].get("taints") or ())
            and all(name in node["status"].get("allocatable", {}) for name in spec.resources)
        )

    async def watch_machine(self) -> None:
        """Samples how busy the machine is: a run on a busy one shows the machine, too."""
        while True:
            self.run.recorder.sample(self.now, "machine", {"load1": os.getloadavg()[0], "cores": float(os.cpu_count() or 1)})
            await self.world.sleep(MACHINE_EVERY)

    async def tell_time(self) -> None:
        """Tells those who watch the run that it goes on, also while nothing happens."""
        while self.run.listener is not None:
            self.run.listener.at(self.now)
            await self.world.sleep(TICK)

    # The protocol

    @property
    def now(self) -> float:
        return self._following.now

    async def apply(self, text: str, namespace: str = "default") -> None:
        await apply(self.client, text, namespace)
        await self.catch_up()

    async def sleep(self, seconds: float) -> None:
        await self.world.sleep(seconds)
        await self.catch_up()

    async def run_until(self, condition: Callable[[], Any], timeout: float, what: str = "") -> Any:
        deadline = self.world.monotonic() + timeout
        while True:
            await self.catch_up()
            if value := condition():
                return value
            remaining = deadline - self.world.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"not within {timeout:g} s: {what}\n{self.picture()}")
            await self._wait(min(1.0, remaining))

    def picture(self) -> str:
        """Nodes and pods, a line each, for error messages."""
        state = self.run.state
        lines = [f"node {n['metadata']['name']} ready={condition(n, 'Ready')}" for n in state.all("nodes")]
        for pod in state.pods():
            states = (pod.get("status", {}).get("containerStatuses") or [{}])[0].get("state") or {}
            reason = next((s.get("reason", "") for s in states.values()), "") or condition(pod, "PodScheduled")
            name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            lines.append(f"pod {name} {pod.get('status', {}).get('phase')} {reason} on {pod['spec'].get('nodeName')}")
        return "\n".join(lines)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        self.group.start(work, "background")

    async def command(self, argv: Sequence[str], folder: str) -> None:
        """It finds the cluster by KUBECONFIG."""
        more = {
            "KUBECONFIG": self.access["kubeconfig"], "NAVARCH_SECONDS": f"{self.now:.6f}", "NAVARCH_SEED": str(self.run.seed),
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=folder, env=os.environ | more, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                said, _ = await process.communicate()
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            text = said.decode(errors="replace").strip()[-500:]
            raise ValueError(f"{' '.join(argv)} ended with {process.returncode}: {text}")
        await self.catch_up()

    def gauges(self) -> Sequence[Plugin]:
        return ()

    def requests(self) -> Mapping[str, Mapping[str, float]]:
        return {}

    async def crash(self, component: str) -> None:
        await self.have_done("crash", component=component)

    async def start(self, component: str) -> None:
        await self.have_done("start", component=component)

    async def have_done(self, do: str, **arguments: Any) -> Any:
        """Has the lab do something, beside the event loop. Raises LabError."""
        return await self.world.blocking(lambda: self.hand.ask(do, **arguments))
