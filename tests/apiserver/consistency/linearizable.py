"""Is a history of operations on one object one that a single object, changed in one place, could have shown?

The search is Wing and Gong's, with Lowe's memory of what was tried: take any operation that began before the first of
the open ones ended, see whether the object could have answered so, and go on with the rest. A write is told from all
others by its ``token``, which nobody else writes. So the state of the object is one token, or None while it is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

FOREVER = float("inf")
CREATE, REPLACE, PUT, DELETE, READ = "create", "replace", "put", "delete", "read"


class Operation(NamedTuple):
    """What one client asked for and what it was told.

    ``answer``: "ok"; "exists" (create), "conflict" (replace), "absent" (all but create); "" if it is not known, because
    the connection broke: then the operation may take effect at any time after ``called``, or never.
    ``token``: what it writes; of a read that found something, what it found. ``expected``: the token that a replace is
    conditional on.
    """

    kind: str
    called: float
    returned: float  # FOREVER if the answer is not known
    answer: str
    token: str = ""
    expected: str = ""


class Impossible(Exception):
    """The object could not have answered so in this state."""


def after(state: str | None, op: Operation) -> str | None:
    """The object's state after the operation. Raises Impossible."""
    if not op.answer:
        return _unknown(state, op)
    if op.answer == "ok":
        if op.kind == READ:
            possible = state == op.token
        elif op.kind == CREATE:
            possible = state is None
        else:
            possible = state is not None and (op.kind != REPLACE or state == op.expected)
        if not possible:
            raise Impossible
        return None if op.kind == DELETE else op.token
    if op.answer == "exists" or op.answer == "conflict":
        possible = state is not None and (op.kind != REPLACE or state != op.expected)
    else:
        possible = state is None
    if not possible:
        raise Impossible
    return state


def _unknown(state: str | None, op: Operation) -> str | None:
    if op.kind == CREATE:
        return op.token if state is None else state
    if op.kind == REPLACE:
        return op.token if state == op.expected else state
    if op.kind == PUT:
        return op.token if state is not None else None
    return None if op.kind == DELETE else state


def linearizable(history: Sequence[Operation], first: str | None = None) -> bool:
    """Whether some order of the operations explains all answers, and puts none before another that ended earlier than it began.

    ``first``: the state before. Operations whose answer is not known may be left out of the order.
    """
    order = sorted(history, key=lambda op: op.called)
    whole = sum(1 << n for n, op in enumerate(order) if op.answer)
    tried: set[tuple[int, str | None]] = set()
    stack: list[tuple[int, str | None]] = [(0, first)]  # (a bit for each operation that is done, the state after them)
    while stack:
        done, state = stack.pop()
        if done & whole == whole:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        stack += _next(order, done, state)
    return False


def _next(order: Sequence[Operation], done: int, state: str | None) -> list[tuple[int, str | None]]:
    """Where one more operation leads, the likeliest last. One that is known and changes nothing is taken at once: it
    can stand in the way of others, but never helps them."""
    ended = FOREVER
    found: list[tuple[float, int, str | None]] = []
    for n in range(_lowest_zero(done), len(order)):
        op = order[n]
        if op.called > ended:
            break
        if done >> n & 1:
            continue
        ended = min(ended, op.returned)
        try:
            changed = after(state, op)
        except Impossible:
            continue
        if changed != state:
            found.append((op.returned, done | 1 << n, changed))
        elif op.answer:
            return [(done | 1 << n, state)]
    found.sort(key=lambda one: one[0], reverse=True)
    return [(bits, changed) for _, bits, changed in found]


def _lowest_zero(bits: int) -> int:
    return (~bits & bits + 1).bit_length() - 1
