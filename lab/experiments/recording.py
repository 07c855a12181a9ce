"""A recording: every change of every object with its time, samples of load, and marks of steps.

The format is JSON lines, compressed with gzip. The first line is a header; each other line has a time ``t`` in seconds since
the start, and is one of

    {"t": 1.5, "type": "ADDED|MODIFIED|DELETED", "key": "/registry/pods/default/web-1", "revision": 7, "object": {...}}
    {"t": 2.0, "sample": "load/web", "values": {"ok": 20, "failed": 0, ...}}
    {"t": 3.0, "mark": "start"}
    {"t": 3.0, "step": 2, "what": "set-image deployment/web"}

``object`` is the stored JSON without managedFields (of a deletion: the last state). Equal runs give equal bytes. With pandas:
``pandas.read_json("run.jsonl.gz", lines=True)``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import orjson

FORMAT = 1

class Listener(Protocol):
    """Is told how a run goes on: ``line`` the time of each line that is recorded, ``at`` the time where little is recorded,
    ``say`` what happens now. Times in seconds since the start."""

    def line(self, time: float) -> None: ...

    def at(self, time: float) -> None: ...

    def say(self, what: str) -> None: ...


listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
"""Hears of the runs that are made here: how their progress is seen."""


class Change(NamedTuple):
    """One change of one object; ``time`` in seconds since the start."""

    time: float
    type: str
    key: str
    revision: int
    object: dict[str, Any]


class Sample(NamedTuple):
    time: float
    name: str
    values: Mapping[str, float]


class Mark(NamedTuple):
    time: float
    name: str


class Step(NamedTuple):
    time: float
    number: int
    what: str


class Recording:
    """The recorded changes, in order. Everything that is measured is a function of this."""

    def __init__(self, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
        self.header = dict(header)
        self.changes: list[Change] = []
        self.samples: list[Sample] = []
        self.marks: list[Mark] = []
        self.steps: list[Step] = []
        self.end = 0.0
        for line in lines:
            at = float(line["t"])
            self.end = max(self.end, at)
            if "key" in line:
                self.changes.append(Change(at, line["type"], line["key"], line["revision"], line["object"]))
            elif "sample" in line:
                self.samples.append(Sample(at, line["sample"], line["values"]))
            elif "mark" in line:
                self.marks.append(Mark(at, line["mark"]))
            elif "step" in line:
                self.steps.append(Step(at, line["step"], line["what"]))
            elif "end" not in line:
                raise ValueError(f"not a line of a recording: {dict(line)!r}"[:300])

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Reads a file. Raises OSError, ValueError."""
        try:
            with gzip.open(path, "rb") as file:
                lines = (orjson.loads(line) for line in file)
                header = next(lines, None)
                if not isinstance(header, dict) or header.get("recording") != FORMAT:
                    raise ValueError(f"{path} is no recording of format {FORMAT}")
                return cls(header, lines)
        except (gzip.BadGzipFile, EOFError, orjson.JSONDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def of_bytes(cls, content: bytes) -> Recording:
        """Reads what a Recorder wrote in memory."""
        with gzip.open(io.BytesIO(content), "rb") as file:
            header, *lines = map(orjson.loads, file)
        return cls(header, lines)

    def mark(self, name: str) -> float | None:
        """When a mark was set last."""
        return next((m.time for m in reversed(self.marks) if m.name == name), None)

    def of(self, resource: str) -> Iterator[Change]:
        """The changes of one resource, such as ``pods``."""
        prefix = f"/registry/{resource}/"
        return (c for c in self.changes if c.key.startswith(prefix))


class Recorder:
    """Writes a recording, line by line, in memory; ``save`` puts it into a file. With ``target``: there, at once."""

    def __init__(self, header: Mapping[str, Any], target: IO[bytes] | None = None) -> None:
        self._bytes = target or io.BytesIO()
        self._file = gzip.GzipFile(filename="", mode="wb", compresslevel=5, fileobj=self._bytes, mtime=0)
        self._hash = hashlib.sha256()
        self._listener = listener.get()
        self.line({"recording": FORMAT, **header})

    def change(self, time: float, type: str, key: str, revision: int, value: bytes) -> None:
        tree = orjson.loads(value)
        tree.get("metadata", {}).pop("managedFields", None)
        self.line({"t": _time(time), "type": type, "key": key, "revision": revision, "object": tree})

    def sample(self, time: float, name: str, values: Mapping[str, float]) -> None:
        self.line({"t": _time(time), "sample": name, "values": values})

    def mark(self, time: float, name: str) -> None:
        self.line({"t": _time(time), "mark": name})

    def step(self, time: float, number: int, what: str) -> None:
        self.line({"t": _time(time), "step": number, "what": what})

    def finish(self, time: float) -> None:
        self.line({"t": _time(time), "end": True})
        self._file.close()

    def line(self, line: Mapping[str, Any]) -> None:
        """Writes a line as it is."""
        data = orjson.dumps(line) + b"\n"
        self._hash.update(data)
        self._file.write(data)
        if self._listener is not None:
            self._listener.line(line.get("t", 0.0))

    @property
    def digest(self) -> str:
        """Of the lines: equal for equal runs."""
        return self._hash.hexdigest()

    @property
    def content(self) -> bytes:
        """The compressed file, once it is finished; only of what is kept in memory."""
        assert isinstance(self._bytes, io.BytesIO)
        return self._bytes.getvalue()

    def save(self, path: Path) -> None:
        path.write_bytes(self.content)

    def recording(self) -> Recording:
        """Reads back what was recorded."""
        return Recording.of_bytes(self.content)


def _time(value: float) -> float:
    return round(value, 6)
