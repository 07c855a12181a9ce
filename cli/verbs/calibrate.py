"""``navarch calibrate``: measures how long real pods take to start, get ready and stop, for twins and experiments."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli import outfiles
from cli.errors import CommandError, warn
from cli.options import App, Argument, Option
from cli.verb import Where, verb

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.session import Session
    from lab.twin.calibration import Samples

app = App()


@verb(app)
def calibrate(
    where: Where,
    out: Annotated[Path, Argument("OUT", help="The file, such as calibration.json.")],
    image: Annotated[str, Option("--image", metavar="IMAGE", help="One that the nodes have, or can pull.")] = "",
    command: Annotated[str, Option("--command", metavar="TEXT", help="What it runs; it must run on.")] = "",
    ready: Annotated[str, Option("--ready", metavar="TEXT", help="A probe's command, to measure readiness, too.")] = "",
    pods: Annotated[
        int, Option("--pods", metavar="N", help="How many are started and stopped, one by one.", min=1)
    ] = 10,
    from_: Annotated[
        list[Path] | None, Option("--from", metavar="RECORDING", help="Take them from recordings instead; may be repeated.")
    ] = None,
) -> None:
    """Measure pods' start, readiness and stop on real nodes: navarch calibrate --image=web:v1 times.json."""
    outfiles.check(out, 1)
    if from_:
        return _observe(out, from_)
    if not image:
        raise SystemExit("error: say --image IMAGE, or --from RECORDING")
    where.run(lambda session: _calibrate(session, out, image, shlex.split(command), shlex.split(ready), pods))


async def _calibrate(session: Session, out: Path, image: str, command: list[str], ready: list[str], pods: int) -> int:
    from lab.twin import measuring
    from navarch.api import kinds
    from navarch.api.times import format_time
    from navarch.api.types import core_v1

    shown = sys.stderr.isatty()

    def say(text: str) -> None:
        if shown:
            print(f"\r\033[Kpod {text}", end="", file=sys.stderr, flush=True)

    namespace = session.namespace
    try:
        samples = await measuring.measure(session.client, namespace, image, command, pods, ready, say)
    except* measuring.TooSlow as failed:
        raise CommandError(str(failed.exceptions[0])) from None
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr)
    events = await session.client.tree(kinds.kind_of(core_v1.Event)).list()
    if pulled := measuring.pulls(events.items):
        samples["pull"] = pulled
    else:
        warn("no Event tells of a pull, so the file has no times to pull")
    about = {"source": session.config.server, "image": image, "time": format_time(session.world.now())}
    try:
        _write(out, samples, about)
    except OSError as error:
        raise CommandError(outfiles.words(error, out)) from None
    return 0


def _observe(out: Path, files: list[Path]) -> None:
    """Writes the times of the pods in recordings."""
    from lab.experiments.recording import Recording
    from lab.twin import observing

    try:
        observed = observing.observe(Recording.load(file) for file in files)
        if not observed.stages:
            raise ValueError(f"no pod of {', '.join(map(str, files))} started while it was recorded")
        _write(out, observed.stages, {"source": ", ".join(map(str, files))}, observed.images)
    except (OSError, ValueError) as error:
        print(f"error: {outfiles.words(error)}", file=sys.stderr)
        raise SystemExit(1) from None


def _write(
    out: Path, samples: Samples, about: dict[str, str], images: Mapping[str, Samples] = {}
) -> None:
    """The file, and on the terminal what is in it."""
    from lab.twin import calibration

    out.write_text(calibration.text(samples, about, images))
    for image, of_image in {"": samples, **images}.items():
        if image:
            print(f"{image}:")
        for stage, values in of_image.items():
            middle = sorted(values)[len(values) // 2]
            print(f"{stage:6} {min(values):7.3f} s to {max(values):7.3f} s, median {middle:7.3f} s, of {len(values)}")
    print(
        f"{out}: use it as behaviour: {{calibrated: {out}}} in an experiment, or with navarch rehearse --calibration {out}"
    )
