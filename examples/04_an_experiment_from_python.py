"""An experiment from Python, as in a notebook: an experiment of the gallery with one field changed, and its results as a table.

    python examples/04_an_experiment_from_python.py
"""

import tempfile
from pathlib import Path

from lab import Experiment, measure, sweep

GALLERY = Path(__file__).parents[1] / "deploy/experiments"


def main() -> None:
    experiment = Experiment.load(GALLERY / "five-schedulers-on-one-trace.yaml", seeds=2)
    with tempfile.TemporaryDirectory() as folder:
        runs = sweep(experiment, folder)
        print(runs.frame().groupby("scheduler", sort=False)[["turned_away", "nodes"]].mean().round(1))
        recording = runs.recording(seed=1, scheduler="default")
    print(measure(recording, {"busiest": 'max(requested("cpu") / allocatable("cpu"))'}))


if __name__ == "__main__":
    main()
