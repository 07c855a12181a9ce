"""The parts that all commands share: the --lab option, progress on the terminal, and errors as one clear line."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Iterator
from typing import Annotated

from cli.options import Option

LabOption = Annotated[
    str, Option("--lab", envvar="NAVARCH_LAB", help="Which lab is meant.", show_default=True, metavar="NAME")
]


class Progress:
    """Says what is being done, and how long it took once it is done, on standard error."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.step = self.far = ""
        self.shown = 0.0
        self.since = self.began = time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, step: str) -> None:
        """Begins a step; ends the one before."""
        self.finish()
        self.step, self.since, self.far = step, time.monotonic(), ""
        self._show()

    def detail(self, text: str) -> None:
        """How far the step has come; shown in its place on a terminal."""
        self.far = text
        self._show()

    def tick(self) -> None:
        """Whoever waits calls it now and then: the clock goes on."""
        if time.monotonic() - self.shown >= 1.0:
            self._show()

    def _show(self) -> None:
        self.shown = time.monotonic()
        if not self.live or self.quiet:
            return
        took = self.shown - self.since
        text = self.step + (f": {self.far}" if self.far else "") + (f"  {took:.0f} s" if took >= 1.0 else "")
        self._write(f"\r\x1b[K  … {text}")

    def finish(self, mark: str = "✓") -> None:
        if self.step and not self.quiet:
            took = time.monotonic() - self.since
            start = "\r\x1b[K" if self.live else ""
            self._write(f"{start}  {mark} {self.step}" + (f"  {took:.1f} s" if took >= 0.1 else "") + "\n")
        self.step = ""

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except BrokenPipeError:  # whoever read along went away (head): a lab that is half up helps nobody, so go on
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())

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
    except OSError as error:
        if progress:
            progress.finish("✗")
        fail(_system(error))
    except KeyboardInterrupt:
        if progress:
            progress.finish("✗")
        raise SystemExit(130) from None


def _system(error: OSError) -> str:
    """Describes what the system refused, and what helps if the disk is the reason."""
    text = ": ".join(filter(None, (str(error.filename or ""), error.strerror or str(error))))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        text += "; make room, or delete a lab: navarch down --purge"
    return text


def fail(message: str, code: int = 1) -> None:
    """Prints ``error: message`` and ends the command."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
