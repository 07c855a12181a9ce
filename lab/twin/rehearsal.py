"""Plays a change on a twin, with several seeds, and records what happens."""

from __future__ import annotations

import json
import logging
import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass
from typing import Any

from lab.experiments.deeds import RETRY, Deeds
from lab.experiments.drivers.driver import Driver
from lab.experiments.drivers.stage import Outcome
from lab.experiments.drivers.virtual import play
from lab.experiments.run import Run
from lab.experiments.state import is_live
from lab.pools import PULSE, processes
from lab.twin.changes import Change, experiment
from lab.twin.cluster import Settings, Twin, is_daemon
from lab.twin.findings import Findings, findings
from lab.twin.learning import Learned
from lab.twin.settling import KINDS, restless
from lab.twin.snapshot import Snapshot
from navarch.api import kinds
from navarch.api.errors import NotFound, StatusError
from navarch.api.patch.diff import create_three_way_strategic_patch
from navarch.api.schema import schema_of
from navarch.api.serialization import decode_yaml
from navarch.api.wellknown import LAST_APPLIED
from navarch.client.transport import error_of
from navarch.world import chance

QUIET = 20.0  # seconds for which nothing may be amiss before a change counts as done
LOOK = 0.2  # seconds between two looks
RELEVANT = {*KINDS, "pods", "nodes"}
BEGIN, CHANGE, END, REST = "begin", "change", "end", "rest"


@dataclass
class Rehearsed:
    """One seed: ``findings``, or why it failed; ``recording`` is the file's content, of one seed only."""

    seed: int
    findings: Findings | None
    error: str = ""
    recording: bytes = b""


class TwinDeeds(Deeds):
    """Deeds that tell which evictions are refused, and go on when the server refuses a change."""

    def __init__(self, cluster: Driver, run: Rehearsal) -> None:
        super().__init__(cluster, run.state, chance(f"{run.seed} deeds"))
        self.rehearsal = run

    async def apply(self, what: Any) -> None:
        """As ``kubectl apply`` does: a three-way patch, so that what is gone from the file goes from the object, too."""
        for tree in decode_yaml(what) if isinstance(what, str) else what if isinstance(what, list) else [what]:
            group, version = kinds.group_version(tree.get("apiVersion", ""))
            kind = kinds.BY_GVK[group, version, str(tree["kind"])]
            verbs, meta = self.cluster.client.tree(kind), tree["metadata"]
            where = meta.get("namespace", "default") if kind.namespaced else None
            try:
                current = await verbs.get(meta["name"], where)
            except NotFound:
                await verbs.create(tree, where)
                continue
            text = (current["metadata"].get("annotations") or {}).get(LAST_APPLIED)
            patch = create_three_way_strategic_patch(
                json.loads(text) if text else {}, tree, current, schema_of(kind.type)
            )
            if patch:
                await verbs.patch(meta["name"], where, patch, "strategic")

    async def drain(self, node: str) -> None:
        """As ``kubectl drain --ignore-daemonsets``: mirrors of static pods stay, too."""
        name = self.node(node)
        await self.cordon(name)
        for pod in self.state.pods(f"node/{name}"):
            if is_live(pod) and not is_daemon(pod):
                self._start(self._evict(pod["metadata"]["namespace"], pod["metadata"]["name"]))

    async def _evict(self, namespace: str, name: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        body = b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"%s"}}' % name.encode()
        while True:
            # Straight to the server: a client would obey Retry-After without a word, and nobody would know of the refusal.
            answer = await self.cluster.client.transport.request("POST", path, body=body)
            error = error_of(answer.status, answer.body) if answer.status >= 400 else None
            if error is None or error.http_code == 404:
                return
            if error.http_code != 429:
                self.rehearsal.note(f"refused: eviction of pod {namespace}/{name}: {error.message}")
                return
            causes = [c.get("message", "") for c in error.details.get("causes") or ()]
            self.rehearsal.note(f"blocked: pod {namespace}/{name}: {' '.join(causes) or error.message}")
            # Clients of navarch are told to come back in so many seconds and do; upstream says nothing, and kubectl waits 5 s.
            retry_after = float(error.details.get("retryAfterSeconds") or 0) if self.rehearsal.snapshot.is_navarch else 0.0
            await self.cluster.world.sleep(retry_after or RETRY)


class Rehearsal(Run):
    """One seed of a change on the twin of a snapshot, until all is at rest again or ``seconds`` are over."""

    def __init__(
        self, snapshot: Snapshot, learned: Learned, change: Change, seed: int, seconds: float, settings: Settings | None = None
    ) -> None:
        super().__init__(experiment(change, seconds), seed)
        self.snapshot, self.learned, self.change, self.seconds, self.settings = (
            snapshot,
            learned,
            change,
            seconds,
            settings,
        )
        self._last = 0.0  # when something relevant changed last
        self._news = 0

    def run(self) -> Outcome:
        play(self, Twin(self.snapshot, self.learned, self.seed, self.settings))
        return self.outcome()

    def note(self, text: str) -> None:
        self.recorder.step(self.now, -1, text)

    def changed(self, time: float, type: str, key: str, revision: int, value: bytes) -> None:
        super().changed(time, type, key, revision, value)
        if key.split("/")[2] in RELEVANT:
            self._last, self._news = time, self._news + 1

    async def scenario(self, driver: Driver) -> None:
        self.driver = driver
        self.mark(BEGIN)
        before = restless(self.state)
        generations = self._generations()
        self.mark(CHANGE)
        deeds = TwinDeeds(driver, self)
        for number, step in enumerate(self.experiment.steps):
            try:
                await self.step(number, step, deeds)
            except StatusError as error:
                self.note(f"refused: {error.message}")
        rest, begun, looked_at = None, self.now, -1
        while self.now - begun < self.seconds:
            if self._news != looked_at:
                looked_at = self._news
                changed = {k for k, g in self._generations().items() if generations.get(k) != g}
                amiss = restless(self.state, self.change.drained, self.change.lost)
                amiss = {k: why for k, why in amiss.items() if k not in before or k in changed}
                rest = None if amiss else (rest if rest is not None else max(self._last, begun))
            if rest is not None and self.now - rest >= QUIET:
                break
            await driver.sleep(LOOK)
        if rest is not None:
            self.recorder.mark(rest, REST)
        self.mark(END)
        self.finish()

    def _generations(self) -> dict[str, Any]:
        return {
            f"{kind} {tree['metadata']['namespace']}/{tree['metadata']['name']}": tree["metadata"].get("generation")
            for resource, kind in KINDS.items()
            for tree in self.state.all(resource)
        }


_shared: tuple[Any, ...] = ()  # what the processes of a rehearsal have from their parent


def _one(seed: int, keep: bool) -> Rehearsed:
    snapshot, learned, change, seconds, settings = _shared
    logging.disable(logging.WARNING)
    try:
        run = Rehearsal(snapshot, learned, change, seed, seconds, settings)
        outcome = run.run()
        result = findings(outcome.recorder.recording(), change.drained, change.lost)
        return Rehearsed(seed, result, recording=outcome.recorder.content if keep else b"")
    except Exception as error:  # the other seeds go on
        cause: BaseException = error
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        return Rehearsed(
            seed, None, f"{type(cause).__name__}: {cause}\n{''.join(traceback.format_exception(cause)[-3:])}"
        )


def rehearse(
    snapshot: Snapshot, learned: Learned, change: Change, *, seeds: Sequence[int], seconds: float, jobs: int = 1,
    settings: Settings | None = None, progress: Callable[[Rehearsed], None] = lambda one: None,
) -> list[Rehearsed]:  # fmt: skip
    """Plays a change with every seed, in the order of the seeds; the first keeps its recording. Raises ChangeError."""
    global _shared
    experiment(change, seconds)
    _shared = snapshot, learned, change, seconds, settings
    try:
        if jobs <= 1 or len(seeds) <= 1:
            out = []
            for seed in seeds:
                out.append(_one(seed, seed == seeds[0]))
                progress(out[-1])
            return out
        # Forked, not spawned: the snapshot need not be sent, and the imports are there.
        context = multiprocessing.get_context("fork")
        with processes(min(jobs, len(seeds)), context) as (pool, look):
            futures = [pool.submit(_one, seed, seed == seeds[0]) for seed in seeds]
            waiting = set(futures)
            while waiting:
                look()
                over, waiting = wait(waiting, timeout=PULSE, return_when=FIRST_COMPLETED)
                for future in over:
                    progress(future.result())
            return [future.result() for future in futures]
    finally:
        _shared = ()
