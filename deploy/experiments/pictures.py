"""Draws the plots that docs/gallery.md shows: runs each experiment once, and draws one figure of it.

    python deploy/experiments/pictures.py docs/images/gallery            # all
    python deploy/experiments/pictures.py docs/images/gallery bad-image  # one

Equal recordings give equal pictures. Needs the extra ``lab``; takes two minutes on two cores.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.Image import Quantize

from lab.experiments import file, sweep
from lab.experiments.recording import Recording
from lab.reports.choosing import OF_A_RUN
from lab.reports.drawing.canvas import draw
from lab.reports.sweeps import declared

HERE = Path(__file__).parent
OF_RUNS = {  # the kind of plot, and the levels of the run that it shows
    "surge-against-unavailability": ("rollout", {"strategy": "both"}),
    "bad-image": ("replicas", {}),
    "readiness-that-lies": ("requests", {}),
    "rollout-while-a-node-dies": ("rollout", {"death": "power"}),
    "statefulset-with-a-broken-pod": ("rollout", {}),
    "blue-green": ("gantt-owners", {}),
    "canary-by-hand": ("requests", {}),
    "budget-against-drain": ("gantt-nodes", {}),
    "spread-against-binpack": ("utilisation", {}),
    "anti-affinity-against-spread": ("gantt-nodes", {}),
    "thundering-herd": ("replicas", {"herd": "160"}),
    "preemption-storm": ("gantt-nodes", {"policy": "PreemptLowerPriority"}),
    "autoscaling-on-a-step": ("requests", {"target": "40"}),
}
OF_SWEEPS = ("five-schedulers-on-one-trace",)


def figure_of(name, folder):
    tree = file.load(HERE / f"{name}.yaml")
    if name in OF_RUNS:
        kind, levels = OF_RUNS[name]
        cells = [c for c in file.cells(tree) if all(c.levels.get(k) == v for k, v in levels.items())]
        only = dict(cells[-1].levels) | {"seed": "1"}
        (one,) = sweep.sweep(tree, folder, only=only)
        return OF_A_RUN[kind](Recording.load(folder / "runs" / f"{one.name}.jsonl.gz"))[0]
    results = sweep.sweep(tree, folder, seeds=[1, 2, 3], jobs=2)
    return declared(file.parse(file.cells(tree)[0].tree).plots, results)[0]


def main():
    out, names = Path(sys.argv[1]), sys.argv[2:] or [*OF_RUNS, *OF_SWEEPS]
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            figure = figure_of(name, Path(folder))
        content = draw(figure.kind, figure.table(), figure.options, ["png"])["png"]
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image = image.resize((960, round(image.height * 960 / image.width)), Image.Resampling.LANCZOS)
        image.quantize(64, Quantize.MAXCOVERAGE).save(out / f"{name}.png", optimize=True)
        print(f"{out / name}.png: {(out / f'{name}.png').stat().st_size} bytes: {figure.caption}", flush=True)


if __name__ == "__main__":
    main()
