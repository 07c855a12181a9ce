"""Custom resources in two versions, converted by a webhook that is really called."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from apiserver.config import Config
from apiserver.crd.conversion import restored
from apiserver.tls import make_certificates
from navarch.world import RealWorld
from tests.apiserver.crd.support import APPLY, CRDS, MERGE, Caller, serving

Tree = dict[str, Any]
V1 = "/apis/example.com/v1/namespaces/default/places"
V2 = "/apis/example.com/v2/namespaces/default/places"


def definition(client: Tree) -> Tree:
    """v1, which is stored, has ``spec.address`` HOST:PORT; v2 has ``spec.host`` and ``spec.port``."""

    def version(name: str, storage: bool, spec: Tree, *fields: str) -> Tree:
        whole = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
        return {
            "name": name,
            "served": True,
            "storage": storage,
            "schema": {"openAPIV3Schema": whole},
            "selectableFields": [{"jsonPath": f} for f in fields],
        }

    text, number = {"type": "string"}, {"type": "integer"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "places.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "places", "kind": "Place"},
            "versions": [
                version("v1", True, {"address": text, "note": text | {"default": "none"}}),
                version(
                    "v2",
                    False,
                    {"host": text, "port": number, "tls": {"type": "boolean", "default": True}},
                    ".spec.host",
                ),
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {"clientConfig": client, "conversionReviewVersions": ["v2", "v1"]},
            },
        },
    }


def convert(obj: Tree, wanted: str) -> Tree:
    spec = obj.get("spec") or {}
    if wanted.endswith("/v2"):
        host, _, port = spec.get("address", "").partition(":")
        new = {"host": host, "port": int(port or 0)}
    else:
        new = {"address": f"{spec.get('host', '')}:{spec.get('port', 0)}"}
    return obj | {"apiVersion": wanted, "spec": new}


class Backend:
    """Answers ConversionReviews with ``convert``; ``mend`` may change the answer. ``seen`` are the requests."""

    def __init__(self, bundle: str) -> None:
        self.client: Tree = {}
        self.bundle = bundle
        self.seen: list[Tree] = []
        self.mend: Callable[[Tree], Tree] = lambda answer: answer

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        asked = review["request"]
        self.seen.append(asked)
        converted = [convert(o, asked["desiredAPIVersion"]) for o in json.loads(json.dumps(asked["objects"]))]
        response = {"uid": asked["uid"], "result": {"status": "Success"}, "convertedObjects": converted}
        answer = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        return web.json_response(self.mend(answer))


@asynccontextmanager
async def backend(home: Path) -> AsyncIterator[Backend]:
    config = make_certificates(RealWorld(), Config(cert_dir=str(home), bind_addresses=("127.0.0.1",)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.tls_cert_file, config.tls_private_key_file)
    made = Backend(base64.b64encode((home / "ca.crt").read_bytes()).decode())
    application = web.Application()
    application.router.add_post("/convert", made.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    made.client = {"url": f"https://127.0.0.1:{runner.addresses[0][1]}/convert", "caBundle": made.bundle}
    try:
        yield made
    finally:
        await runner.cleanup()


def place(name: str, version: str = "v2", **spec: Any) -> Tree:
    return {"apiVersion": f"example.com/{version}", "kind": "Place", "metadata": {"name": name}, "spec": spec}


def converted(tmp_path: Path, test: Callable[[Caller, Backend], Any]) -> None:
    async def main(call: Caller) -> None:
        async with backend(tmp_path) as hook:
            await call.define(definition(hook.client))
            await test(call, hook)

    serving(main)


def test_verbs(tmp_path: Path) -> None:
    async def test(call: Caller, hook: Backend) -> None:
        made = await call.ok("POST", V2, place("a", host="h", port=1))
        assert made["apiVersion"] == "example.com/v2" and made["spec"] == {"host": "h", "port": 1, "tls": True}
        one = await call.ok("GET", f"{V1}/a")
        # Defaults of the version are there, fields of the other version are not.
        assert one["apiVersion"] == "example.com/v1" and one["spec"] == {"address": "h:1", "note": "none"}
        assert one["metadata"]["uid"] == made["metadata"]["uid"]
        hook.seen.clear()
        await call.ok("GET", f"{V1}/a")
        assert hook.seen == []  # what is stored needs no conversion
        patched = await call.ok("PATCH", f"{V2}/a", {"spec": {"port": 2}}, MERGE)
        assert patched["spec"]["port"] == 2 and patched["metadata"]["generation"] == 2
        applied = await call.ok("PATCH", f"{V2}/a", place("a", port=3), APPLY, fieldManager="m", force="true")
        assert applied["spec"]["port"] == 3
        applied["spec"]["host"] = "other"
        await call.ok("PUT", f"{V2}/a", applied)
        assert (await call.ok("GET", f"{V1}/a"))["spec"]["address"] == "other:3"
        dry = await call.ok("POST", V2, place("dry", host="d", port=1), dryRun="All")
        assert dry["spec"]["host"] == "d"
        await call.ok("DELETE", f"{V2}/a")
        assert (await call("GET", f"{V1}/a")).code == 404

    converted(tmp_path, test)


def test_lists_are_one_review(tmp_path: Path) -> None:
    async def test(call: Caller, hook: Backend) -> None:
        for i in range(5):
            await call.ok("POST", V1, place(f"p{i}", "v1", address=f"h{i % 2}:{i}"))
        assert hook.seen == []
        found = await call.ok("GET", V2)
        assert [o["spec"]["port"] for o in found["items"]] == [0, 1, 2, 3, 4]
        assert [len(r["objects"]) for r in hook.seen] == [5] and hook.seen[0]["desiredAPIVersion"] == "example.com/v2"
        # Field selectors look at the version that was asked for.
        found = await call.ok("GET", V2, fieldSelector="spec.host=h1")
        assert [o["metadata"]["name"] for o in found["items"]] == ["p1", "p3"]
        page = await call.ok("GET", V2, limit=2)
        assert [o["spec"]["port"] for o in page["items"]] == [0, 1] and page["metadata"]["continue"]
        table = await call.ok("GET", V2, accept="application/json;as=Table;v=v1;g=meta.k8s.io")
        assert table["rows"][0]["cells"][0] == "p0"

    converted(tmp_path, test)


async def events(call: Caller, path: str, count: int, **query: Any) -> list[tuple[str, str, Any]]:
    """The first events of a watch: type, name, spec."""
    out: list[tuple[str, str, Any]] = []
    pairs = [("watch", "true"), *((k, str(v)) for k, v in query.items())]
    async with call.transport.stream("GET", path, query=pairs) as answer:
        async for chunk in answer.chunks():
            for line in chunk.splitlines():
                event = json.loads(line)
                out.append((event["type"], event["object"]["metadata"].get("name", ""), event["object"].get("spec")))
            if len(out) >= count:
                break
    return out


def test_watches(tmp_path: Path) -> None:
    async def test(call: Caller, hook: Backend) -> None:
        async with call.server.world.task_group() as group:
            await call.ok("POST", V1, place("a", "v1", address="h:1"))
            start = (await call.ok("GET", V2))["metadata"]["resourceVersion"]
            plain = [group.start(events(call, V2, 3)) for _ in range(3)]
            chosen = group.start(events(call, V2, 2, fieldSelector="spec.host=h", resourceVersion=start))
            while len(call.server.watches.open) < 4:
                await asyncio.sleep(0.005)
            hook.seen.clear()
            await call.ok("PATCH", f"{V1}/a", {"spec": {"address": "i:2"}}, MERGE)
            await call.ok("DELETE", f"{V1}/a")
            for one in plain:
                got = await one
                assert [(e[0], e[2]["host"]) for e in got] == [("ADDED", "h"), ("MODIFIED", "i"), ("DELETED", "i")]
            # Three watchers of one state: converted once.
            assert sum(len(r["objects"]) for r in hook.seen) == 2
            # It left the selection, and went after that: one event, and the next is of another object.
            await call.ok("POST", V1, place("b", "v1", address="h:9"))
            assert [e[:2] for e in await chosen] == [("DELETED", "a"), ("ADDED", "b")]

    converted(tmp_path, test)


def test_storage_version_moves(tmp_path: Path) -> None:
    async def test(call: Caller, hook: Backend) -> None:
        await call.ok("POST", V1, place("a", "v1", address="h:1"))
        moved = await call.ok("GET", f"{CRDS}/places.example.com")
        for version in moved["spec"]["versions"]:
            version["storage"] = version["name"] == "v2"
        moved = await call.ok("PUT", f"{CRDS}/places.example.com", moved)
        assert moved["status"]["storedVersions"] == ["v1", "v2"]
        key = "/registry/example.com/places/default/a"

        async def stored() -> Tree:
            found, _ = await call.server.store.get(key)
            assert found is not None
            return json.loads(found.value)  # type: ignore[no-any-return]

        assert (await stored())["apiVersion"] == "example.com/v1"
        while call.server.resources["example.com", "places"].strategy.stored != "example.com/v2":  # type: ignore[attr-defined]
            await asyncio.sleep(0.005)
        # Writing it back as it is brings it over.
        await call.ok("PUT", f"{V1}/a", await call.ok("GET", f"{V1}/a"))
        assert (await stored())["spec"] == {"host": "h", "port": 1, "tls": True}
        gone = moved | {"spec": moved["spec"] | {"versions": moved["spec"]["versions"][1:]}}
        refused = await call("PUT", f"{CRDS}/places.example.com", gone)
        assert "status.storedVersions[0]" in refused.message
        status = moved | {"status": moved["status"] | {"storedVersions": ["v2"]}}
        status["metadata"] = (await call.ok("GET", f"{CRDS}/places.example.com"))["metadata"]
        gone["metadata"] = (await call.ok("PUT", f"{CRDS}/places.example.com/status", status))["metadata"]
        await call.ok("PUT", f"{CRDS}/places.example.com", gone)

    converted(tmp_path, test)


@pytest.mark.parametrize(
    ("mend", "words"),
    [
        (lambda a: {**a, "response": {**a["response"], "result": {"status": "Failure", "message": "no way"}}},
         "conversion webhook for example.com/v1, Kind=Place failed: no way"),
        (lambda a: {**a, "response": {**a["response"], "result": {}}}, "response.result.status was '', not 'Success'"),
        (lambda a: {**a, "response": {**a["response"], "uid": "x"}}, 'expected response.uid="'),
        (lambda a: {**a, "response": {**a["response"], "convertedObjects": []}}, "returned 0 objects, expected 1"),
        (lambda a: {**a, "kind": "Other"}, "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview"),
        (lambda a: {**a, "response": None}, "no response provided"),
    ],
)  # fmt: skip
def test_failures(tmp_path: Path, mend: Callable[[Tree], Tree], words: str) -> None:
    async def test(call: Caller, hook: Backend) -> None:
        await call.ok("POST", V1, place("a", "v1", address="h:1"))
        hook.mend = mend
        for method, path in (("GET", V2), ("GET", f"{V2}/a"), ("DELETE", f"{V2}/a")):
            refused = await call(method, path)
            assert refused.code == 500 and words in refused.message, refused.tree
        refused = await call("GET", V2, watch="true")
        assert words in json.dumps(refused.tree).replace('\\"', '"')
        await call.ok("GET", V1)
        hook.mend = lambda answer: answer
        await call.ok("GET", f"{V2}/a")

    converted(tmp_path, test)


async def test_nobody_answers(call: Caller, tmp_path: Path) -> None:
    await call.define(definition({"url": "https://127.0.0.1:1/convert"}))
    await call.ok("POST", V1, place("a", "v1", address="h:1"))
    refused = await call("GET", f"{V2}/a")
    start = (
        'conversion webhook for example.com/v1, Kind=Place failed: Post "https://127.0.0.1:1/convert?timeout=30s": '
    )
    assert refused.code == 500 and refused.message.startswith(start), refused.message


async def test_authorities_must_be_good(call: Caller, tmp_path: Path) -> None:
    async with backend(tmp_path) as hook:
        bad = definition(hook.client | {"caBundle": base64.b64encode(b"nothing").decode()})
        await call.ok("POST", CRDS, bad)
        found = await call.established("places.example.com", "False")
        assert found["status"]["conditions"][1]["reason"] == "Installing"
        assert (await call("GET", V1)).code == 404
        good = definition(hook.client)["spec"]
        await call.ok("PATCH", f"{CRDS}/places.example.com", {"spec": {"conversion": good["conversion"]}}, MERGE)
        await call.established("places.example.com")
        refused = await call(
            "PATCH", f"{CRDS}/places.example.com", {"spec": {"conversion": bad["spec"]["conversion"]}}, MERGE
        )
        assert refused.code == 422 and "unable to load root certificates" in refused.message


OLD: Tree = {
    "apiVersion": "g/v1",
    "kind": "K",
    "metadata": {"name": "a", "uid": "u", "labels": {"a": "b"}, "finalizers": ["f"]},
}


def test_only_labels_and_annotations_may_change() -> None:
    new = {
        "apiVersion": "g/v2",
        "kind": "K",
        "metadata": {"name": "a", "uid": "u", "annotations": {"c": "d"}, "generation": 9},
    }
    assert restored(OLD, new, "g/v2")["metadata"] == {
        "name": "a",
        "uid": "u",
        "finalizers": ["f"],
        "annotations": {"c": "d"},
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"apiVersion": "g/v3"}, "invalid groupVersion (expected g/v2, received g/v3)"),
        ({"kind": "L"}, "invalid kind (expected K, received L)"),
        ({"metadata": None}, "metadata must be an object"),
        ({"metadata": {"name": "b", "uid": "u"}}, "must have the same name: a != b"),
        ({"metadata": {"name": "a"}}, "must have the same UID: u != "),
        ({"metadata": {"name": "a", "uid": "u", "labels": {"a": 1}}}, "metadata.labels must be a map of strings"),
    ],
)
def test_mischief(change: Tree, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        restored(OLD, {"apiVersion": "g/v2", "kind": "K", "metadata": {"name": "a", "uid": "u"}} | change, "g/v2")
    assert words in str(caught.value)
