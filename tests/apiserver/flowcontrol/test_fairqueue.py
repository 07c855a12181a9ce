"""Fair queuing as a pure machine: nobody starves, no seat stays empty while somebody waits."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from apiserver.flowcontrol.fairqueue import FairQueues, Work, deal
from apiserver.flowcontrol.levels import flow_hash


@given(flow=st.integers(0, 2**64 - 1), queues=st.integers(1, 200), hand=st.integers(1, 12))
def test_a_hand_has_different_queues(flow: int, queues: int, hand: int) -> None:
    hand = min(hand, queues)
    cards = list(deal(flow, queues, hand))
    assert len(set(cards)) == hand and all(0 <= c < queues for c in cards)


def test_hands_of_different_flows_hardly_meet() -> None:
    hands = [set(deal(flow_hash("s", f"user-{n}"), 128, 6)) for n in range(200)]
    assert all(a != b for i, a in enumerate(hands) for b in hands[:i])
    used = {card for hand in hands for card in hand}
    assert len(used) == 128


class Run:
    """A simulation: requests arrive, run for a while, and end."""

    def __init__(self, fair: FairQueues) -> None:
        self.fair, self.now = fair, 0.0
        self.ends: list[tuple[float, int, Work]] = []
        self.began: list[Work] = []
        self.lasts: dict[Work, float] = {}

    def arrive(self, work: Work, lasts: float) -> bool:
        self.lasts[work] = lasts
        if self.fair.start(work, self.now):
            self._begin(work)
            return True
        if not self.fair.wait(work):
            return False
        self._go_on()
        return True

    def _begin(self, work: Work) -> None:
        self.began.append(work)
        heapq.heappush(self.ends, (self.now + self.lasts[work], len(self.began), work))

    def _go_on(self) -> None:
        while (work := self.fair.next(self.now)) is not None:
            self._begin(work)
        self.check()

    def end_one(self) -> Work:
        self.now, _, work = heapq.heappop(self.ends)
        self.fair.finish(work, self.now)
        self._go_on()
        return work

    def check(self) -> None:
        fair = self.fair
        waiting = [w for q in fair.queues for w in q.waiting]
        assert fair.waiting == len(waiting)
        assert fair.running == sum(w.seats for _, _, w in self.ends)
        assert fair.running <= fair.seats or len(self.ends) == 1
        if waiting:  # a seat may stay free only for a request that is too wide for what is free
            first = min((q for q in fair.queues if q.waiting), key=lambda q: (q.served, q.number)).waiting[0]
            assert fair.running and not fair.fits(first)
        assert {q.number for q in fair.queues if q.waiting} == set(fair._busy)


STEPS = st.lists(
    st.one_of(st.tuples(st.integers(0, 5), st.integers(1, 4), st.floats(0.001, 2)), st.none()), max_size=80
)


@given(steps=STEPS, seats=st.integers(1, 8))
def test_seats_are_never_idle_and_everybody_gets_through(
    steps: list[tuple[int, int, float] | None], seats: int
) -> None:
    run = Run(FairQueues(seats, queues=8, hand=3, length=20))
    taken = 0
    for step in steps:
        if step is None:
            if run.ends:
                run.end_one()
        else:
            flow, width, lasts = step
            width = width if seats >= 4 else 1
            taken += run.arrive(Work(flow_hash("s", str(flow)), width), lasts)
    while run.ends:
        run.end_one()
    assert run.fair.running == run.fair.waiting == 0 and len(run.began) == taken


def test_a_thousand_requests_at_once_do_not_starve_another_flow() -> None:
    elephant, mouse = flow_hash("s", "elephant"), flow_hash("s", "mouse")
    run = Run(FairQueues(10, queues=128, hand=6, length=1000))
    for _ in range(1000):
        assert run.arrive(Work(elephant), 0.1)
    for _ in range(20):
        before = len(run.began)
        work = Work(mouse)
        run.arrive(work, 0.1)
        while work not in run.began:
            run.end_one()
        assert len(run.began) - before <= 10 + 6  # as many as run, and each queue of the elephant's hand once
    assert len(run.began) < 400  # and the elephant was not through long ago


def share_of_time(lasts: Callable[[str], float]) -> dict[str, float]:
    """Seat seconds of two flows that both have far too much to do."""
    run = Run(FairQueues(4, queues=64, hand=4, length=10_000))
    of: dict[Work, str] = {}
    for _ in range(1000):
        for name in ("a", "b"):
            work = Work(flow_hash("s", name))
            of[work] = name
            run.arrive(work, lasts(name))
    used = {"a": 0.0, "b": 0.0}
    for _ in range(500):
        work = run.end_one()
        used[of[work]] += run.lasts[work]
    return used


def test_time_is_shared_equally_whatever_single_requests_take() -> None:
    used = share_of_time(lambda name: 0.4 if name == "a" else 0.1)
    assert 0.8 < used["a"] / used["b"] < 1.25


def test_full_queues_refuse_and_who_gives_up_makes_room() -> None:
    fair = FairQueues(1, queues=1, hand=1, length=2)
    first, second, third = Work(1), Work(1), Work(1)
    assert fair.start(first, 0.0)
    assert fair.wait(second) and fair.wait(third) and not fair.wait(Work(1))
    fair.give_up(second)
    assert fair.wait(Work(1))
    fair.finish(first, 1.0)
    assert fair.next(1.0) is third and fair.next(1.0) is None
    assert not FairQueues(1).wait(Work(1))  # no queues: refused
