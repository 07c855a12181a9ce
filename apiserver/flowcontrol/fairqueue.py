"""Fair queuing within one priority level: requests, seats and the time go in, who goes next comes out. Pure.

A request takes seats while it runs. If none are free it waits in a queue. A flow (say, one user) is dealt a small hand of
the queues, by its hash, and its requests go into the shortest of them: a flow that floods the server fills its own
hand, and hardly any other flow has all of its queues there (shuffle sharding). Of the queues that hold requests, the
one that had the least service goes next. Service is counted in virtual time: a request costs its seats times the
seconds it ran; until that is known, an estimate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

ESTIMATE = 0.003  # seconds that a request is thought to run, before it has


class Work:
    """One request. ``flow`` is the hash of its flow, ``seats`` what it takes while it runs."""

    __slots__ = ("began", "flow", "queue", "seats")

    def __init__(self, flow: int, seats: int = 1) -> None:
        self.flow, self.seats = flow, seats
        self.queue: Queue | None = None  # the queue that it went through
        self.began = 0.0  # when it began to run


class Queue:
    """Waiting requests in order. ``served``: up to which virtual time it has had service."""

    __slots__ = ("number", "running", "served", "waiting", "waiting_seats")

    def __init__(self, number: int) -> None:
        self.number = number
        self.waiting: deque[Work] = deque()
        self.waiting_seats = 0
        self.running = 0  # seats
        self.served = 0.0


def deal(flow: int, queues: int, hand: int) -> Iterator[int]:
    """The numbers of the ``hand`` different queues that a flow is dealt, as cards are dealt from a shuffled deck."""
    cards: list[int] = []  # in ascending order
    for size in range(queues, queues - hand, -1):
        flow, card = divmod(flow, size)
        for other in cards:
            if card < other:
                break
            card += 1
        cards.append(card)
        cards.sort()
        yield card


class FairQueues:
    """``seats`` run at a time. ``queues`` 0: nobody waits, who finds no seat is refused."""

    def __init__(self, seats: int, queues: int = 0, hand: int = 1, length: int = 0) -> None:
        self.seats, self.hand, self.length = seats, hand, length
        self.queues = [Queue(n) for n in range(queues)]
        self.running = 0  # seats in use
        self.waiting = 0  # requests
        self._busy: dict[int, Queue] = {}  # queues in which somebody waits
        self._clock = 0.0  # virtual time: the service of the queue that went last

    def fits(self, work: Work) -> bool:
        """Whether the request may run now. One that is wider than the whole level runs alone."""
        return self.running + work.seats <= self.seats or (self.running == 0 and self.seats > 0)

    def start(self, work: Work, now: float) -> bool:
        """Lets the request run if nobody waits and it fits; the usual way."""
        if self.waiting or not self.fits(work):
            return False
        self.running += work.seats
        work.began = now
        return True

    def wait(self, work: Work) -> bool:
        """Puts a request that could not start into a queue; False if the queue of its hand is full."""
        if not self.queues:
            return False
        hand = min(self.hand, len(self.queues))
        queue = min((self.queues[n] for n in deal(work.flow, len(self.queues), hand)), key=_load)
        if len(queue.waiting) >= self.length:
            return False
        if not queue.waiting and not queue.running:
            queue.served = max(queue.served, self._clock)  # idle time is no credit
        work.queue = queue
        queue.waiting.append(work)
        queue.waiting_seats += work.seats
        self._busy[queue.number] = queue
        self.waiting += 1
        return True

    def next(self, now: float) -> Work | None:
        """The request that begins to run now, if any may. Call it until it gives None."""
        if not self.waiting:
            return None
        queue = min(self._busy.values(), key=_service)
        work = queue.waiting[0]
        if not self.fits(work):
            return None
        self._take(queue, work)
        self._clock = max(self._clock, queue.served)
        queue.served += work.seats * ESTIMATE
        queue.running += work.seats
        self.running += work.seats
        work.began = now
        return work

    def finish(self, work: Work, now: float) -> None:
        """The request ran to its end."""
        self.running -= work.seats
        if work.queue is not None:
            work.queue.running -= work.seats
            work.queue.served += work.seats * (now - work.began - ESTIMATE)

    def give_up(self, work: Work) -> None:
        """The request waits no longer."""
        assert work.queue is not None
        self._take(work.queue, work)

    def take_over(self, works: list[Work]) -> None:
        """Puts requests that waited elsewhere into these queues, however long they get; without queues, into one."""
        if works and not self.queues:
            self.queues = [Queue(0)]
        length, self.length = self.length, len(works) + 1
        for work in works:
            self.wait(work)
        self.length = length

    def _take(self, queue: Queue, work: Work) -> None:
        if queue.waiting[0] is work:
            queue.waiting.popleft()
        else:
            queue.waiting.remove(work)
        queue.waiting_seats -= work.seats
        self.waiting -= 1
        if not queue.waiting:
            del self._busy[queue.number]


def _load(queue: Queue) -> tuple[int, int]:
    return queue.waiting_seats + queue.running, queue.number


def _service(queue: Queue) -> tuple[float, int]:
    return queue.served, queue.number
