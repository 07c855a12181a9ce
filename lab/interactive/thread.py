"""A cluster in a thread of its own: how calls get there, and answers back."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future
from typing import Any

from lab.interactive.session import Session, Work

for _room in ("apiserver", "controllers", "lab", "navarch", "nodeagent", "proxy", "scheduler"):
    logging.getLogger(_room).addHandler(logging.NullHandler())  # else Python prints warnings into the notebook


class ClusterThread:
    """Has a session played on a cluster of its mode. Raises what the cluster raises while it starts."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cluster", daemon=True)
        self._thread.start()
        try:
            session.ready.result()
        except BaseException:
            self.close()
            raise

    def call(self, work: Work) -> Any:
        """Does work in the cluster and gives what it gives. Raises what it raises, RuntimeError if the cluster has ended."""
        future: Future[Any] = Future()
        if not self._thread.is_alive():
            raise RuntimeError(f"the cluster has ended{f': {self._error}' if self._error else ''}")
        self.session.jobs.put((work, future))
        return future.result()

    def close(self) -> None:
        """Ends the cluster, and waits until it is gone."""
        self.session.jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            _play(self.session)
        except BaseException as error:  # a deadlock, say: whoever waits is told, and who comes later
            self._error = error
            if not self.session.current.done():
                self.session.current.set_exception(error)


def _play(session: Session) -> None:
    from lab.experiments.drivers.virtual import play, simulation_of

    if (mode := session.experiment.cluster.mode) != "simulated":
        raise ValueError(f"cluster.mode: {mode!r}: only a simulated cluster can be used step by step")
    play(session, simulation_of(session.experiment, session.seed))
