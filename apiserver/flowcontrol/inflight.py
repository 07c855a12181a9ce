"""The plain limits that hold where priority and fairness is switched off: so many reads and so many writes at a time."""

from __future__ import annotations

from apiserver.request import SYSTEM_MASTERS, RequestInfo, User
from navarch.api.errors import TooManyRequests

RETRY_AFTER = 1
_READS = ("get", "list", "watch", "head", "options")


class Kind:
    """Reads or writes, of a user that is ``exempt`` or not."""

    __slots__ = ("exempt", "headers", "reads")

    def __init__(self, reads: bool, exempt: bool) -> None:
        self.reads, self.exempt = reads, exempt
        self.headers: list[tuple[bytes, bytes]] = []


class Slot:
    """One request among those of its kind; it never waits for its ``turn``."""

    __slots__ = ("reads",)
    turn = None

    def __init__(self, reads: bool | None) -> None:
        self.reads = reads  # None: not counted


class InFlight:
    """``reads`` and ``writes`` 0 mean no limit. system:masters are never refused."""

    def __init__(self, reads: int, writes: int) -> None:
        self.limits = {True: reads, False: writes}
        self.running = {True: 0, False: 0}
        self.generation = 0  # the limits never change

    def flow_of(self, user: User, info: RequestInfo) -> Kind:
        return Kind(info.verb in _READS, SYSTEM_MASTERS in user.groups)

    def at_once(self, flow: Kind, now: float) -> Slot | None:
        """As :meth:`enter`; None where that would raise."""
        limit = self.limits[flow.reads]
        full = limit and self.running[flow.reads] >= limit
        return None if full and not flow.exempt else self.enter(flow, now)

    def enter(self, flow: Kind, now: float, seats: int = 1) -> Slot:
        """Raises TooManyRequests."""
        reads = flow.reads
        limit = self.limits[reads]
        if limit and self.running[reads] >= limit:
            if flow.exempt:
                return Slot(None)
            raise TooManyRequests(
                "Too many requests, please try again later.", {"retryAfterSeconds": RETRY_AFTER}
            )
        self.running[reads] += 1
        return Slot(reads)

    def leave(self, slot: Slot, now: float) -> None:
        if slot.reads is not None:
            self.running[slot.reads] -= 1
