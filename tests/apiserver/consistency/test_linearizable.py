"""The checker must accept what an object can do, and must reject everything else."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.apiserver.consistency.linearizable import (
    CREATE,
    DELETE,
    FOREVER,
    PUT,
    READ,
    REPLACE,
    Impossible,
    Operation,
    after,
    linearizable,
)

KINDS = (CREATE, REPLACE, PUT, DELETE, READ)


def by_trying_all(history: Sequence[Operation]) -> bool:
    """The definition itself: every subset that holds all known operations, in every order."""
    known = [op for op in history if op.answer]
    unknown = [op for op in history if not op.answer]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *some]):
                if any(b.returned < a.called for n, a in enumerate(order) for b in order[n + 1 :]):
                    continue
                state: str | None = None
                try:
                    for op in order:
                        state = after(state, op)
                except Impossible:
                    continue
                return True
    return False


@st.composite
def anything(draw: st.DrawFn) -> list[Operation]:
    """Any answers at all; most of these histories are impossible."""
    history = []
    for n in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(KINDS))
        called = draw(st.integers(0, 8))
        answers = {CREATE: ["ok", "exists"], REPLACE: ["ok", "conflict", "absent"]}.get(kind, ["ok", "absent"])
        answer = draw(st.sampled_from([*answers, ""]))
        tokens = [f"t{m}" for m in range(5)]
        token = draw(st.sampled_from(tokens)) if kind == READ and answer == "ok" else f"t{n}"
        expected = draw(st.sampled_from(tokens)) if kind == REPLACE else ""
        returned = called + draw(st.integers(0, 6)) if answer else FOREVER
        history.append(Operation(kind, called, returned, answer, token, expected))
    return history


@st.composite
def possible(draw: st.DrawFn) -> list[Operation]:
    """What a real object answers: each operation takes effect at one moment between its call and its return."""
    count = draw(st.integers(1, 30))
    state: str | None = None
    known: list[str] = ["none"]
    history = []
    for n in range(count):
        kind = draw(st.sampled_from(KINDS))
        moment = 10 * n
        called, returned = moment - draw(st.integers(0, 60)), moment + draw(st.integers(0, 60))
        expected = draw(st.sampled_from(known)) if kind == REPLACE else ""
        token = f"t{n}"
        lost = draw(st.integers(0, 9)) == 0
        happened = not lost or draw(st.booleans())
        if kind == READ:
            answer, token = ("ok", state) if state is not None else ("absent", "")
        elif kind == CREATE:
            answer = "ok" if state is None else "exists"
        elif state is None:
            answer = "absent"
        else:
            answer = "conflict" if kind == REPLACE and expected != state else "ok"
        if answer == "ok" and happened and kind != READ:
            state = None if kind == DELETE else token
            known.append(token)
        history.append(
            Operation(kind, called, FOREVER if lost else returned, "" if lost else answer, token or "", expected)
        )
    return history


@given(anything())
@settings(max_examples=400, deadline=None)
def test_it_is_the_definition(history: list[Operation]) -> None:
    assert linearizable(history) == by_trying_all(history)


@given(possible())
@settings(max_examples=150, deadline=None)
def test_what_an_object_can_do_is_accepted(history: list[Operation]) -> None:
    assert linearizable(history)


@given(possible(), st.data())
@settings(max_examples=100, deadline=None)
def test_what_it_cannot_do_is_rejected_wherever_it_stands(history: list[Operation], data: st.DataObject) -> None:
    """A stale read behind any history: what it found was overwritten before it began."""
    end = max((op.returned for op in history if op.returned < FOREVER), default=0) + 1
    written = [op.token for op in history if op.kind != DELETE and op.kind != READ]
    settle = [
        Operation(DELETE, end, end + 1, data.draw(st.sampled_from(["ok", "absent"]))),
        Operation(CREATE, end + 2, end + 3, "ok", "last"),
    ]
    if not linearizable([*history, *settle]):
        return  # that deletion could not have been answered so, or an open write came in between
    stale = Operation(READ, end + 4, end + 5, "ok", data.draw(st.sampled_from([*written, "never"])))
    overtaken = any(not op.answer and op.token == stale.token for op in history)
    assert overtaken or not linearizable([*history, *settle, stale])


@pytest.mark.parametrize(
    "history",
    [
        [Operation(CREATE, 0, 1, "ok", "a"), Operation(READ, 2, 3, "absent")],  # lost
        [Operation(CREATE, 0, 1, "ok", "a"), Operation(CREATE, 0, 1, "ok", "b")],  # both won
        [Operation(READ, 0, 1, "ok", "a"), Operation(CREATE, 2, 3, "ok", "a")],  # read before it was written
        [  # two replaced the same version
            Operation(CREATE, 0, 1, "ok", "a"),
            Operation(REPLACE, 2, 9, "ok", "b", "a"),
            Operation(REPLACE, 2, 9, "ok", "c", "a"),
        ],
        [  # a later read goes back
            Operation(CREATE, 0, 1, "ok", "a"),
            Operation(PUT, 2, 9, "ok", "b"),
            Operation(READ, 3, 4, "ok", "b"),
            Operation(READ, 5, 6, "ok", "a"),
        ],
        [  # a write of unknown outcome shows, goes, and shows again
            Operation(CREATE, 0, 1, "ok", "a"),
            Operation(PUT, 2, FOREVER, "", "b"),
            Operation(READ, 3, 4, "ok", "b"),
            Operation(PUT, 5, 6, "ok", "c"),
            Operation(READ, 7, 8, "ok", "b"),
        ],
    ],
)
def test_typical_faults_are_rejected(history: list[Operation]) -> None:
    assert not linearizable(history)
    assert not by_trying_all(history)
