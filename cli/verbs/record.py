"""``navarch record``: writes every change of a cluster into a recording; values of Secrets are not asked for.
``navarch replay``: feeds the work in a recording to a virtual cluster.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli import outfiles
from cli.errors import CommandError, warn
from cli.options import App, Argument, Option
from cli.verb import Where, verb

if TYPE_CHECKING:
    from cli.session import Session
    from lab.recording.following import Counts

app = App()

Names = Annotated[
    list[str] | None, Option("--only", metavar="RESOURCE", help="Only these resources, such as pods,nodes.")
]
Without = Annotated[
    list[str] | None, Option("--without", metavar="RESOURCE", help="All but these, such as leases,events.")
]


def names(texts: list[str] | None) -> list[str]:
    return [name for text in texts or () for name in text.split(",") if name]


@verb(app)
def record(
    where: Where,
    out: Annotated[Path, Argument("OUT", help="The file, such as day.jsonl.gz.")],
    for_: Annotated[str, Option("--for", metavar="TIME", help="How long, such as 10m; default: until Ctrl-C.")] = "",
    only: Names = None,
    without: Without = None,
) -> None:
    """Write every change of a cluster into a file, until Ctrl-C."""
    outfiles.check(out, 1, renamed=True)
    where.run(lambda session: _record(session, out, _seconds(for_), names(only), names(without)))


def _seconds(text: str) -> float | None:
    from navarch.api.durations import DurationError, parse_seconds

    if not text:
        return None
    try:
        seconds = parse_seconds(text)
    except DurationError as error:
        raise CommandError(f"--for {text}: {error}") from None
    if seconds <= 0:
        raise CommandError(f"--for {text}: a time above 0 is needed")
    return seconds


async def _record(session: Session, out: Path, seconds: float | None, only: list[str], without: list[str]) -> int:
    import logging

    from lab.experiments.recording import Recorder
    from lab.recording.following import Following
    from navarch.api.times import format_micro
    from navarch.client.client import Client

    shown = sys.stderr.isatty()
    logging.getLogger("navarch.client").setLevel(logging.ERROR)  # reconnects are everyday; the line below counts on
    partial = out.with_name(f".{out.name}.partial")
    try:
        file = partial.open("wb")
    except OSError as error:
        raise CommandError(f"{out}: {error.strerror}") from None
    header = {"source": session.config.server, "start": format_micro(session.world.now())}
    recorder = Recorder(header, file)
    client = Client(
        session.client.transport, session.world, "navarch"
    )  # warnings on old kinds are not for who only reads
    following = Following(client, recorder, only=only, without=without, say=lambda c: _show(following.now, c, shown))

    def ended() -> None:
        file.close()
        if not isinstance(sys.exception(), Exception):  # Ctrl-C is none; what failed takes no earlier recording's place
            os.replace(partial, out)

    following.ended = ended
    ends = "" if seconds else "; Ctrl-C ends it"
    following.begun = lambda: print(f"recording {session.config.server} into {out}{ends}", file=sys.stderr, flush=True)
    task = asyncio.ensure_future(following.run(seconds))
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,), timeout=1.0)
    took, counts = following.now, following.counts
    failure = task.exception() if task.done() and not task.cancelled() else None
    if failure is not None:
        partial.unlink(missing_ok=True)
        if isinstance(failure, OSError):
            raise CommandError(f"{outfiles.words(failure, out)}; the recording is not kept") from None
        raise failure
    if shown:
        print("\r\033[K", end="", file=sys.stderr)
    if counts.forbidden:
        warn(f"without what this user may not list: {', '.join(counts.forbidden)}")
    print(
        f"{out}: {counts.changes} changes of {counts.resources} resources in {took:.0f} s, {out.stat().st_size:,} bytes"
    )
    return 0


def _show(now: float, counts: Counts, live: bool) -> None:
    if live:
        text = f"{now:6.0f} s  {counts.resources} resources  {counts.objects:,} objects  {counts.changes:,} changes"
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


@app.command()
def replay(
    file: Annotated[Path, Argument("RECORDING")],
    out: Annotated[Path | None, Option("--out", metavar="FILE", help="Write the new recording there.")] = None,
    from_: Annotated[str, Option("--from", metavar="TIME", help="Begin there, such as 7m, with all as it was.")] = "",
    pods: Annotated[bool, Option("--pods", help="The pods themselves arrive, without workloads.")] = False,
    config: Annotated[
        Path | None, Option("--scheduler-config", metavar="FILE", help="KubeSchedulerConfiguration.")
    ] = None,
    plugins: Annotated[list[str] | None, Option("--plugin", metavar="FILE:CLASS", help="A scheduler plugin.")] = None,
    sets: Annotated[list[str] | None, Option("--set", metavar="NAME=VALUE", help="Such as controllers.x=1.")] = None,
    seed: Annotated[int, Option("--seed", metavar="N", help="Of all chance.")] = 1,
) -> None:
    """Feed a recording's work to a virtual cluster, and say what became different."""
    import logging

    from lab.experiments.recording import Recording
    from lab.experiments.telling import seconds
    from lab.recording.comparing import compare
    from lab.twin.cluster import Settings
    from lab.twin.replay import Replay
    from scheduler.framework.config import SchedulerConfig
    from scheduler.framework.profiles import load_plugin

    logging.disable(logging.WARNING)
    outfiles.check(out, 2)
    settings = Settings()
    try:
        for text in sets or ():
            name, equals, value = text.partition("=")
            if not equals:
                raise ValueError(
                    f"--set {text}: expected NAME=VALUE, such as controllers.node-monitor-grace-period=20s"
                )
            settings.values[name] = value
        settings.check()
        if config is not None or plugins:
            user = [load_plugin(text) for text in plugins or ()]
            settings.scheduler = SchedulerConfig.load(config.read_text() if config else "", user)
        before = Recording.load(file)
        one = Replay(before, seconds(from_) if from_ else None, pods=pods, seed=seed, settings=settings)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {outfiles.words(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    after = one.run()
    for text in one.refused[:10]:
        warn(f"refused by the virtual cluster: {text}")
    print("\n".join(compare(before, after, ("recorded", "replayed"))))
    if out is not None:
        outfiles.write(out, one.recorder.content, 2)
        print(f"{out}: {len(after.changes)} changes")
