"""What must be true of everything that clients saw. Pure; every check raises AssertionError with what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tests.apiserver.consistency.recorder import Event, Listed, Write


def check_watch(events: Sequence[Event]) -> None:
    """One order, nothing twice: revisions rise, and every event fits the state that the ones before it left."""
    state: dict[str, str] = {}
    revision = 0
    written: set[str] = set()
    for event in events:
        assert event.revision > revision, f"{event} comes after revision {revision}"
        revision = event.revision
        if event.type == "DELETED":
            assert state.pop(event.name, None) == event.token, f"{event}: that was not its last state"
            continue
        assert (event.type == "ADDED") == (event.name not in state), f"{event}: it was {state.get(event.name)}"
        assert event.token not in written, f"{event}: written twice"
        state[event.name] = event.token
        written.add(event.token)


def check_writes(events: Sequence[Event], writes: Sequence[Write], attempted: Iterable[str]) -> None:
    """Every acknowledged write is in the watch with its revision; what else is there was at least asked for."""
    seen = {event.token: event.revision for event in events if event.type != "DELETED"}
    for write in writes:
        assert seen.get(write.token) == write.revision, f"{write} is in the watch at {seen.get(write.token)}"
    strange = seen.keys() - set(attempted)
    assert not strange, f"nobody wrote {sorted(strange)}"


def check_order(writes: Sequence[Write]) -> None:
    """Revisions follow real time: what was acknowledged before another began has a lower one."""
    ended = sorted(writes, key=lambda write: write.returned)
    highest, at = 0, 0
    for write in sorted(writes, key=lambda write: write.called):
        while at < len(ended) and ended[at].returned < write.called:
            highest = max(highest, ended[at].revision)
            at += 1
        assert write.revision > highest, f"{write} began after revision {highest} was acknowledged"


def check_lists(events: Sequence[Event], writes: Sequence[Write], lists: Sequence[Listed], start: int) -> None:
    """A list is the state at its revision, and never older than what was acknowledged before it was asked for."""
    ended = sorted(writes, key=lambda write: write.returned)
    highest, at = start, 0
    for listed in sorted(lists, key=lambda one: one.called):
        while at < len(ended) and ended[at].returned < listed.called:
            highest = max(highest, ended[at].revision)
            at += 1
        assert listed.revision >= highest, f"a list is at {listed.revision}, {highest} had been acknowledged"
    states = replay(events)
    state, revision = {}, 0
    upcoming = next(states, None)
    for listed in sorted(lists, key=lambda one: one.revision):
        while upcoming is not None and upcoming[0] <= listed.revision:
            revision, state = upcoming[0], dict(upcoming[1])
            upcoming = next(states, None)
        assert listed.objects == state, f"the list at {listed.revision} is not the state since {revision}"


def replay(events: Iterable[Event]) -> Iterator[tuple[int, dict[str, str]]]:
    """The state (name -> token) after each event, with its revision; the same dict each time."""
    state: dict[str, str] = {}
    for event in events:
        if event.type == "DELETED":
            state.pop(event.name)
        else:
            state[event.name] = event.token
        yield event.revision, state
