"""What all commands share: the --lab option, progress on the terminal, and errors as one clear line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

LabOption = Annotated[
    str, typer.Option("--lab", envvar="NAVARCH_LAB", help="Which lab is meant.", show_default=True, metavar="NAME")
]


class Progress:
    """Says what is being done, and how long it took once it is done, on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.step = ""
        self.since = self.began = time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, step: str) -> None:
        """Begins a step; ends the one before."""
        self.finish()
        self.step, self.since = step, time.monotonic()
        if self.live and not self.quiet:
            sys.stderr.write(f"  … {step}")
            sys.stderr.flush()

    def detail(self, text: str) -> None:
        """How far the step has come; shown in its place on a terminal."""
        if self.live and not self.quiet:
            sys.stderr.write(f"\r\x1b[K  … {self.step}: {text}")
            sys.stderr.flush()

    def finish(self, mark: str = "✓") -> None:
        if self.step and not self.quiet:
            took = time.monotonic() - self.since
            start = "\r\x1b[K" if self.live else ""
            sys.stderr.write(f"{start}  {mark} {self.step}" + (f"  {took:.1f} s" if took >= 0.1 else "") + "\n")
            sys.stderr.flush()
        self.step = ""

    @property
    def total(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self.began


@contextlib.contextmanager
def reported(progress: Progress | None = None) -> Iterator[None]:
    """Turns errors that a person can act on into one line on standard error and exit code 1."""
    from lab.paths import LabError

    try:
        yield
        if progress:
            progress.finish()
    except LabError as error:
        if progress:
            progress.finish("✗")
        fail(str(error))
    except KeyboardInterrupt:
        if progress:
            progress.finish("✗")
        raise SystemExit(130) from None


def fail(message: str, code: int = 1) -> None:
    """Prints ``error: message`` and ends the command."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
