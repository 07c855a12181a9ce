"""A lab: its folder, its record, its addresses, and the lock under which it is changed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict

from lab import supervisor
from lab.addresses import Addresses
from lab.forking import Spec
from lab.paths import LabError, LabPaths, LabRecord, private_directory
from lab.progress import Progress, Silence


class Lab:
    """One lab of this machine. ``record`` is None if it was never brought up."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        self.paths = LabPaths(name)
        self.progress = progress or Silence()
        self.record = LabRecord.load(self.paths.config)

    @property
    def required_record(self) -> LabRecord:
        if self.record is None:
            raise LabError(f'there is no lab "{self.paths.name}"; start it with: navarch up{self.lab_flag}')
        return self.record

    @property
    def lab_flag(self) -> str:
        """The flag to add to a command so that it means this lab."""
        return "" if self.paths.name == os.environ.get("NAVARCH_LAB", "default") else f" --lab {self.paths.name}"

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.required_record.index)

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.required_record.port}"

    def running(self) -> bool:
        return supervisor.identity(self.paths) is not None

    def start(self, specs: list[Spec]) -> None:
        supervisor.request(self.paths, "start", specs=[asdict(s) for s in specs])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time; reads the record anew."""
        fresh = not self.paths.root.exists()
        private_directory(self.paths.root)
        with self.paths.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress("another navarch command is changing this lab; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            self.record = LabRecord.load(self.paths.config)
            try:
                yield
            finally:
                if fresh and self.record is None:  # whatever was wished did not come to be: nothing stays
                    shutil.rmtree(self.paths.root, ignore_errors=True)

    def save(self) -> None:
        self.required_record.save(self.paths.config)
