"""How far a sweep is, for people: one line that moves on a terminal; else a line for each run that is over, and some of those
that take long."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import IO, NamedTuple

from lab.experiments.executors import Pulse
from lab.experiments.sweep import Listener, Result
from navarch.world import RealWorld

NEWS, EVERY = 1.0, 15.0  # seconds between two lines in a file, if something else happens now, and if it does not


class Going(NamedTuple):
    """A run that is going on: when it began (real seconds), how far it is (virtual seconds), what happens now, and whether it
    is on the wall clock."""

    began: float
    virtual: float
    what: str
    is_real: bool


class Board:
    """The state of a sweep and its line. Pure; ``now`` is in real seconds."""

    def __init__(self, total: int, earlier: int, jobs: int, now: float) -> None:
        self.total, self.earlier, self.jobs, self.began = total, earlier, jobs, now
        self.over = self.failed = self.timeouts = 0
        self.latest = now  # when a run ended last
        self.going: dict[str, Going] = {}

    def pulse(self, pulse: Pulse, now: float) -> None:
        since = self.going[pulse.name].began if pulse.name in self.going else now
        self.going[pulse.name] = Going(since, pulse.virtual, pulse.what, pulse.is_real)

    def done(self, result: Result, now: float) -> None:
        self.latest = now
        self.going.pop(result.name, None)
        self.over += 1
        self.failed += bool(result.error)
        self.timeouts += len(result.timeouts)

    @property
    def foremost(self) -> tuple[str, Going]:
        """Of the runs that are going on, the one that has come farthest, and its name."""
        return max(self.going.items(), key=lambda item: (item[1].virtual, item[0]))

    @property
    def remaining(self) -> int:
        return self.total - self.earlier - self.over

    def time_left(self, now: float) -> float | None:
        """In seconds, from the runs that are over; None while there are none."""
        if not self.over:
            return None
        return max(0.0, (self.latest - self.began) / self.over * self.remaining - (now - self.latest))

    def line(self, now: float) -> str:
        """``7/24 done  probe-1_seed-3 at 210 s, 85 times as fast as real (and 1 more)  2 timeouts  1:20 left  until ...``."""
        parts, what = [f"{self.earlier + self.over}/{self.total} done"], ""
        if self.going:
            name, run = self.foremost
            what = run.what
            more = f" (and {len(self.going) - 1} more)" if len(self.going) > 1 else ""
            parts.append(f"{name} at {run.virtual:.0f} s{_speed(run.virtual, now - run.began)}{more}")
        parts += _troubles(self.failed, self.timeouts)
        if (rest := self.time_left(now)) is not None and self.remaining:
            parts.append(f"{clock(rest)} left")
        return "  ".join([*parts, what] if what else parts)


def _speed(virtual: float, real: float) -> str:
    """Nothing before there is enough to tell."""
    return f", {virtual / real:.0f} times as fast as real" if virtual > 0 and real >= 0.2 and virtual > 2 * real else ""


def _troubles(failed: int, timeouts: int) -> list[str]:
    out = [f"{failed} failed"] if failed else []
    return [*out, f"{timeouts} timeout{'s' if timeouts > 1 else ''}"] if timeouts else out


def clock(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:04:05``."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


class Live(Listener):
    """Writes to ``out``; ``moving``: one line that changes. ``now`` tells real seconds."""

    def __init__(self, out: IO[str], moving: bool, now: Callable[[], float] | None = None) -> None:
        self.out, self.moving, self.now = out, moving, now or RealWorld().monotonic
        self.board = Board(0, 0, 1, self.now())
        self._shown, self._latest = self.now() if not moving else -1.0, ""

    def begin(self, total: int, earlier: int, jobs: int) -> None:
        self.board = Board(total, earlier, jobs, self.now())
        if earlier:
            verb = "run is" if earlier == 1 else "runs are"
            self._print(f"{earlier} of {total} {verb} done already" + (f"; {total - earlier} to go" if earlier < total else ""))

    def pulse(self, pulse: Pulse) -> None:
        now = self.now()
        self.board.pulse(pulse, now)
        if self.moving:
            if now - self._shown >= 0.1:
                self._show(now)
        elif self._is_due(now):
            self._shown, self._latest = now, self.board.foremost[1].what
            self._print(self.board.line(now))

    def _is_due(self, now: float) -> bool:
        """Whether a file gets another line: of what happens in a run on the wall clock, and else now and then."""
        _, run = self.board.foremost
        return now - self._shown >= (NEWS if run.is_real and run.what != self._latest else EVERY)

    def done(self, result: Result, seconds: float) -> None:
        self.board.done(result, self.now())
        if not self.moving:
            self._shown = self.now()
        if result.error:
            self._print(f"{result.name}: FAILED: {result.error.splitlines()[0]}")
        elif not self.moving:
            board, rest = self.board, self.board.time_left(self.now())
            late = "".join(f", {part}" for part in _troubles(0, len(result.timeouts)))
            more = f"; {clock(rest)} left" if rest and board.remaining else ""
            speed = _speed(result.virtual, max(seconds, 0.2))
            self._print(f"{board.earlier + board.over}/{board.total} {result.name}: {result.virtual:.0f} s{speed}{late}{more}")
        if self.moving:
            self._show(self.now())

    def end(self) -> None:
        """Takes the moving line away."""
        if self.moving:
            self._write("\r\033[K")

    def _show(self, now: float) -> None:
        self._shown = now
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\033[K{self.board.line(now)[:width]}")

    def _print(self, text: str) -> None:
        self._write(f"{chr(13)}\033[K{text}\n" if self.moving else f"{text}\n")

    def _write(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()
