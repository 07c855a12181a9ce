"""Files of calibrations: how long real pods take to pull, start, get ready and stop, as distributions: of all pods, and of
those of one image. Programs take different times; and in a rollout the first version started with all its pods at once, where
they shared the machine's cores, and the next a few at a time, in half the time or less."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nodeagent.runtime.stages import value

FORMAT = 1
STAGES = ("pull", "start", "ready", "stop")
Samples = Mapping[str, Sequence[float]]
"""Seconds by stage."""


class Calibration(NamedTuple):
    """Distributions by stage, as text (see nodeagent/runtime/spread.py); ``images``: the same by image."""

    stages: dict[str, str]
    images: dict[str, dict[str, str]]


def load(path: Path) -> Calibration:
    """Raises OSError, ValueError."""
    try:
        tree = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(tree, dict) or tree.get("calibration") != FORMAT:
        raise ValueError(f"{path} is no calibration of format {FORMAT}; make one with: navarch calibrate --lab L OUT")
    images = tree.get("images", {})
    if not isinstance(images, dict):
        raise ValueError(f"{path}: images: stages by image were expected")
    by_image = {image: _stages(path, f"images.{image}", stages) for image, stages in images.items()}
    return Calibration(_stages(path, "stages", tree.get("stages")), by_image)


def _stages(path: Path, where: str, stages: Any) -> dict[str, str]:
    if not isinstance(stages, dict) or not all(k in STAGES and isinstance(v, str) for k, v in stages.items()):
        raise ValueError(f"{path}: {where}: texts by {', '.join(STAGES)} were expected")
    for stage, text in stages.items():
        try:
            value(stage, text)
        except ValueError as error:
            raise ValueError(f"{path}: {where}.{stage}: {error}") from None
    return dict(stages)


def text(samples: Samples, about: Mapping[str, Any], images: Mapping[str, Samples] = {}) -> str:
    """The content of a file, of samples in seconds by stage, and of the pods of each image; ``about``: where and when they were
    taken."""
    tree = {"calibration": FORMAT, **about, "stages": _choices(samples)}
    if images:
        tree["images"] = {image: _choices(of_image) for image, of_image in images.items()}
    return json.dumps(tree | {"samples": {k: list(v) for k, v in samples.items()}}, indent=1)


def _choices(samples: Samples) -> dict[str, str]:
    return {stage: choice(values) for stage, values in samples.items() if values}


def choice(values: Sequence[float]) -> str:
    """Samples as a distribution that draws one of them."""
    return f"choice({', '.join(f'{max(0.0, v):.3f}s' for v in sorted(values))})"
