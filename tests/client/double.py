"""A tiny API server for tests of the client: one resource path, objects as trees, watch with history. ASGI."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs

from navarch.api import errors


class Double:
    """Serves any collection; ``fail`` holds (status, headers) answers given before anything else works."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}  # by path
        self.log: list[tuple[int, str, str, dict[str, Any]]] = []  # revision, type, collection path, object
        self.revision = 10
        self.oldest = 0  # watches from below are told that the revision is gone
        self.changed = asyncio.Event()
        self.requests: list[tuple[str, str]] = []
        self.fail: list[tuple[int, dict[str, str]]] = []
        self.generation = 0  # raising it ends the watches

    def put(self, path: str, tree: dict[str, Any]) -> dict[str, Any]:
        """Stores an object as the server would, and tells watchers."""
        self.revision += 1
        known = path in self.objects
        uid = self.objects[path]["metadata"]["uid"] if known else f"uid-{self.revision}"
        meta = {"uid": uid, **tree.get("metadata", {}), "resourceVersion": str(self.revision)}
        meta.setdefault("name", path.rsplit("/", 1)[1])
        self.objects[path] = tree = {**tree, "metadata": meta}
        self._tell("MODIFIED" if known else "ADDED", path, tree)
        return tree

    def remove(self, path: str) -> None:
        self.revision += 1
        tree = self.objects.pop(path)
        tree = {**tree, "metadata": {**tree["metadata"], "resourceVersion": str(self.revision)}}
        self._tell("DELETED", path, tree)

    def end_watches(self) -> None:
        self.generation += 1
        self._wake()

    def expire(self) -> None:
        """Forgets all history and ends the watches."""
        self.oldest = self.revision
        self.end_watches()

    def _tell(self, kind: str, path: str, tree: dict[str, Any]) -> None:
        self.log.append((self.revision, kind, path.rsplit("/", 1)[0], tree))
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        method, path = scope["method"], scope["path"]
        self.requests.append((method, path))
        try:
            if self.fail:
                code, headers = self.fail.pop(0)
                raise _Answer(code, errors.from_status({}, code).status(), headers)
            if query.get("watch"):
                await self._watch(path, int(query.get("resourceVersion") or 0), send)
                return
            answer = self._answer(method, path, query, json.loads(body) if body else None, scope)
            raise _Answer(201 if method == "POST" else 200, answer)
        except errors.StatusError as error:
            await _send(send, error.http_code, error.status(), {})
        except _Answer as answer:
            await _send(send, answer.code, answer.tree, answer.headers)

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any, scope: Any) -> Any:
        if path == "/whoami":
            return {
                "user": str(scope.get("navarch.user")),
                "headers": [h.decode() for p in scope["headers"] for h in p],
            }
        path = path.removesuffix("/status")
        collection, name = path.rsplit("/", 1)
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                raise errors.resource_exists(name, "", body["metadata"]["name"])
            return self.put(path, body)
        if method == "GET" and not _names_object(path):
            listed = [tree for key, tree in self.objects.items() if _under(path, key)]
            return {"kind": "List", "metadata": {"resourceVersion": str(self.revision)}, "items": listed}
        if path not in self.objects:
            raise errors.resource_not_found(collection.rsplit("/", 1)[1], "", name)
        old = self.objects[path]
        if method == "PUT":
            asked = body["metadata"].get("resourceVersion")
            if asked and asked != old["metadata"]["resourceVersion"]:
                raise errors.resource_conflict(collection.rsplit("/", 1)[1], "", name)
            return self.put(path, {**body, "metadata": {**old["metadata"], **body["metadata"]}})
        if method == "PATCH":
            return self.put(path, _merge(old, body))
        if method == "DELETE":
            self.remove(path)
            return {"kind": "Status", "status": "Success"}
        return old

    async def _watch(self, path: str, revision: int, send: Any) -> None:
        if revision < self.oldest:
            raise errors.Expired("too old resource version")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        generation = self.generation
        while generation == self.generation:
            for at, kind, collection, tree in list(self.log):
                if at > revision and (collection == path or _under(path, collection)):
                    revision = at
                    line = json.dumps({"type": kind, "object": tree}).encode() + b"\n"
                    # In two pieces: a client must put lines together again.
                    await send({"type": "http.response.body", "body": line[:7], "more_body": True})
                    await send({"type": "http.response.body", "body": line[7:], "more_body": True})
            if revision < self.revision:
                revision = self.revision
                mark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(revision)}, "spec": None}}
                line = json.dumps(mark).encode() + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
            await self.changed.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Answer(Exception):
    def __init__(self, code: int, tree: Any, headers: dict[str, str] | None = None) -> None:
        self.code, self.tree, self.headers = code, tree, headers or {}


async def _send(send: Any, code: int, tree: Any, headers: dict[str, str]) -> None:
    listed = [(k.encode(), v.encode()) for k, v in {"content-type": "application/json", **headers}.items()]
    await send({"type": "http.response.start", "status": code, "headers": listed})
    await send({"type": "http.response.body", "body": json.dumps(tree).encode()})


def _under(collection: str, key: str) -> bool:
    """Whether an object is in a collection: ``/api/v1/pods`` holds every namespace's pods."""
    if key.startswith(collection + "/") or key == collection:
        return True
    base, resource = collection.rsplit("/", 1)
    parts = key.removeprefix(base + "/namespaces/").split("/")
    return key.startswith(base + "/namespaces/") and len(parts) >= 2 and parts[1] == resource


def _names_object(path: str) -> bool:
    parts = path.split("/")[3 if path.startswith("/api/") else 4 :]
    return len(parts) == (4 if parts[0] == "namespaces" else 2)


def _merge(old: Any, patch: Any) -> Any:
    """A merge patch, with as much of a strategic one as statuses need: lists whose items have a type merge by it."""
    if isinstance(patch, list):
        removed = [item.get("type") for item in patch if isinstance(item, dict) and item.get("$patch") == "delete"]
        patch = [item for item in patch if not (isinstance(item, dict) and "$patch" in item)]
        if isinstance(old, list) and all(isinstance(i, dict) and "type" in i for i in [*old, *patch]):
            by_type = {i["type"]: i for i in old}
            by_type.update({i["type"]: _merge(by_type.get(i["type"], {}), i) for i in patch})
            return [item for kind, item in by_type.items() if kind not in removed]
    if not isinstance(patch, dict) or not isinstance(old, dict):
        return patch
    out = dict(old)
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merge(out.get(key, {}), value)
    return out
