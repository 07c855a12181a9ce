"""A client that never stops writing, and keeps account of what was acknowledged."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.e2e.harness import Lab, wait_for


class Writer:
    """Creates ConfigMaps w-0, w-1, ... and counts in one named counter, from a thread, while the block lasts.

    A write whose answer was lost may have happened or not; one that was acknowledged must be there for ever.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.acknowledged: list[str] = []
        self.counted = 0
        self.doubtful = 0
        self.longest = 0.0  # seconds between two acknowledged writes
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Writer:
        self._thread.start()
        self.progress()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def progress(self) -> None:
        """Waits until something more has been written: the path to the store is whole again."""
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before + 5, "writes are acknowledged", 30)

    def _work(self) -> None:
        number, last = 0, time.monotonic()
        while not self._stop.is_set():
            name = f"w-{number}"
            number += 1
            if self._write("POST", "", name, {"n": str(number)}) == 201:
                self.acknowledged.append(name)
                # The counter is replaced without a precondition: its last acknowledged value must not go back.
                name = "w-counter"
                status = self._write("PUT", f"/{name}", name, {"n": str(number)})
                if status == 404:
                    status = self._write("POST", "", name, {"n": str(number)})
                if status in (200, 201):
                    self.counted = number
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
            self._stop.wait(0.01)

    def _write(self, method: str, path: str, name: str, data: dict[str, str]) -> int:
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {"writer": "yes"}},
            "data": data,
        }
        try:
            status, answer = self.lab.call(method, f"/api/v1/namespaces/default/configmaps{path}", body)
        except OSError:
            self.doubtful += 1
            return 0
        if status >= 500 or status == 429:
            self.doubtful += 1
        elif status not in (200, 201, 404):
            self.wrong.append(f"{method} {name}: {status} {answer}")
        return status

    def check(self) -> None:
        """AssertionError unless everything that was acknowledged is there; then removes it."""
        assert not self.wrong, self.wrong
        listed = self._list()
        lost = [name for name in self.acknowledged if name not in listed]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged writes are lost: {lost[:5]}"
        assert int(listed["w-counter"]) >= self.counted, "an acknowledged update is lost"
        path = "/api/v1/namespaces/default/configmaps?labelSelector=writer%3Dyes"
        assert self.lab.call("DELETE", path, timeout=30)[0] == 200

    def _list(self) -> dict[str, str]:
        status, body = self.lab.call("GET", "/api/v1/namespaces/default/configmaps?labelSelector=writer%3Dyes")
        assert status == 200, body
        return {item["metadata"]["name"]: item["data"]["n"] for item in body["items"]}
