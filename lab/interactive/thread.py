"""A cluster in a thread of its own: how calls get there, and answers back."""

from __future__ import annotations

import atexit
import contextlib
import logging
import queue
import threading
from concurrent.futures import Future
from typing import Any

from lab.experiments.drivers.hand import patient
from lab.experiments.drivers.labs import LabStage
from lab.experiments.drivers.virtual import play, simulation_of
from lab.interactive.session import Session, Work

for _room in ("apiserver", "controllers", "lab", "navarch", "nodeagent", "proxy", "scheduler"):
    logging.getLogger(_room).addHandler(logging.NullHandler())  # else Python prints warnings into the notebook


class ClusterThread:
    """Has a session played on a cluster of its mode. Raises what the cluster raises while it starts.

    A lab that is not closed goes with the interpreter; and with the process, however that ends (drivers/hand.py)."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._error: BaseException | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        try:
            session.ready.result()
        except BaseException:
            self.close()
            raise

    def call(self, work: Work) -> Any:
        """Does work in the cluster and gives what it gives. Raises what it raises, RuntimeError if the cluster has ended."""
        future: Future[Any] = Future()
        self.session.submit((work, future))
        if self._is_over:
            self._refuse()
        try:
            return future.result()
        except BaseException:
            if not future.done():  # Ctrl-C: what nobody waits for any more need not go on
                self.session.interrupt()
            raise

    def close(self) -> None:
        """Ends the cluster, and waits until it is gone."""
        atexit.unregister(self.close)
        with patient():
            self.session.submit(None)
            self.session.interrupt()
            self._thread.join()

    def _run(self) -> None:
        try:
            _play(self.session)
        except BaseException as error:  # a deadlock, say: whoever waits is told, and who comes later
            while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            self._error = error
            if not self.session.current.done():
                self.session.current.set_exception(error)
        self._is_over = True
        self._refuse()

    def _refuse(self) -> None:
        """Answers calls that came too late."""
        with contextlib.suppress(queue.Empty):
            while True:
                if (job := self.session.jobs.get_nowait()) is not None:
                    why = f": {self._error}" if self._error else ""
                    job[1].set_exception(RuntimeError(f"the cluster has ended{why}"))


def _play(session: Session) -> None:
    mode = session.experiment.cluster.mode
    if mode == "simulated":
        play(session, simulation_of(session.experiment, session.seed))
    else:
        LabStage(mode).play(session)
