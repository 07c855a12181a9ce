"""A whole API server in this process that is asked with any bytes, and what must be true of whatever it answers."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import orjson

from apiserver.admission.webhooks.webhooks import MutatingAdmissionWebhook
from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import LOOPBACK, User
from apiserver.server import APIServer
from apiserver.storage.memory import MemoryStore
from navarch.world import RealWorld

Tree = dict[str, Any]
ROUNDS = int(os.environ.get("NAVARCH_FUZZ", "0"))
"""How many random inputs each fuzz test tries; 0: as many as CI has time for."""

_PYTHON = re.compile(
    r"Traceback|Error\(|Exception|object at 0x|<class|NoneType|'(dict|list|str|int|float)' object|Expecting (value|property)|"
    r"line \d+ column \d+ \(char|unhashable|not subscriptable|msgspec|orjson|KeyError|<ssl|surrogates not allowed|"
    r"invalid literal for|could not convert|\bdict\b|must be str|codec can't"
)


class Answer(NamedTuple):
    code: int
    tree: Any
    text: str


class Fuzzed:
    def __init__(self, server: APIServer) -> None:
        self.server = server

    async def __call__(
        self, method: str, path: str, body: Any = b"", *, query: str = "", content_type: str = "application/json",
        user: User = LOOPBACK, headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Answer:  # fmt: skip
        """The answer to a request; ``body`` that is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        sent: list[dict[str, Any]] = []
        read = False

        async def receive() -> dict[str, Any]:
            nonlocal read
            if read:  # the client has nothing more to say and goes away
                return {"type": "http.disconnect"}
            read = True
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(), "navarch.user": user,
            "headers": [(b"content-type", content_type.encode()), *headers],
        }  # fmt: skip
        await self.server.app(scope, receive, send)
        raw = b"".join(m.get("body", b"") for m in sent[1:])
        try:
            tree = orjson.loads(raw)
        except orjson.JSONDecodeError:
            tree = None
        return Answer(sent[0]["status"], tree, raw.decode(errors="replace"))

    async def undecodable(self) -> list[str]:
        """Everything in the store that the typed structs do not take, as texts."""
        out = []
        listing = await self.server.store.list("/registry/")
        prefixes = {
            r.prefix: r for r in self.server.resources.served.values() if r.codec.same and hasattr(r.kind, "type")
        }
        for item in listing.items:
            found = next((r for prefix, r in prefixes.items() if item.key.startswith(prefix)), None)
            if found is None or not found.strategy.strict_types:
                continue
            try:
                obj = orjson.loads(item.value)
                msgspec.convert(obj, found.kind.type, strict=True)
                metadata = obj["metadata"]
                space = metadata.get("namespace", "") if found.kind.namespaced else ""
                assert (obj["apiVersion"], obj["kind"]) == (found.kind.api_version, found.kind.kind), obj
                assert item.key == found.key(space, metadata["name"]), (item.key, metadata)
                assert metadata["uid"] and metadata["creationTimestamp"], metadata
            except (msgspec.ValidationError, AssertionError, KeyError) as error:
                out.append(f"{item.key}: {error!r}")
        return out

    async def mutate_with(self, patch: Callable[[Tree], list[Tree] | bytes]) -> None:
        """From now on a webhook is asked about everything that is created or changed, and answers with the operations that
        ``patch`` returns for the request (or any bytes)."""
        await self("POST", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", WEBHOOK)
        plugin = next(p for p in self.server.admission.plugins if isinstance(p, MutatingAdmissionWebhook))
        plugin.client = Webhook(patch)  # type: ignore[assignment]
        await self.server.cache.current()
        while not plugin.hooks:
            await asyncio.sleep(0)


WEBHOOK = {
    "metadata": {"name": "any"},
    "webhooks": [{
        "name": "any.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
        "clientConfig": {"url": "https://127.0.0.1:1/"}, "reinvocationPolicy": "IfNeeded",
        "rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}],
    }],
}  # fmt: skip


class Webhook:
    """Stands in for the client of webhooks."""

    def __init__(self, patch: Callable[[Tree], list[Tree] | bytes]) -> None:
        self.patch = patch

    async def call(self, config: Tree, review: Tree, seconds: float) -> Tree:
        request = orjson.loads(orjson.dumps(review))["request"]
        response: Tree = {"uid": request["uid"], "allowed": True}
        if request.get("object") is not None and (made := self.patch(request)):
            data = made if isinstance(made, bytes) else orjson.dumps(made)
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(data).decode()}
        return {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}

    async def close(self) -> None:
        return None


def check(answer: Answer, asked: Any, *, webhook: bool = False) -> None:
    """An answer must be a success or a Status that a person understands. ``webhook``: a 500 that blames the webhook is in
    order."""
    code, tree, text = answer
    if webhook and code == 500 and isinstance(tree, dict) and tree.get("reason") == "InternalError":
        assert "Internal error occurred: " in tree["message"], (asked, text)
        assert not _PYTHON.search(tree["message"]), (asked, text)
        return
    assert code < 500 or (code in (503, 504) and "etcd" in text), (code, text[:1500], asked)
    if code < 400:
        return
    assert isinstance(tree, dict) and tree.get("kind") == "Status", (code, text[:1500], asked)
    assert tree["status"] == "Failure" and tree["code"] == code and tree.get("message"), (text, asked)
    if code != 404:
        assert tree.get("reason") or code in (405, 400), (text, asked)
    assert not _PYTHON.search(tree["message"]), (text, asked)
    for cause in (tree.get("details") or {}).get("causes") or ():
        if code == 422:
            assert "field" in cause and cause.get("reason") and cause.get("message"), (text, asked)


@asynccontextmanager
async def fuzzed(**config: Any) -> AsyncIterator[Fuzzed]:
    world, ready = RealWorld(), asyncio.Event()
    server = assemble(world, MemoryStore(), Config(advertise_address="10.0.0.1", **config))
    async with world.task_group() as group:
        group.start(server.run(lambda _: ready.set(), listen=False))
        await ready.wait()
        asker = Fuzzed(server)
        for name in ("a", "b"):
            await asker("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        account = {"metadata": {"name": "default"}}
        for name in ("a", "b", "default"):
            await asker("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
        errors = _Errors(logging.ERROR)
        logging.getLogger("apiserver").addHandler(errors)
        try:
            yield asker
            assert errors.texts == [], "\n".join(errors.texts)
        finally:
            logging.getLogger("apiserver").removeHandler(errors)
            group.cancel()


class _Errors(logging.Handler):
    """What the server says of its own faults."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))
