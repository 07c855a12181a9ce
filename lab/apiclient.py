"""A lab's API server as its administrator asks it, and waiting for what it says."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from typing import Any

import orjson

from lab.health import Health
from lab.lab import Lab
from lab.paths import LabError


class Api:
    """The API server of ``lab``."""

    def __init__(self, lab: Lab, health: Health) -> None:
        self.lab, self.health = lab, health

    def call(self, method: str, path: str, body: Any = None, timeout: float = 5.0) -> tuple[int, bytes]:
        """One request as the lab's administrator: status and body. Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.lab.paths.pki / "ca.crt"))
        context.load_cert_chain(self.lab.paths.pki / "admin.crt", self.lab.paths.pki / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.lab.required_record.port, timeout=timeout, context=context)
        try:
            data = None if body is None else orjson.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def wait_ready(self, timeout: float) -> None:
        """Waits until /readyz says so."""
        self.lab.progress("waiting for the API server")
        self.wait_for(
            lambda: self.call("GET", "/readyz")[0] == 200, timeout, "the API server did not become ready", "apiserver"
        )

    def wait_for(self, condition: Callable[[], bool], timeout: float, failure: str, log: str) -> None:
        """Raises LabError with the end of component ``log``'s log, or as soon as a component gives up. A request that fails
        is no answer."""
        end, delay, checked = time.monotonic() + timeout, 0.01, time.monotonic()
        while True:
            if time.monotonic() > checked + 0.5:
                self.health.check()
                checked = time.monotonic()
            try:
                if condition():
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                raise LabError(f"{failure} within {timeout:.0f} s; see {self.lab.paths.logs / log}.log\n{self._tail(log)}")
            self.lab.progress.tick()
            time.sleep(delay)
            delay = min(0.1, delay * 1.3)

    def _tail(self, log: str) -> str:
        try:
            lines = (self.lab.paths.logs / f"{log}.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join("    " + line for line in lines[-5:])
