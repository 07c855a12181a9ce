"""How a simulated container behaves, as its pod declares it in annotations.

    hollow.navarch.dev/start: 2s                        every container of the pod takes 2 s to start
    hollow.navarch.dev/web.run: 30s                     container "web" runs for 30 s, then exits
    hollow.navarch.dev/web.exit-code: "3"
    hollow.navarch.dev/ready: lognormal(3s, 0.5)        a time may be drawn anew for each container that is started

Keys: ``pull`` (when the node does not have the image), ``sandbox`` (the pod's, before its containers), ``start``, ``startup``
(from running until startup and liveness probes succeed), ``ready`` (from running until readiness probes succeed), ``hang``
(from running until liveness and readiness probes fail for good; absent: never), ``answer`` (how long a probe's answer takes),
``flaky`` (the share of probes that fail by chance, 0 to 1), ``run`` (how long it runs; absent: for ever), ``exit-code``,
``stop`` (from the stop signal to the end), ``stop-code``, and ``fail``: the stage that never succeeds, one of pull, create,
start.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from nodeagent.runtime.spread import Spread, spread

PREFIX = "hollow.navarch.dev/"
FAILURES = ("pull", "create", "start")
Time = float | Spread


@dataclass(frozen=True)
class Stages:
    """Times in seconds, or how they are spread."""

    pull: Time = 0.0
    sandbox: Time = 0.02
    start: Time = 0.05
    startup: Time = 0.0
    ready: Time = 0.0
    hang: Time | None = None
    answer: Time = 0.0
    flaky: float = 0.0
    run: Time | None = None
    exit_code: int = 0
    stop: Time = 0.01
    stop_code: int = 0
    fail: str = ""

    def drawn(self, chance: random.Random) -> Drawn:
        """The times of one container. All are drawn, in a fixed order, so that one that is declared moves no other."""
        bare: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        drawn: dict[str, Any] = {k: v.draw(chance) if isinstance(v, Spread) else v for k, v in bare.items()}
        return Drawn(**drawn)


@dataclass(frozen=True)
class Drawn:
    """The Stages of one container: plain seconds."""

    pull: float = 0.0
    sandbox: float = 0.02
    start: float = 0.05
    startup: float = 0.0
    ready: float = 0.0
    hang: float | None = None
    answer: float = 0.0
    flaky: float = 0.0
    run: float | None = None
    exit_code: int = 0
    stop: float = 0.01
    stop_code: int = 0
    fail: str = ""


NORMAL = Stages()


def stages(annotations: Mapping[str, str] | None, container: str = "", default: Stages = NORMAL) -> Stages:
    """The annotations' stages for one container ("" for the pod itself). Malformed values are ValueErrors."""
    values: dict[str, Time | int | str] = {}
    for field in fields(Stages):
        key = field.name.replace("_", "-")
        text = None
        if annotations:
            text = annotations.get(f"{PREFIX}{container}.{key}", annotations.get(f"{PREFIX}{key}"))
        if text is None:
            continue
        try:
            values[field.name] = value(field.name, text)
        except ValueError as error:
            raise ValueError(f"{PREFIX}{key}: {error}") from error
    return replace(default, **values) if values else default  # type: ignore[arg-type]


def value(field: str, text: str) -> Time | int | str:
    """The value of one field of Stages. Raises ValueError."""
    if field == "fail":
        if text not in FAILURES:
            raise ValueError(f"{text!r} is none of {', '.join(FAILURES)}")
        return text
    if field.endswith("_code"):
        return int(text)
    if field == "flaky":
        share = float(text)
        if not 0 <= share <= 1:
            raise ValueError(f"{text!r} is not between 0 and 1")
        return share
    return spread(text)
