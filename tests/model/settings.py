"""How many cases are tried: a sample in CI, as many as ``NAVARCH_MODEL_CASES`` says by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings


def sampled(cases: int) -> Callable[[Any], Any]:
    """Tries ``cases`` cases, the same ones in each run, which guard what has been mended once; ``NAVARCH_MODEL_CASES=500``
    tries other and more ones, and finds what is new."""
    wanted = int(os.environ.get("NAVARCH_MODEL_CASES", "0"))
    return settings(
        max_examples=wanted or cases,
        derandomize=not wanted,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )
