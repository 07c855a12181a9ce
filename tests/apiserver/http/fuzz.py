"""schemathesis against a whole server in this process, led by the OpenAPI documents that the server publishes.

    python -m tests.apiserver.http.fuzz [--examples N] [--seed N] [GROUP-VERSION ...]

runs for as long as one likes, and prints what it finds; the test beside this file is a short run of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import hypothesis
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import User
from apiserver.storage.memory import MemoryStore
from navarch.world import RealWorld

SELECTOR = {"matchLabels": {"a": "b"}}
POD = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
CLASS = {"clientConfig": {"url": "https://127.0.0.1:1/x"}, "name": "a.b.c", "sideEffects": "None"}
HOOK = CLASS | {"admissionReviewVersions": ["v1"], "failurePolicy": "Ignore"}
# What a kind needs to be valid, for those that need something. What schemathesis makes up is mixed into it.
EXAMPLES: dict[str, dict[str, Any]] = {
    "Pod": {"spec": POD["spec"]},
    "Deployment": {"spec": {"selector": SELECTOR, "template": POD}},
    "ReplicaSet": {"spec": {"selector": SELECTOR, "template": POD}},
    "StatefulSet": {"spec": {"selector": SELECTOR, "template": POD, "serviceName": "s"}},
    "DaemonSet": {"spec": {"selector": SELECTOR, "template": POD}},
    "ReplicationController": {"spec": {"selector": {"a": "b"}, "template": POD}},
    "PodTemplate": {"template": POD},
    "Job": {"spec": {"template": {"spec": {**POD["spec"], "restartPolicy": "Never"}}}},
    "CronJob": {"spec": {"schedule": "* * * * *", "jobTemplate": {
        "spec": {"template": {"spec": {**POD["spec"], "restartPolicy": "Never"}}}}}},
    "Service": {"spec": {"ports": [{"port": 80}]}},
    "ControllerRevision": {"revision": 1, "data": {"a": 1}},
    "EndpointSlice": {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]},
    "PersistentVolumeClaim": {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
    "PersistentVolume": {"spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}},
    "StorageClass": {"provisioner": "x"},
    "HorizontalPodAutoscaler": {"spec": {
        "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "a", "apiVersion": "apps/v1"}}},
    "PodDisruptionBudget": {"spec": {"minAvailable": 1, "selector": SELECTOR}},
    "Ingress": {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "PriorityClass": {"value": 10},
    "RuntimeClass": {"handler": "x"},
    "RoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a"}},
    "ClusterRoleBinding": {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "a"}},
    "CSINode": {"spec": {"drivers": []}},
    "VolumeAttachment": {"spec": {"attacher": "x", "nodeName": "a", "source": {"persistentVolumeName": "a"}}},
    "MutatingWebhookConfiguration": {"webhooks": [HOOK]},
    "FlowSchema": {"spec": {"priorityLevelConfiguration": {"name": "exempt"}}},
    "LimitRange": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "100"}}]}},
    "ResourceQuota": {"spec": {"hard": {"pods": "1000"}}},
    "Scale": {"spec": {"replicas": 1}},
    "Binding": {"target": {"name": "n"}},
}  # fmt: skip
ADMIN = User("admin", ("system:masters", "system:authenticated"))
HANG = 20.0  # seconds after which an answer is thought not to come
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NAMESPACE = "default"
STRATEGIC = "application/strategic-merge-patch+json"
POINTERS = [
    "", "/", "/spec", "/spec/replicas", "/metadata/labels", "/metadata/labels/a", "/data", "/data/a", "/spec/-", "/status",
]  # fmt: skip
OPTIONS = ("dryRun", "fieldManager", "fieldValidation", "force", "gracePeriodSeconds", "orphanDependents", "propagationPolicy")
OPERATION = {
    "type": "object", "required": ["op", "path"], "properties": {
        "op": {"enum": ["add", "remove", "replace", "move", "copy", "test"]}, "path": {"enum": POINTERS},
        "from": {"enum": POINTERS}, "value": {"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "integer"}]},
    },
}  # fmt: skip
OPERATIONS = {"type": "array", "maxItems": 4, "items": OPERATION}
# What connects to a node's agent, and the old paths of watches, which are those of lists with a parameter.
NOT_CALLED = ("connect", "watch", "watchlist")


class Server:
    """A server on an event loop of its own, in a thread."""

    def __init__(self) -> None:
        self.world = RealWorld()
        self.loop: asyncio.AbstractEventLoop
        self.statuses: Counter[tuple[str, int]] = Counter()  # of all answers, by method
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.server.stop)
        self._thread.join(30)

    def _run(self) -> None:
        async def main() -> None:
            self.loop = asyncio.get_running_loop()
            self.server = assemble(self.world, MemoryStore(), Config())
            await self.server.run(lambda _: self._ready.set(), listen=False)

        self.world.run(main)

    def get(self, path: str) -> Any:
        return json.loads(self.send(requests.Request("GET", f"http://x{path}").prepare())[2])

    def send(self, request: requests.PreparedRequest) -> tuple[int, dict[str, list[str]], bytes]:
        """Status, headers and body of the answer. Raises TimeoutError if none comes."""
        future = asyncio.run_coroutine_threadsafe(self._send(request), self.loop)
        try:
            return future.result(HANG)
        except TimeoutError:
            future.cancel()
            raise

    async def _send(self, request: requests.PreparedRequest) -> tuple[int, dict[str, list[str]], bytes]:
        url = urlsplit(request.url or "")
        body = request.body or b""
        body = body.encode() if isinstance(body, str) else body
        headers = [(k.lower().encode("latin-1"), str(v).encode("latin-1")) for k, v in request.headers.items()]
        scope = {
            "type": "http", "http_version": "1.1", "method": request.method, "path": unquote(url.path),
            "raw_path": url.path.encode(), "query_string": url.query.encode(), "headers": headers, "client": None,
            "navarch.user": ADMIN,
        }  # fmt: skip
        gone = asyncio.Event()
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        status, found, parts = 0, dict[str, list[str]](), list[bytes]()

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for key, value in message["headers"]:
                    found.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
            else:
                parts.append(message.get("body", b""))

        await self.server.app(scope, receive, send)
        self.statuses[str(request.method), status] += 1
        return status, found, b"".join(parts)


def documents(server: Server) -> Iterator[tuple[str, Any]]:
    """The documents of all group-versions, so that schemathesis can use them: bodies are JSON."""
    for name in server.get("/openapi/v3")["paths"]:
        document = server.get(f"/openapi/v3/{name}")
        for path in document["paths"].values():
            for method, operation in list(path.items()):
                if method == "parameters":
                    continue
                if operation.get("x-kubernetes-action") in NOT_CALLED:
                    del path[method]
                    continue
                content = operation.get("requestBody", {}).get("content", {})
                if method == "patch" and "put" in path:
                    # Changes that look like the object.
                    like = next(iter(path["put"]["requestBody"]["content"].values()))
                    content |= {k: like for k in ("application/merge-patch+json", STRATEGIC) if k in content}
                    content["application/json-patch+json"] = {"schema": OPERATIONS}
                if "*/*" in content:
                    content["application/json"] = content.pop("*/*")
                for kind in [k for k in content if "yaml" in k]:
                    del content[kind]
        document["paths"] = {p: found for p, found in document["paths"].items() if set(found) - {"parameters"}}
        yield name, document


def tamed(case: Any, operation: Any) -> None:
    """Brings a case near enough to sense that it gets past the first check, and keeps watches short."""
    raw = operation.definition.raw
    kind = raw.get("x-kubernetes-group-version-kind") or {}
    if "namespace" in case.path_parameters:
        case.path_parameters["namespace"] = NAMESPACE
    if "name" in case.path_parameters and len(case.path_parameters["name"]) % 2:
        case.path_parameters["name"] = "a"
    query, body = case.query, case.body
    if query.get("watch"):
        query["timeoutSeconds"] = 1
        query["watch"] = "true"
    query.pop("follow", None)
    for option in OPTIONS:
        if option in query and len(str(query)) % 3:
            del query[option]
    if raw.get("x-kubernetes-action") == "patch":
        if isinstance(body, dict):
            case.body = small_change(body)
        return
    if raw.get("x-kubernetes-action") in ("post", "put") and isinstance(body, dict) and kind:
        body = case.body = mixed(EXAMPLES.get(kind["kind"], {}), body)
        body["kind"] = kind["kind"]
        body["apiVersion"] = f"{kind['group']}/{kind['version']}" if kind["group"] else kind["version"]
        metadata = body.setdefault("metadata", {})
        if isinstance(metadata, dict):
            metadata["name"] = case.path_parameters.get("name", "a")
            for field in ("namespace", "resourceVersion", "uid", "finalizers", "deletionTimestamp"):
                metadata.pop(field, None)


def small_change(body: dict[str, Any]) -> dict[str, Any]:
    """One field of a made-up object, as a patch."""
    spec = body.get("spec")
    if isinstance(spec, dict) and spec:
        field = sorted(spec)[len(json.dumps(spec)) % len(spec)]
        return {"spec": {field: spec[field]}}
    fields = sorted(set(body) - {"kind", "apiVersion"})
    return {f: body[f] for f in fields[len(json.dumps(body)) % max(1, len(fields)) :][:1]}


def mixed(example: dict[str, Any], made_up: dict[str, Any]) -> dict[str, Any]:
    """A valid object with one made-up field at each level."""
    out = json.loads(json.dumps(example)) or made_up
    for field in sorted(made_up)[:: max(1, len(made_up))]:
        if field in ("spec", "metadata") and field in example:
            continue
        out[field] = made_up[field]
    spec = made_up.get("spec")
    if isinstance(spec, dict) and isinstance(out.get("spec"), dict) and spec:
        fields = sorted(spec)
        field = fields[len(json.dumps(spec)) % len(fields)]
        out["spec"][field] = spec[field]
    if "metadata" in made_up:
        out["metadata"] = made_up["metadata"]
    return out


def seeded(server: Server) -> None:
    """Makes one object of each kind that has an example, so that there is something to read and to change."""
    account = {"metadata": {"name": "default"}}
    path = f"http://x/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
    server.send(requests.Request("POST", path, json=account).prepare())
    for group in server.server.apis.discovery.groups.values():
        for entries in group.values():
            for entry in entries:
                if {"create", "get"} <= set(entry.verbs):
                    status, content = make(server, entry.kind)
                    # Two versions of one kind are one object.
                    assert status in (201, 409) or entry.kind.kind not in EXAMPLES, content


def make(server: Server, kind: Any) -> tuple[int, bytes]:
    """Creates an object named a, if the kind needs nothing that is not in its example."""
    body = EXAMPLES.get(kind.kind, {}) | {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {"name": "a"}}
    path = kind.path(NAMESPACE if kind.namespaced else "")
    status, _, content = server.send(requests.Request("POST", f"http://x{path}", json=body).prepare())
    return status, content


def validated(case: Any, server: Server) -> None:
    """Sends a case and checks the answer. Raises what schemathesis or we found."""
    request = requests.Request(**case.as_transport_kwargs(base_url="http://x")).prepare()
    began = time.monotonic()
    status, headers, content = server.send(request)
    response = Response(status, headers, content, request, time.monotonic() - began, True)
    checks = CHECKS
    if case.query.get("watch") and status == 200:
        checks = CHECKS[:-1]
        for line in content.splitlines():
            event = json.loads(line)
            assert set(event) == {"type", "object"}, event
            assert event["type"] in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"), event
    case.validate_response(response, checks=checks)


def run(server: Server, operation: Any, examples: int, seed: int) -> None:
    """Tries one operation. Raises the first thing that is found."""

    if operation.path.count("{name}"):
        parts = operation.path.strip("/").split("/")
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        resource = server.server.resources.served.get((group, version, parts[parts.index("{name}") - 1]))
        if resource is not None and "create" in resource.strategy.verbs:
            make(server, resource.kind)  # it may be gone

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, deadline=None, database=None, report_multiple_bugs=False,
        phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operation.as_strategy())
    def one(case: Any) -> None:
        tamed(case, operation)
        validated(case, server)

    one()


def fuzz(
    server: Server, examples: int, seed: int, wanted: Callable[[str], bool] = lambda name: True,
    watches: bool = False, each: Callable[[str], None] = lambda label: None,
) -> Iterator[tuple[str, BaseException]]:  # fmt: skip
    """What is found, with its operation, as it is found."""
    seeded(server)
    for name, document in documents(server):
        if not wanted(name):
            continue
        if not watches:
            for path in document["paths"].values():
                for method, operation in path.items():
                    if method != "parameters":
                        operation["parameters"] = [p for p in operation.get("parameters", ()) if p["name"] != "watch"]
        schema = schemathesis.openapi.from_dict(document)
        for result in schema.get_all_operations():
            operation = result.ok()
            label = f"{operation.method.upper()} {operation.path}"
            each(label)

            try:
                run(server, operation, examples, seed)
            except (Exception, FailureGroup) as error:
                yield label, error


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--watches", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    last = [time.process_time(), ""]

    def each(label: str) -> None:
        now = time.process_time()
        if options.verbose and last[1]:
            print(f"{now - last[0]:.2f}", last[1], flush=True)
        last[:] = [now, label]

    with Server() as server:
        wanted = (lambda name: name in options.names) if options.names else (lambda name: True)
        for label, error in fuzz(server, options.examples, options.seed, wanted, options.watches, each):
            print(f"{label}\n    {type(error).__name__}: {str(error)[:1500]}\n", flush=True)
        print("answers:", ", ".join(f"{m} {c}: {n}" for (m, c), n in sorted(server.statuses.items())))


if __name__ == "__main__":
    main()
