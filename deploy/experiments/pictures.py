"""Draws the plots that docs/gallery.md shows: runs what each shows of an experiment, and draws one figure of it.

    python deploy/experiments/pictures.py docs/images/gallery                       # all
    python deploy/experiments/pictures.py docs/images/gallery bad-image             # one
    python deploy/experiments/pictures.py docs/images/gallery --runs results/runs   # runs are kept there, and made once

Equal recordings give equal pictures. Needs the extra ``lab``; takes three minutes on two cores. That of openb is left out
unless its trace is there (deploy/experiments/openb/README.md).
"""

import argparse
import io
import tempfile
from contextlib import nullcontext
from pathlib import Path

from PIL import Image
from PIL.Image import Quantize

from lab.experiments import file, sweep
from lab.experiments.recording import Recording
from lab.reports.choosing import OF_A_RUN, beside_each_other
from lab.reports.drawing.canvas import draw
from lab.reports.sweeps import declared

HERE = Path(__file__).parent
TRACE = HERE / "openb/openb_pod_list_default.csv"
OF_RUNS = {  # the kind of plot, and the levels of the run that it shows
    "surge-against-unavailability": ("rollout", {"strategy": "both"}),
    "bad-image": ("replicas", {"deadline": "90"}),
    "readiness-that-lies": ("requests", {"probe": "lying"}),
    "rollout-while-a-node-dies": ("rollout", {"death": "power"}),
    "statefulset-with-a-broken-pod": ("rollout", {"management": "OrderedReady"}),
    "blue-green": ("gantt-owners", {"way": "blue-green"}),
    "canary-by-hand": ("requests", {"way": "canary"}),
    "budget-against-drain": ("gantt-nodes", {"budget": "most"}),
    "spread-against-binpack": ("utilisation", {"policy": "binpack"}),
    "anti-affinity-against-spread": ("gantt-nodes", {"rule": "spread-by-zone"}),
    "thundering-herd": ("replicas", {"herd": "160"}),
    "preemption-storm": ("gantt-nodes", {"policy": "PreemptLowerPriority"}),
    "autoscaling-on-a-step": ("requests", {"target": "40"}),
}
OF_SWEEPS = {  # the file, the figure, and the seeds
    "five-schedulers-on-one-trace": ("five-schedulers-on-one-trace", "nodes", 3),
    "node-autoscaler-on-a-step": ("node-autoscaler-on-a-step", "pods", 2),
    "openb-nodes": ("openb/openb", "side by side", 1),
}


def figure_of(name, folder):
    if name in OF_RUNS:
        kind, shown = OF_RUNS[name]
        (one,) = sweep.sweep(file.load(HERE / f"{name}.yaml"), folder, only=shown | {"seed": "1"})
        return OF_A_RUN[kind](Recording.load(folder / "runs" / f"{one.name}.jsonl.gz"))[0]
    source, figure, seeds = OF_SWEEPS[name]
    tree = file.load(HERE / f"{source}.yaml")
    experiment = file.parse(file.cells(tree)[0].tree)
    results = sweep.sweep(tree, folder, seeds=range(1, seeds + 1), jobs=2)
    if figure == "side by side":
        return beside_each_other(experiment, {"nodes"}, results, folder)[0]
    return next(f for f in declared(experiment.plots, results) if f.name == figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=[n for n in (*OF_RUNS, *OF_SWEEPS) if "openb" not in n or TRACE.exists()])
    parser.add_argument("--runs", type=Path)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for name in chosen.names:
        source = OF_SWEEPS[name][0] if name in OF_SWEEPS else name
        room = nullcontext(chosen.runs / Path(source).name) if chosen.runs else tempfile.TemporaryDirectory()
        with room as folder:
            figure = figure_of(name, Path(folder))
        content = draw(figure.kind, figure.table(), figure.options, ["png"])["png"]
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image = image.resize((960, round(image.height * 960 / image.width)), Image.Resampling.LANCZOS)
        image.quantize(64, Quantize.MAXCOVERAGE).save(chosen.out / f"{name}.png", optimize=True)
        print(f"{chosen.out / name}.png: {(chosen.out / f'{name}.png').stat().st_size} bytes: {figure.caption}", flush=True)


if __name__ == "__main__":
    main()
