"""Requests that no client sends on purpose: bodies, patches and query parameters with mistakes of every kind."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any, NamedTuple

import orjson

from apiserver.request import User
from navarch.api.kinds import Kind
from tests.apiserver.kinds.support import CATALOG
from tests.fuzz import values
from tests.fuzz.objects import Objects

Tree = dict[str, Any]
TYPES = (
    "application/json",
    "application/yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
    "text/plain",
    "",
    "application/vnd.kubernetes.protobuf",
    "application/x-www-form-urlencoded",
)
PATCHES = TYPES[2:6]
RAW = (
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"5",
    b"{",
    b"[{]",
    b'{"a":}',
    b"NaN",
    b'{"spec": NaN}',
    b'{"spec": Infinity}',
    b"\xff\xfe",
    b"\0",
    b'{"metadata": {"name": "\xff"}}',
    b'{"metadata": {"name": "\\ud800"}}',
    b'{"metadata": {"labels": {"\\udfff": "a"}}}',
    b'{"spec": 1e999}',
    b'{"spec": {"replicas": 99999999999999999999999}}',
    b'{"a": 1, "a": 2}',
    b"[" * 2000,
    b'{"a":' * 300,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b"- a\n- b",
    b"a: [",
    b"a: !!python/object:os.system x",
    b"&a [*a]",
    b"%YAML 1.1",
    b"\xef\xbb\xbf{}",
    b"k8s\0\n\xff\xff",
    b"true",
    b"{}\n{}",
    b'{"metadata": 5}',
    b'{"metadata": {"name": 5}}',
    b'{"metadata": {"managedFields": 5}}',
    b'{"metadata": {"managedFields": [{"fieldsV1": {"f:data": 5}}]}}',
    b'{"kind": 5}',
    b'{"apiVersion": {}}',
    b'{"status": []}',
    b'{"metadata": {"resourceVersion": 5}}',
    b'{"metadata": {"resourceVersion": "x"}}',
    b'{"spec": null, "metadata": null}',
)
NUMBERS = (
    "-1",
    "0",
    "1",
    "99999999999999999999",
    "1e3",
    "1.5",
    "0x10",
    "\u0661",
    "1_000",
    " 1",
    "NaN",
    "inf",
    "-9223372036854775809",
)
WORDS = (
    "",
    "true",
    "x",
    "All",
    "None",
    "Strict",
    "NotOlderThan",
    "Exact",
    "\0",
    "\u00e4",
    "a" * 300,
    "\U0001f600",
    "%",
    "..",
    "=",
    ",",
    "!",
)
SELECTORS = (
    "a=b",
    "a",
    "!a",
    "a in (b,c)",
    "a in (",
    "a>5",
    "a>x",
    "=",
    ",",
    "a==",
    "metadata.name=p",
    "spec.nodeName=",
    "metadata.name!=x",
    "status.phase=Running,",
    "a\\=b=c",
    "a=\\",
    "x.y.z=1",
    "a notin ()",
    "((",
    "a=b,,c",
    "metadata.namespace=\u00e4",
)
TOKENS = (
    "x",
    "e30",
    "e30=",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhXHUwMDAwIn0",
    "AAAA",
    "\u00e4",
    "eyJydiI6ICJ4In0",
)
PARAMETERS: dict[str, tuple[str, ...]] = {
    "limit": NUMBERS,
    "timeoutSeconds": ("0", "1", *NUMBERS[3:]),
    "gracePeriodSeconds": NUMBERS,
    "resourceVersion": (*NUMBERS, *WORDS),
    "resourceVersionMatch": WORDS,
    "continue": TOKENS,
    "labelSelector": SELECTORS,
    "fieldSelector": SELECTORS,
    "allowWatchBookmarks": WORDS,
    "sendInitialEvents": WORDS,
    "pretty": WORDS,
    "dryRun": WORDS,
    "fieldManager": WORDS,
    "fieldValidation": WORDS,
    "force": WORDS,
    "propagationPolicy": WORDS,
    "orphanDependents": WORDS,
    "timeout": ("x", "1s", "-1s", "9" * 30),
    "ignoreStoreReadErrorWithClusterBreakingPotential": WORDS,
    "includeObject": WORDS,
    "exact": WORDS,
    "nosuch": WORDS,
}
ACCEPTS = (
    b"application/json",
    b"application/json;as=Table;v=v1;g=meta.k8s.io",
    b"*/*",
    b"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    b"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    b"application/yaml",
    b"x",
    b"application/json;as=Table;v=v9;g=x",
    b"application/vnd.kubernetes.protobuf",
    b";;,",
    b"\xff",
    b"application/json;q=x",
    b"text/html",
)
SUBRESOURCES: dict[str, tuple[str, ...]] = {
    "pods": ("binding", "eviction", "ephemeralcontainers", "resize", "log", "nosuch"),
    "serviceaccounts": ("token",),
    "namespaces": ("finalize",),
    "certificatesigningrequests": ("approval",),
    **dict.fromkeys(("deployments", "replicasets", "statefulsets", "replicationcontrollers"), ("scale",)),
}
REVIEWS = (
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
    "/apis/authentication.k8s.io/v1/tokenreviews",
    "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews",
    "/api/v1/namespaces/default/bindings",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
)
REVIEW: Tree = {
    "spec": {
        "resourceAttributes": {
            "verb": "get",
            "resource": "pods",
            "namespace": "a",
            "labelSelector": {"rawSelector": "a=b"},
        },
        "user": "u",
        "groups": ["g"],
        "extra": {"a": ["b"]},
        "token": "x",
        "audiences": ["y"],
        "namespace": "a",
    },
    "target": {"name": "n"},
    "metadata": {"name": "p"},
}
USERS = (User("admin", ("system:masters", "system:authenticated")),)


class Sent(NamedTuple):
    """A request as :class:`tests.fuzz.support.Fuzzed` sends it."""

    method: str
    path: str
    body: bytes
    query: str
    content_type: str
    accept: bytes


class Malformed:
    """Makes requests; what they are about is there under the name ``there``."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.objects = Objects(random)
        self.kinds = [strategy.kind for strategy in CATALOG.values()]

    def request(self, kind: Kind | None = None) -> Sent:
        random = self.random
        if kind is None and random.random() < 0.05:
            return Sent(
                "POST", random.choice(REVIEWS), self.body(copy.deepcopy(REVIEW)), "", self._type(TYPES[:2]), ACCEPTS[0]
            )
        kind = kind or random.choice(self.kinds)
        namespace = random.choice(("default",) * 40 + ("", "nosuch", "a/b", "\u00e4", "%2e%2e"))
        name = random.choice(("there",) * 20 + ("", "none", "a b", "..", "\u00e4", "x" * 300))
        parts = ("", "", "", "status", "scale", *SUBRESOURCES.get(kind.resource, ()))
        part = random.choice(parts) if name else ""
        method = random.choice(("GET", "POST", "PUT", "PUT", "PATCH", "PATCH", "PATCH", "DELETE"))
        if method == "POST" and random.random() < 0.8:
            name, part = ("", "") if not SUBRESOURCES.get(kind.resource) or random.random() < 0.5 else (name, part)
        path = "/" + "/".join(filter(None, [kind.path(namespace or None).strip("/"), name, part]))
        body = b""
        kind_of_body = self._type(PATCHES if method == "PATCH" else TYPES[:2])
        if method != "GET":
            tree = self._tree(kind, part, method)
            body = self.body(tree) if kind_of_body != TYPES[2] else self._operations(tree)
            if method == "DELETE" and random.random() < 0.4:
                body = b""
        return Sent(method, path, body, self.query(), kind_of_body, random.choice((ACCEPTS[0],) * 60 + ACCEPTS))

    def _type(self, usual: tuple[str, ...]) -> str:
        return self.random.choice(usual if self.random.random() < 0.9 else TYPES)

    def _tree(self, kind: Kind, part: str, method: str) -> Tree:
        if method == "DELETE":
            return {
                "gracePeriodSeconds": 1,
                "propagationPolicy": "Background",
                "preconditions": {"uid": "x"},
                "dryRun": ["All"],
            }
        if part == "scale":
            return {
                "kind": "Scale",
                "apiVersion": "autoscaling/v1",
                "metadata": {"name": "there"},
                "spec": {"replicas": 1},
            }
        if part in ("binding", "eviction", "token"):
            return {
                "metadata": {"name": "there"},
                "target": {"name": "n"},
                "deleteOptions": {"dryRun": ["All"]},
                "spec": {"audiences": ["a"], "boundObjectRef": {"kind": "Pod", "name": "there"}},
            }
        tree = self.objects.of(kind)
        tree["metadata"]["name"] = "there"
        tree["metadata"]["managedFields"] = [
            {
                "manager": "m",
                "operation": "Update",
                "apiVersion": kind.api_version,
                "fieldsType": "FieldsV1",
                "time": "2024-01-01T00:00:00Z",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}},
            }
        ]
        return tree

    def body(self, tree: Tree) -> bytes:
        """The tree with 1 to 3 mistakes, or something else altogether."""
        random = self.random
        if random.random() < 0.12:
            return random.choice(RAW)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            spots = list(_spots(tree))
            if not spots:
                break
            holder, key = random.choice(spots)
            holder[key] = self._junk(holder[key])
        data = json.dumps(tree).encode()  # deeper than orjson goes
        pick = random.randrange(30)
        if pick == 0:
            return data[: random.randrange(len(data))]
        if pick == 1:
            at = random.randrange(len(data))
            return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        if pick == 2:
            return data.replace(b'"default"', b'"\\ud83d"', 1)
        return data

    def _junk(self, value: Any) -> Any:
        random = self.random
        pick = random.randrange(10)
        if pick == 0:
            return None
        if pick == 1:
            return {"a": value}
        if pick == 2:
            return [value]
        if pick == 3:
            return random.choice((2**63, 2**64 - 1, -(2**63), 10**18, 1.5, 1e300, -0.0, 2**31, 1e-300))
        if pick == 4:
            deep: Any = value
            for _ in range(random.choice((10, 120, 200))):
                deep = {"a": deep} if random.random() < 0.5 else [deep]
            return deep
        if pick == 5:
            return random.choice(values.TEXTS)
        if pick == 6:
            return not value
        return values.json(random)

    def _operations(self, tree: Tree) -> bytes:
        random = self.random
        if random.random() < 0.15:
            return random.choice(RAW)
        out: list[Any] = []
        for _ in range(random.randrange(3)):
            path = random.choice(
                (
                    "/spec",
                    "/metadata",
                    "",
                    "/",
                    "/metadata/labels/a~1b",
                    "/metadata/managedFields/0/fieldsV1",
                    "x",
                    "/~2",
                    "/metadata/name",
                    "/metadata/labels",
                    "/spec/template/spec/containers/0",
                    "/spec/-",
                    "/status",
                    "/kind",
                )
            )
            operation: Any = {
                "op": random.choice(("add", "remove", "replace", "move", "copy", "test", "", "no")),
                "path": path,
                "value": values.json(random),
                "from": random.choice(("/spec", "/metadata", "", 5)),
            }
            if random.random() < 0.2:
                operation = random.choice((5, None, [], "x", {}))
            elif random.random() < 0.2:
                operation[random.choice(("op", "path", "from"))] = values.json(random)
            out.append(operation)
        return orjson.dumps(out)

    def query(self) -> str:
        from urllib.parse import quote

        random = self.random
        if random.random() < 0.4:
            return "fieldManager=m" if random.random() < 0.5 else ""
        names = random.sample(list(PARAMETERS), random.choice((1, 1, 2, 3)))
        pairs = [f"{name}={quote(random.choice(PARAMETERS[name]))}" for name in names]
        if random.random() < 0.05:
            pairs += [random.choice(("%", "%zz", "&&", "=", "a=%ff", "watch", "fieldManager=%00"))]
        if "PATCH" and random.random() < 0.5 and "fieldManager" not in names:
            pairs.append("fieldManager=m")
        return "&".join(pairs)


def _spots(value: Any) -> Any:
    """Every (container, key) inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _spots(inner)
