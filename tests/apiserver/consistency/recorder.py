"""Clients that note what they asked for and what they were told."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from typing import Any, NamedTuple

import orjson

from navarch.client.transport import JSON, HTTPSTransport, TransportError
from navarch.world import World
from tests.apiserver.consistency.linearizable import (
    CREATE,
    DELETE,
    FOREVER,
    PUT,
    READ,
    REPLACE,
    Operation,
)

MERGE_PATCH = "application/merge-patch+json"
ANSWERS = {"AlreadyExists": "exists", "Conflict": "conflict", "NotFound": "absent"}


class Write(NamedTuple):
    """An acknowledged write: when it was asked for and answered, and the resourceVersion it was given."""

    token: str
    called: float
    returned: float
    revision: int


class Listed(NamedTuple):
    """A list's answer: name -> token, at a revision; asked for at ``called``."""

    called: float
    revision: int
    objects: dict[str, str]


class Event(NamedTuple):
    type: str
    name: str
    token: str
    revision: int


class Recorder:
    """What all clients together saw, object by object."""

    def __init__(self, world: World, path: str) -> None:
        self.world, self.path = world, path
        self.operations: dict[str, list[Operation]] = {}
        self.writes: list[Write] = []
        self.lists: list[Listed] = []
        self.unknown = 0

    def note(self, name: str, op: Operation) -> None:
        if not op.answer:
            self.unknown += 1
            if op.kind == READ:
                return
        self.operations.setdefault(name, []).append(op)


def settled(history: Sequence[Operation], written: Container[str]) -> list[Operation]:
    """The history, where the watch (the tokens that it shows as ``written``) tells what became of writes without answer.

    Nothing is believed of the watch by that: a write that it does not show, but a reader saw, is an impossible read.
    """
    out = []
    for op in history:
        if op.answer or op.kind == DELETE:
            out.append(op)
        elif op.token in written:
            out.append(op._replace(answer="ok"))
    return out


class Client:
    """One of many writers. ``step`` does one operation, drawn at random, on one of the objects."""

    def __init__(self, recorder: Recorder, transport: HTTPSTransport, number: int, names: list[str]) -> None:
        self.recorder, self.transport, self.names = recorder, transport, names
        self.random = random.Random(number)
        self.number = number
        self.tokens = 0
        self.seen: dict[str, tuple[str, str]] = {}  # name -> the token and resourceVersion that this client read last
        self.broken = False  # the last request got no answer

    def token(self) -> str:
        self.tokens += 1
        return f"{self.number}-{self.tokens}"

    async def step(self) -> None:
        self.broken = False
        name = self.random.choice(self.names)
        draw = self.random.random()
        if draw < 0.32:
            await self._operate(name, READ, "GET")
        elif draw < 0.36:
            await self._list()
        elif draw < 0.56:
            token = self.token()
            await self._operate(name, CREATE, "POST", _object(name, token), token)
        elif draw < 0.76 and name in self.seen:
            token = self.token()
            expected, version = self.seen[name]
            await self._operate(name, REPLACE, "PUT", _object(name, token, version), token, expected)
        elif draw < 0.9:
            token = self.token()
            await self._operate(name, PUT, "PATCH", {"data": {"token": token}}, token)
        else:
            await self._operate(name, DELETE, "DELETE")

    async def _operate(
        self, name: str, kind: str, method: str, body: Any = None, token: str = "", expected: str = ""
    ) -> None:
        recorder = self.recorder
        path = recorder.path if method == "POST" else f"{recorder.path}/{name}"
        called = recorder.world.monotonic()
        status, answer = await self._ask(method, path, body)
        returned = recorder.world.monotonic()
        if status == 429:
            return  # it was not let in: nothing happened
        if status in (200, 201):
            if kind == READ:
                token = answer["data"]["token"]
            if kind != DELETE:
                version = answer["metadata"]["resourceVersion"]
                self.seen[name] = token, version
                if kind != READ:
                    assert answer["data"]["token"] == token, answer
                    recorder.writes.append(Write(token, called, returned, int(version)))
            recorder.note(name, Operation(kind, called, returned, "ok", token, expected))
        elif 400 <= status < 500:
            assert answer["reason"] in ANSWERS, f"{method} {name}: {status} {answer}"
            recorder.note(name, Operation(kind, called, returned, ANSWERS[answer["reason"]], token, expected))
        else:
            recorder.note(name, Operation(kind, called, FOREVER, "", token, expected))

    async def _list(self) -> None:
        called = self.recorder.world.monotonic()
        status, answer = await self._ask("GET", self.recorder.path)
        if status == 200:
            objects = {item["metadata"]["name"]: item["data"]["token"] for item in answer["items"]}
            self.recorder.lists.append(Listed(called, int(answer["metadata"]["resourceVersion"]), objects))

    async def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer; status 0 if there was none."""
        data = None if body is None else orjson.dumps(body)
        kind = MERGE_PATCH if method == "PATCH" else JSON
        try:
            response = await self.transport.request(method, path, body=data, content_type=kind, timeout=20)
        except (TransportError, TimeoutError):
            self.broken = True
            return 0, None
        self.broken = response.status >= 500
        return response.status, orjson.loads(response.body)


def _object(name: str, token: str, version: str = "") -> dict[str, Any]:
    metadata = {"name": name} | ({"resourceVersion": version} if version else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"token": token}}


class Watcher:
    """A watch that is begun again at the last revision seen whenever it breaks. It must never have to list again."""

    def __init__(
        self, world: World, transport: HTTPSTransport, path: str, revision: int, token: Callable[[Any], str]
    ) -> None:
        self.world, self.transport, self.path, self.token = world, transport, path, token
        self.revision = revision
        self.events: list[Event] = []

    async def run(self) -> None:
        while True:
            try:
                await self._watch()
            except (TransportError, TimeoutError):
                pass
            await self.world.sleep(0.05)

    async def _watch(self) -> None:
        query = [("watch", "1"), ("resourceVersion", str(self.revision)), ("allowWatchBookmarks", "true")]
        async with self.transport.stream("GET", self.path, query=query) as stream:
            assert stream.status == 200 or stream.status >= 500, stream.status
            if stream.status != 200:
                return
            rest = b""
            async for chunk in stream.chunks():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take(orjson.loads(line))

    def _take(self, event: Any) -> None:
        obj = event["object"]
        assert event["type"] != "ERROR", obj
        metadata = obj["metadata"]
        self.revision = int(metadata["resourceVersion"])
        if event["type"] != "BOOKMARK":
            self.events.append(Event(event["type"], metadata["name"], self.token(obj), self.revision))
