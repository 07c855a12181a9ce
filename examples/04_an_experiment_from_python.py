"""An experiment from Python, as in a notebook: an experiment of the gallery with one field changed, and its results as a table.

    python examples/04_an_experiment_from_python.py
"""

import tempfile
from pathlib import Path

from lab import Experiment, Recording, measure, sweep
from lab.experiments.python import frame

GALLERY = Path(__file__).parents[1] / "deploy/experiments"


def main() -> None:
    experiment = Experiment.load(GALLERY / "five-schedulers-on-one-trace.yaml", seeds=2)
    with tempfile.TemporaryDirectory() as folder:
        table = frame(sweep(experiment, folder, jobs=1))
        print(table.groupby("scheduler", sort=False)[["turned_away", "nodes"]].mean().round(1))
        recording = Recording.load(Path(folder) / "runs/scheduler-default_seed-1.jsonl.gz")
    print(measure(recording, {"busiest": 'max(requested("cpu") / allocatable("cpu"))'}))


if __name__ == "__main__":
    main()
