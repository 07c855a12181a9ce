"""Bodies as Go clients send them: the envelope, embedded types, zeros, maps, quantities, times."""

from __future__ import annotations

from datetime import datetime

import pytest

from apiserver.http import protobuf
from navarch.api import times
from navarch.api.errors import BadRequest
from navarch.api.kinds import BY_GVK
from navarch.api.schema import schema_of
from tests.apiserver.crd.support import CRDS, PATH, crontabs
from tests.apiserver.registry.widget import Caller


def number(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(at: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return number(at << 3) + number(value)
    data = value.encode() if isinstance(value, str) else value
    return number(at << 3 | 2) + number(len(data)) + data


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return protobuf.MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


def decode(group: str, kind: str, raw: bytes) -> dict[str, object]:
    found = BY_GVK[group, "v1", kind]
    data = envelope(found.api_version, kind, raw)
    return protobuf.decode(data, protobuf.type_name(found), schema_of(found.type))


def test_pod() -> None:
    metadata = field(1, "p") + field(2, "") + field(8, b"") + field(11, field(1, "app") + field(2, "web"))
    limits = field(1, field(1, "cpu") + field(2, field(1, "100m")))
    port = field(3, 8080) + field(4, "TCP")
    probe_action = field(2, field(2, field(1, 1) + field(2, 0) + field(3, "http")))
    container = field(1, "c") + field(2, "nginx") + field(6, port) + field(8, limits)
    container += field(10, field(1, probe_action) + field(2, 0))
    volume = field(1, "v") + field(2, field(19, field(1, field(1, "cm"))))
    spec = field(1, volume) + field(2, container) + field(3, "") + field(4, 0) + field(11, 0)
    tree = decode("", "Pod", field(1, metadata) + field(2, spec) + field(3, b""))
    assert tree == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {"app": "web"}},
        "spec": {
            "volumes": [{"name": "v", "configMap": {"name": "cm"}}],
            "containers": [
                {
                    "name": "c",
                    "image": "nginx",
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"port": "http"}},
                }
            ],
            # A pointer's zero is kept: it means "none", not "the default".
            "terminationGracePeriodSeconds": 0,
        },
        "status": {},
    }


def test_bytes_and_times() -> None:
    secret = field(1, field(1, "s") + field(9, field(1, 86400))) + field(2, field(1, "k") + field(2, b"\x00\xff"))
    tree = decode("", "Secret", secret)
    assert tree["data"] == {"k": "AP8="}
    assert tree["metadata"] == {"name": "s", "deletionTimestamp": "1970-01-02T00:00:00Z"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-62135596798, "0001-01-01T00:00:02.000000Z"), (-30610224000, "1000-01-01T00:00:00.000000Z"),
        (253402300799, "9999-12-31T23:59:59.000000Z"), (253402300800, None), (-62135596801, None), (1 << 62, None),
    ],
)  # fmt: skip
def test_the_years_that_a_time_has(seconds: int, text: str | None) -> None:
    """Go's own zero is in the year 1: upstream's suite writes a Lease of two seconds later."""
    lease = field(1, field(1, "l")) + field(2, field(3, field(1, seconds % (1 << 64))))
    if text is None:
        with pytest.raises(BadRequest):
            decode("coordination.k8s.io", "Lease", lease)
        return
    assert decode("coordination.k8s.io", "Lease", lease)["spec"] == {"acquireTime": text}
    assert times.text_of(datetime.fromisoformat(text), micro=True) == text
    assert times.format_time(seconds) == text[:19] + "Z"


@pytest.mark.parametrize("data", [b"", b"k8s", b"k8s\0\xff", b"k8s\0" + field(2, b"\x0a\x7f")])
def test_nonsense(data: bytes) -> None:
    pod = BY_GVK["", "v1", "Pod"]
    try:
        tree = protobuf.decode(data, "core/v1.Pod", schema_of(pod.type))
    except BadRequest:
        return
    assert tree["kind"] == ""


BODIES = "application/json, application/yaml, application/vnd.kubernetes.protobuf"


async def test_what_is_not_spoken_is_refused_cleanly(call: Caller) -> None:
    assert (await call("POST", CRDS, crontabs())).code == 201
    while ("stable.example.com", "v1", "crontabs") not in call.server.resources.served:
        await call.server.world.sleep(0.005)
    maps = "/api/v1/namespaces/default/configmaps"
    data = envelope("v1", "ConfigMap", field(1, field(1, "a")))
    assert (await call("POST", maps, data, protobuf.MEDIA_TYPE)).code == 201
    for method, path, kind, accepted in (
        ("POST", PATH, protobuf.MEDIA_TYPE, "application/json, application/yaml"),
        ("POST", maps, "application/cbor", BODIES), ("DELETE", maps + "/a", "application/cbor", BODIES),
        ("PATCH", maps + "/a", "application/apply-patch+cbor", "application/json-patch+json, application/merge-patch+json, "
         "application/strategic-merge-patch+json, application/apply-patch+yaml"),
    ):  # fmt: skip
        answer = await call(method, path, data, kind)
        assert (answer.code, answer.tree["reason"]) == (415, "UnsupportedMediaType"), (path, answer.tree)
        assert answer.tree["message"].endswith(f"accepted media types include: {accepted}")
    for accept in (protobuf.MEDIA_TYPE, "application/cbor", f"{protobuf.MEDIA_TYPE};stream=watch"):
        answer = await call("GET", maps, accept=accept)
        assert (answer.code, answer.tree["reason"]) == (406, "NotAcceptable")
        assert answer.headers["content-type"] == "application/json"
    answer = await call("GET", maps, accept=f"{protobuf.MEDIA_TYPE}, application/json")
    assert answer.code == 200 and answer.headers["content-type"] == "application/json"
