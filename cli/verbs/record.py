"""``navarch record``: writes every change of a cluster into a recording. Secrets keep their values."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from navarch.api.times import format_time

    shown = sys.stderr.isatty()
    logging.getLogger("navarch.client").setLevel(logging.ERROR)  # reconnects are everyday; the line below counts on
    partial = out.with_name(f".{out.name}.partial")
    try:
        file = partial.open("wb")
    except OSError as error:
        raise CommandError(f"{out}: {error.strerror}") from None
    header = {"source": session.config.server, "start": format_time(session.world.now())}
    recorder = Recorder(header, file)
    following = Following(
        session.client, recorder, only=only, without=without, say=lambda c: _show(following.now, c, shown)
    )

    def ended() -> None:
        file.close()
        os.replace(partial, out)

    following.ended = ended
    print(f"recording {session.config.server} into {out}" + ("" if seconds else "; Ctrl-C ends it"), file=sys.stderr)
    task = asyncio.ensure_future(following.run(seconds))
    try:
        await asyncio.wait((task,))
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait((task,), timeout=1.0)
    took, counts = following.now, following.counts
    failure = task.exception() if task.done() and not task.cancelled() else None
    if failure is not None:
        out.unlink(missing_ok=True)
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
