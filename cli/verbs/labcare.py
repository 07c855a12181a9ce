"""Looking after labs: ``navarch labs``, ``export``, and what a component writes and measures (``navarch lab``)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

from cli.common import LabOption, Progress, fail, reported
from cli.options import App, Argument, Option

app = App()
care = App(help="What a component of a lab writes and measures.")
app.add_group(care, "lab")

Component = Annotated[str, Argument("COMPONENT")]


@app.command()
def labs(
    output: Annotated[str, Option("-o", "--output", metavar="json", help="json, or empty for people.")] = "",
) -> None:
    """List the labs of this home."""
    from cli.output.columns import table
    from lab.cluster import Cluster
    from lab.paths import home, list_labs

    if output not in ("", "json"):
        fail(f'-o {output}: only "json" is known here')
    rows = []
    for name in list_labs():
        cluster = Cluster(name)
        ill = sum(c["state"] not in ("running", "starting") for c in cluster.health.listed())
        state = "down" if not cluster.running() else f"{ill} of its components not well" if ill else "running"
        record = cluster.required_record
        rows.append([name, state, len(record.nodes), len(cluster.hollow.roster), record.store, cluster.server])
    header = ["NAME", "STATE", "NODES", "HOLLOW", "STORE", "SERVER"]
    if output == "json":
        print(json.dumps([dict(zip(map(str.lower, header), row, strict=True)) for row in rows], indent=2))
    elif rows:
        table(header, rows)
    else:
        print(f"no labs in {home()}; start one with: navarch up", file=sys.stderr)


@care.command()
def logs(
    component: Component = "",
    lab: LabOption = "default",
    follow: Annotated[bool, Option("-f", "--follow", help="Go on and show what is written.")] = False,
    tail: Annotated[int, Option("--tail", help="So many lines from the end; 0: none.", min=0)] = 200,
) -> None:
    """Show what a component of the lab wrote: navarch lab logs scheduler; lab logs agent/node-1 -f."""
    with reported():
        file = _log_file(lab, component)
        if follow:
            os.execvp("tail", ["tail", "-n", str(tail), "-F", str(file)])
        from lab.liveness import tail_of

        sys.stdout.writelines(tail_of(file, tail))


@care.command()
def metrics(component: Component, lab: LabOption = "default") -> None:
    """Print a component's metrics, for Prometheus or for you: navarch lab metrics scheduler."""
    from lab.cluster import Cluster
    from lab.scraping import metrics_of

    with reported():
        sys.stdout.buffer.write(metrics_of(Cluster(lab), component))


@app.command()
def export(
    directory: Annotated[str, Argument("DIR")],
    lab: LabOption = "default",
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Write all that tells what happened in a lab into a folder: status, logs, events, objects; no secrets."""
    from lab.cluster import Cluster
    from lab.exporting import export_lab

    progress = Progress(quiet)
    with reported(progress):
        cluster = Cluster(lab, progress)
        missing = export_lab(cluster, Path(directory))
        progress.finish()
        for text in missing:
            print(f"Warning: {text}", file=sys.stderr)
        if not quiet:
            print(f'lab "{lab}" exported to {directory}')


def _log_file(lab: str, component: str) -> Path:
    from lab.cluster import Cluster
    from lab.paths import LabError

    folder = Cluster(lab).paths.logs
    components = sorted(path.stem for path in folder.glob("*.log")) if folder.exists() else []
    name = component.replace("/", "-")
    if name not in components:
        said = f"there is no log of {component}" if component else "say whose log"
        raise LabError(f"{said}; there are: {', '.join(components) or 'none'}")
    return folder / f"{name}.log"
