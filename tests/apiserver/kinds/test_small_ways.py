"""Small ways to the store: scale by patch and apply, evictions and bindings, dry runs asked for in odd ways, huge integers."""

from __future__ import annotations

import asyncio
import json

import pytest

from apiserver.http.forwarding import Forwarder
from apiserver.wire.asgi import Request
from tests.apiserver.kinds.served import Asker, served

NS = "/api/v1/namespaces/default/"
APPS = "/apis/apps/v1/namespaces/default/deployments"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
THINGS = "/apis/x.io/v1/namespaces/default/things"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
OPEN = {"x-kubernetes-preserve-unknown-fields": True}
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
DEPLOYMENT = {
    "metadata": {"name": "d"},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
}
SCALE = {"apiVersion": "autoscaling/v1", "kind": "Scale"}


async def things(ask: Asker) -> None:
    """Serves a kind whose replicas may be anything."""
    schema = {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"n": OPEN, "i": {"type": "integer"}}}, "status": {"type": "object", **OPEN},
    }}  # fmt: skip
    scale = {
        "specReplicasPath": ".spec.n.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.sel",
    }
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}, "scale": scale}}  # fmt: skip
    names = {"plural": "things", "kind": "Thing"}
    spec = {"group": "x.io", "scope": "Namespaced", "names": names, "versions": [version]}
    await ask("POST", CRDS, {"metadata": {"name": "things.x.io"}, "spec": spec})
    async with asyncio.timeout(10):
        while ("x.io", "v1", "things") not in ask.server.resources.served:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("field", [{"resourceVersion": "1"}, {"uid": "another"}])
@pytest.mark.parametrize("type", [MERGE, APPLY])
def test_a_patched_scale_keeps_its_preconditions(field, type):
    async def main() -> None:
        async with served() as ask:
            await ask("POST", APPS, DEPLOYMENT)
            body = {**SCALE, "metadata": {"name": "d", **field}, "spec": {"replicas": 3}}
            query = "fieldManager=x&force=true" if type == APPLY else ""
            await ask("PATCH", APPS + "/d/scale", body, type=type, query=query, code=409)
            assert (await ask("GET", APPS + "/d"))["spec"]["replicas"] == 1
            for wrong in ({"name": "e"}, {"namespace": "other"}):
                await ask("PATCH", APPS + "/d/scale", {"metadata": wrong, "spec": {"replicas": 3}}, code=400)

    asyncio.run(main())


def test_evictions_and_bindings_are_of_their_namespace_and_dry_runs_stay_dry():
    async def main() -> None:
        async with served() as ask:
            await ask("POST", NS + "serviceaccounts", {"metadata": {"name": "default"}})
            await ask("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
            await ask("POST", NS + "pods", POD)
            binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
            eviction = {"metadata": {"name": "p"}}
            for part, body in (("binding", binding), ("eviction", eviction)):
                elsewhere = body | {"metadata": {"name": "p", "namespace": "other"}}
                await ask("POST", f"{NS}pods/p/{part}", elsewhere, code=400)
                for query in ("dryRun=&dryRun=All", "dryRun=", "dryRun=All&dryRun=some"):
                    await ask("POST", f"{NS}pods/p/{part}", body, query=query, code=422)
            await ask("POST", f"{NS}pods/p/eviction", eviction | {"deleteOptions": {"dryRun": ["all"]}}, code=422)
            await ask("POST", f"{NS}pods/p/eviction", eviction | {"deleteOptions": {"dryRun": ["All"]}})
            assert "nodeName" not in (await ask("GET", NS + "pods/p"))["spec"]

    asyncio.run(main())


def test_integers_of_any_size_in_custom_resources():
    async def main() -> None:
        async with served() as ask:
            await things(ask)
            await ask(
                "POST",
                THINGS,
                {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"i": 2.0}},
            )
            for number in (10**20, -(10**20), 2.0**53 + 2, 1e300):
                thing = {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "u"}, "spec": {"i": number}}
                await ask("POST", THINGS, thing, code=422)
                version = (await ask("GET", THINGS + "/t"))["metadata"]["resourceVersion"]
                thing["metadata"] = {"name": "t", "resourceVersion": version}
                await ask("PUT", THINGS + "/t", thing, code=422)
                await ask("PATCH", THINGS + "/t", {"spec": {"i": number}}, code=422)
            thing = await ask("GET", THINGS + "/t")
            assert json.dumps(thing["spec"]) == '{"i": 2}'

    asyncio.run(main())


def test_the_scale_of_a_custom_resource_with_odd_values_is_an_error_with_its_path():
    async def main() -> None:
        async with served() as ask:
            await things(ask)
            thing = {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": {"n": 5}}
            await ask("POST", THINGS, thing)
            scale = {"metadata": {"name": "t", "namespace": "default"}, "spec": {"replicas": 2}}
            assert ".spec.n.replicas" in (await ask("PUT", THINGS + "/t/scale", scale, code=500))["message"]
            missing = 'the spec replicas field ".spec.n.replicas" does not exist'
            assert missing in (await ask("GET", THINGS + "/t/scale", code=500))["message"]
            await ask("PATCH", THINGS + "/t", {"spec": {"n": {"replicas": 1}}})
            for status in ({"replicas": "x"}, {"replicas": 1.5}, {"replicas": True}, {"sel": {"a": "b"}}):
                await ask("PATCH", THINGS + "/t/status", {"status": {"replicas": None, "sel": None, **status}})
                assert ".status." in (await ask("GET", THINGS + "/t/scale", code=500))["message"], status

    asyncio.run(main())


def test_who_may_watch_may_not_open_streams():
    async def main() -> None:
        async with served() as ask:
            await ask("POST", NS + "serviceaccounts", {"metadata": {"name": "default"}})
            await ask("POST", NS + "pods", POD)
            for part in ("exec", "attach", "portforward", "proxy/x", "log"):
                for method in ("GET", "POST", "DELETE"):
                    path = f"/api/v1/watch/namespaces/default/pods/p/{part}"
                    await ask(method, path, query="command=id", code=404)

    asyncio.run(main())


def test_a_path_begins_no_headers_at_the_backend():
    path = "/apis/x/v1/a\r\nX-Remote-Group: system:masters/\u20ac"
    scope = {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"h")]}
    headers = dict(Forwarder._headers(Request(None, scope, None, None), ()))
    assert headers["X-Forwarded-Uri"] == "/apis/x/v1/a%0D%0AX-Remote-Group:%20system:masters/%E2%82%AC"


def test_the_annotation_of_a_mirror_pod_stays_as_it_was_created():
    async def main() -> None:
        async with served() as ask:
            await ask("POST", NS + "serviceaccounts", {"metadata": {"name": "default"}})
            await ask("POST", NS + "pods", POD)
            annotations = {"kubernetes.io/config.mirror": "x"}
            await ask("POST", NS + "pods", {"metadata": {"name": "m", "annotations": annotations}, "spec": POD["spec"]})
            for path, value in (("p", "x"), ("m", "y"), ("m", None)):
                for part in ("", "/status"):
                    patch = {"metadata": {"annotations": {"kubernetes.io/config.mirror": value}}}
                    refused = await ask("PATCH", f"{NS}pods/{path}{part}", patch, code=422)
                    assert "mirror pod annotation" in refused["message"]
            await ask("PATCH", NS + "pods/m", {"metadata": {"annotations": {"another": "z"}}})

    asyncio.run(main())


@pytest.mark.parametrize(("method", "type"), [("PUT", "application/json"), ("PATCH", MERGE), ("PATCH", APPLY)])
def test_fields_of_a_scale_are_validated_as_asked(method, type):
    async def main() -> None:
        async with served() as ask:
            await ask("POST", APPS, DEPLOYMENT)
            body = {**SCALE, "metadata": {"name": "d"}, "spec": {"replicas": 3, "nonsense": 1}}
            query = "fieldManager=x&force=true&" if type == APPLY else ""
            code = 422 if type == MERGE else 400
            path = APPS + "/d/scale"
            refused = await ask(method, path, body, type=type, query=query + "fieldValidation=Strict", code=code)
            assert 'unknown field "spec.nonsense"' in refused["message"]
            assert (await ask("GET", APPS + "/d"))["spec"]["replicas"] == 1
            scale = await ask(method, path, body, type=type, query=query + "fieldValidation=Ignore")
            assert scale["spec"] == {"replicas": 3}

    asyncio.run(main())
