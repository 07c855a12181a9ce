"""A write of which nobody knows whether it took place: the client is told so, and nothing is tried a second time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from apiserver.storage.store import Compare, Put, StoreUnavailable
from tests.apiserver.registry.widget import PATH, Caller

MERGE = "application/merge-patch+json"


class LostAnswer:
    """Puts itself before the next transaction of a server: it takes place, and whoever asked for it does not hear of it.
    ``then`` is another one, before anybody looks."""

    def __init__(self, call: Caller, then: tuple[str, str] | None = None) -> None:
        self.store, self.then, self.count = call.server.store, then, 0
        self.txn = self.store.txn
        call.server.store.txn = self.lose  # type: ignore[method-assign]

    async def lose(self, compares: Sequence[Compare], puts: Sequence[Put] = (), deletes: Sequence[str] = ()) -> Any:
        self.count += 1
        if self.count > 1:
            return await self.txn(compares, puts, deletes)
        assert (await self.txn(compares, puts, deletes)).succeeded
        if self.then is not None:
            at, color = self.then
            item, _ = await self.store.get(at)
            assert item is not None
            await self.txn([], [Put(at, item.value.replace(b'"lost"', b'"%b"' % color.encode()))])
        raise StoreUnavailable("the connection was lost")


@pytest.mark.parametrize("overwritten", [False, True])
async def test_a_change_is_made_once(call: Caller, overwritten: bool) -> None:
    made = await call.make("a", color="red")
    store = LostAnswer(call, ("/registry/widgets/ns/a", "blue") if overwritten else None)
    answer = await call("PATCH", PATH + "/a", {"spec": {"color": "lost"}}, MERGE)
    assert (answer.code, answer.tree["reason"]) == (504, "Timeout") and store.count == 1
    assert (await call("GET", PATH + "/a")).tree["spec"]["color"] == ("blue" if overwritten else "lost")
    # A replacement is in no conflict with itself.
    made = (await call("GET", PATH + "/a")).tree
    store = LostAnswer(call)
    answer = await call("PUT", PATH + "/a", made | {"spec": {"color": "green"}})
    assert (answer.code, answer.tree["reason"]) == (504, "Timeout") and store.count == 1
    assert (await call("GET", PATH + "/a")).tree["spec"]["color"] == "green"


async def test_a_deletion_does_not_find_that_there_is_nothing(call: Caller) -> None:
    await call.make("a")
    store = LostAnswer(call)
    answer = await call("DELETE", PATH + "/a")
    assert (answer.code, answer.tree["reason"]) == (504, "Timeout") and store.count == 1
    assert (await call("GET", PATH + "/a")).code == 404


async def test_a_creation_does_not_find_itself(call: Caller) -> None:
    store = LostAnswer(call)
    answer = await call("POST", PATH, {"metadata": {"generateName": "a-"}})
    assert (answer.code, answer.tree["reason"]) == (504, "Timeout") and store.count == 1
    assert len((await call("GET", PATH)).tree["items"]) == 1
