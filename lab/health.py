"""How a lab's components are, and waiting until all are well: what makes `navarch up` fail, and say why."""

from __future__ import annotations

import time
from typing import Any

from lab import supervisor
from lab.forking import CONFIGURATION_ERROR
from lab.lab import Lab
from lab.namespaces import ProcessId
from lab.pages import page
from lab.paths import LabError

MAX_ENDS = 3  # how often a component may end while the lab comes up
PATIENCE = 10.0  # seconds that the supervisor has to answer; it is busy for a while when it starts components
WITH_PAGES = ("scheduler", "controllers")  # those whose /readyz is asked at RUN/NAME.sock
STOPPED = f"exit code {CONFIGURATION_ERROR}"


class ComponentRefused(LabError):
    """A component does not start with the settings that it has."""


class Health:
    """The components of a lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.paths = lab.paths
        self._restarts: dict[str, int] = {}

    def listed(self) -> list[dict[str, Any]]:
        """Each component as :meth:`lab.managed.Managed.state` tells it, the supervisor first."""
        own = supervisor.identity(self.paths)
        if own is None:
            return [_ended_supervisor(), *self._orphans()] if self._orphans() else []
        first = {"name": "supervisor", "pid": own.pid, "state": "running", "since": 0.0, "reason": "", "restarts": 0}
        try:
            components = supervisor.request(self.paths, "list", timeout=PATIENCE)
        except LabError as error:
            first |= {"state": "silent", "reason": f"{error.__cause__ or error}; navarch up starts it again"}
            components = self._orphans()
        return [first, *components]

    def _orphans(self) -> list[dict[str, Any]]:
        """The running processes of those that the supervisor has noted, if it cannot be asked."""
        return [
            {"name": entry["spec"]["name"], "pid": process.pid, "state": "running", "since": 0.0, "reason": "", "restarts": 0}
            for entry, process in self.recorded()
            if process.alive()
        ]  # fmt: skip

    def recorded(self) -> list[tuple[dict[str, Any], ProcessId]]:
        """The supervisor's notes: entry and process, which may have ended."""
        import json

        try:
            entries = json.loads(self.paths.processes.read_text())
        except (FileNotFoundError, ValueError):
            return []
        return [(e, p) for e in entries if (p := ProcessId.load(e["process"])) is not None]

    def revive(self) -> None:
        """Ends a supervisor that does not answer: the next one adopts what runs."""
        own = supervisor.identity(self.paths)
        if own is None:
            return
        try:
            supervisor.request(self.paths, "list", timeout=PATIENCE)
        except LabError:
            self.lab.progress("the supervisor does not answer; it is started again")
            own.kill()
            own.wait_gone(5)

    def note(self) -> None:
        """From here on it counts how often components end."""
        self._restarts = {c["name"]: c["restarts"] for c in self.listed()}

    def check(self) -> None:
        """Raises LabError for a component that ends again and again, or that refuses its settings."""
        for each in self.listed():
            ends = each["restarts"] - self._restarts.get(each["name"], 0)
            hopeless = each["state"] == "ended" and STOPPED in each.get("lastExit", "")
            if hopeless and ends:
                raise ComponentRefused(self.reason_of(each))
            if each["state"] != "running" and ends >= MAX_ENDS:
                raise LabError(self.reason_of(each))

    def reason_of(self, component: dict[str, Any]) -> str:
        """Why a component is not well, with the end of its log."""
        name = component["name"]
        text = f"{name} is not well: {component['reason'] or component['state']}"
        lines = "".join(f"\n    {line}" for line in component.get("lastLines", ())[-5:])
        return f"{text}; see {self.paths.logs / name.replace('/', '-')}.log{lines}"

    def wait(self, timeout: float) -> None:
        """Waits until all components answer, and scheduler and controllers are ready. Raises LabError that says who is not."""
        self.lab.progress("waiting for the components")
        end, delay = time.monotonic() + timeout, 0.02
        while True:
            self.check()
            ill = [c for c in self.listed() if c["state"] not in ("running", "off")] or self._unready()
            if not ill:
                return
            self.lab.progress.detail(", ".join(c["name"] for c in ill))
            if time.monotonic() > end:
                raise LabError("\n".join(self.reason_of(c) for c in ill))
            self.lab.progress.tick()
            time.sleep(delay)
            delay = min(0.2, delay * 1.5)

    def _unready(self) -> list[dict[str, Any]]:
        out = []
        for name in WITH_PAGES:
            try:
                status, body = page(self.paths.run / f"{name}.sock", "/readyz")
            except OSError as error:
                out.append({"name": name, "state": "starting", "reason": f"does not answer ({error})"})
                continue
            if status != 200:
                out.append({"name": name, "state": "starting", "reason": body.decode(errors="replace")})
        return out


def _ended_supervisor() -> dict[str, Any]:
    reason = "ended; the components go on, but nobody starts them again: navarch up"
    return {"name": "supervisor", "pid": 0, "state": "ended", "since": 0.0, "reason": reason, "restarts": 0}
