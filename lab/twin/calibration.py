"""Files of calibrations: how long real pods take to pull, start, get ready and stop, as distributions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nodeagent.runtime.stages import value

FORMAT = 1
STAGES = ("pull", "start", "ready", "stop")


def load(path: Path) -> dict[str, str]:
    """The distributions by stage, as text (see nodeagent/runtime/spread.py). Raises OSError, ValueError."""
    try:
        tree = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(tree, dict) or tree.get("calibration") != FORMAT:
        raise ValueError(f"{path} is no calibration of format {FORMAT}; make one with: navarch calibrate --lab L OUT")
    stages = tree.get("stages")
    if not isinstance(stages, dict) or not all(k in STAGES and isinstance(v, str) for k, v in stages.items()):
        raise ValueError(f"{path}: stages: texts by {', '.join(STAGES)} were expected")
    for stage, text in stages.items():
        try:
            value(stage, text)
        except ValueError as error:
            raise ValueError(f"{path}: stages.{stage}: {error}") from None
    return dict(stages)


def text(samples: Mapping[str, Sequence[float]], about: Mapping[str, Any]) -> str:
    """The content of a file, of samples in seconds by stage; ``about``: where and when they were taken."""
    stages = {stage: choice(values) for stage, values in samples.items() if values}
    return json.dumps(
        {"calibration": FORMAT, **about, "stages": stages, "samples": {k: list(v) for k, v in samples.items()}},
        indent=1,
    )


def choice(values: Sequence[float]) -> str:
    """Samples as a distribution that draws one of them."""
    return f"choice({', '.join(f'{max(0.0, v):.3f}s' for v in sorted(values))})"
