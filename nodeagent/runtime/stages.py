"""How a simulated container behaves, as its pod declares it in annotations.

    hollow.navarch.dev/start: 2s        every container of the pod takes 2 s to start
    hollow.navarch.dev/web.run: 30s     container "web" runs for 30 s, then exits
    hollow.navarch.dev/web.exit-code: "3"

Keys: ``pull`` (when the node does not have the image), ``start``, ``ready`` (from running to ready, on top of a
readiness probe's own delay), ``run`` (how long it runs; absent: for ever), ``exit-code``, ``stop`` (from the stop signal to
the end), ``stop-code``, and ``fail``: the stage that never succeeds, one of pull, create, start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

PREFIX = "hollow.navarch.dev/"
FAILURES = ("pull", "create", "start")


@dataclass(frozen=True)
class Stages:
    """Times in seconds."""

    pull: float = 0.0
    sandbox: float = 0.02
    start: float = 0.05
    ready: float = 0.0
    run: float | None = None
    exit_code: int = 0
    stop: float = 0.01
    stop_code: int = 0
    fail: str = ""


NORMAL = Stages()
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


def seconds(text: str) -> float:
    """``2s``, ``150ms``, ``1.5m``, ``1h`` or a plain number. Raises ValueError."""
    number = text.rstrip("hms")
    return float(number) * _UNITS[text[len(number) :]] if text[len(number) :] in _UNITS else float(text)


def stages(annotations: Mapping[str, str] | None, container: str = "", default: Stages = NORMAL) -> Stages:
    """What the annotations declare for one container ("" for the pod itself). Malformed values are ValueErrors."""
    found: dict[str, float | int | str] = {}
    for field in fields(Stages):
        key = field.name.replace("_", "-")
        text = None
        if annotations:
            text = annotations.get(f"{PREFIX}{container}.{key}", annotations.get(f"{PREFIX}{key}"))
        if text is None:
            continue
        if field.name == "fail":
            if text not in FAILURES:
                raise ValueError(f"{PREFIX}{key}: {text!r} is none of {', '.join(FAILURES)}")
            found[field.name] = text
        elif field.name.endswith("_code"):
            found[field.name] = int(text)
        else:
            found[field.name] = seconds(text)
    return replace(default, **found) if found else default  # type: ignore[arg-type]
