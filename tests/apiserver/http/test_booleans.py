"""Booleans in queries: only "0" and "false" are false; a parameter without a value is true."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.admission.connectrequests import _options
from apiserver.http.requestinfo import parse_request
from apiserver.http.streams import _plain
from apiserver.wire.asgi import Request, flag, truth
from navarch.api.kinds import Kind
from tests.apiserver.registry.widget import PATH, Caller, serving, widget

FALSE = ("0", "false", "False", "FALSE", "fAlSe")
TRUE = ("1", "true", "TRUE", "t", "f", "F", "no", "00", "", " ")


@pytest.mark.parametrize("text", [*FALSE, *TRUE])
def test_truth(text: str) -> None:
    expected = text in TRUE
    assert truth(text) is expected
    assert flag({"x": text}, "x") is expected and flag({}, "x") is None
    assert parse_request("GET", "/api/v1/pods", {"watch": text}).verb == ("watch" if expected else "list")
    kind = Kind("", "v1", "PodExecOptions", "pods", True)
    assert _options(kind, {"tty": [text], "stdin": [text]}) == ({"tty": True, "stdin": True} if expected else {})
    assert _plain("tty", text, ("tty",)) == ("true" if expected else "false")
    assert _plain("command", text, ("tty",)) == text


@pytest.mark.parametrize(
    ("query", "agent", "expected"),
    [
        (b"pretty=1", b"go", True), (b"pretty=T", b"go", True), (b"pretty=true", b"go", True), (b"pretty=tRue", b"go", False),
        (b"pretty=yes", b"go", False), (b"pretty=0", b"curl/8", False), (b"pretty=no", b"curl/8", False),
        (b"pretty=", b"curl/8", True), (b"pretty=", b"go", False),
    ],
)  # fmt: skip
def test_pretty_is_a_word_that_go_reads(query: bytes, agent: bytes, expected: bool) -> None:
    scope: dict[str, Any] = {"type": "http", "path": "/", "query_string": query, "headers": [(b"user-agent", agent)]}
    request = Request(None, scope, None, None)  # type: ignore[arg-type]
    assert request.query is not None and request.pretty is expected


def test_writes() -> None:
    async def body(call: Caller) -> None:
        apply = "application/apply-patch+yaml"
        await call("PATCH", f"{PATH}/a", widget(color="red"), apply, fieldManager="one")
        for word, code in (("0", 409), ("False", 409), ("f", 200)):
            answer = await call("PATCH", f"{PATH}/a", widget(color=word), apply, fieldManager="two", force=word)
            assert answer.code == code, (word, answer.tree)
        # Orphans keep their owner's name until the garbage collector has seen to them: the finalizer tells.
        for word, kept in (("f", True), ("0", False)):
            await call("POST", PATH, widget(f"x{word}"))
            answer = await call("DELETE", f"{PATH}/x{word}", orphanDependents=word)
            assert answer.code == 200 and (answer.tree.get("metadata", {}).get("finalizers") == ["orphan"]) is kept

    serving(body)
