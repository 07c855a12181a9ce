"""pods/resize: what may change, and what counts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.crd.support import JSON_PATCH, MERGE, STRATEGIC, Caller, serving
from tests.within import Within


@pytest.fixture
def call() -> Within:
    return Within(serving)

Tree = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"


def container(name: str, **more: Any) -> Tree:
    amounts = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    return {"name": name, "image": "i", "resources": amounts} | more


async def pod(call: Caller, **spec: Any) -> None:
    await call.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await call.ok(
        "POST", PODS, {"metadata": {"name": "p"}, "spec": {"containers": [container("a"), container("b")]} | spec}
    )


async def resize(call: Caller, body: Any, kind: str = STRATEGIC) -> Any:
    return await call("PATCH", f"{PODS}/p/resize", body, kind)


def of(name: str, **resources: Any) -> Tree:
    return {"spec": {"containers": [{"name": name, "resources": resources}]}}


async def test_what_may_change(call: Caller) -> None:
    await pod(call)
    done = await resize(call, of("a", requests={"cpu": "150m"}, limits={"memory": "128Mi"}))
    assert done.code == 200 and done.tree["metadata"]["generation"] == 2
    first = done.tree["spec"]["containers"][0]["resources"]
    assert first == {"requests": {"cpu": "150m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}
    assert (await call.ok("GET", f"{PODS}/p/resize"))["kind"] == "Pod"
    for body, kind, words in (
        ({"spec": {"containers": [{"name": "a", "image": "j"}]}}, STRATEGIC,
         "spec: Forbidden: only cpu and memory resources are mutable"),
        ({"spec": {"activeDeadlineSeconds": 5}}, MERGE, "only cpu and memory resources are mutable"),
        (of("a", requests={"ephemeral-storage": "1Gi"}), STRATEGIC, "only cpu and memory resources are mutable"),
        ([{"op": "remove", "path": "/spec/containers/0/resources/limits/cpu"}], JSON_PATCH,
         "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed"),
        ([{"op": "remove", "path": "/spec/containers/1"}], JSON_PATCH, "only cpu and memory resources are mutable"),
        (of("a", requests={"cpu": "300m"}), STRATEGIC, "must be less than or equal to cpu limit"),
    ):  # fmt: skip
        refused = await resize(call, body, kind)
        assert refused.code == 422 and words in refused.message, refused.message
    both = {"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}
    body = {"spec": {"containers": [{"name": n, "resources": both} for n in ("a", "b")]}}
    refused = await resize(call, body)
    assert 'spec: Invalid value: "Guaranteed": Pod QOS Class may not change' in refused.message
    # The main resource still takes no resources.
    refused = await call("PATCH", f"{PODS}/p", of("a", limits={"cpu": "1"}), STRATEGIC)
    assert refused.code == 422


async def test_nodes_must_support_it(call: Caller) -> None:
    await pod(call)
    one = {"name": "a", "image": "i", "imageID": "", "ready": True, "restartCount": 0, "state": {"running": {}}}
    await call.ok("PATCH", f"{PODS}/p/status", {"status": {"containerStatuses": [one]}}, MERGE)
    refused = await resize(call, of("a", limits={"cpu": "1"}))
    assert refused.code == 422 and "Pod running on node without support for resize" in refused.message
    await call.ok("PATCH", f"{PODS}/p/status", {"status": {"containerStatuses": [one | {"resources": {}}]}}, MERGE)
    assert (await resize(call, of("a", limits={"cpu": "1"}))).code == 200


async def test_limit_ranges_and_quotas_count(call: Caller) -> None:
    await pod(call)
    limits = [{"type": "Container", "max": {"memory": "100Mi"}}]
    await call.ok(
        "POST", "/api/v1/namespaces/default/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": limits}}
    )
    await call.ok("GET", "/api/v1/limitranges")  # the cache has it
    refused = await resize(call, of("a", limits={"memory": "128Mi"}))
    assert refused.code == 403 and "maximum memory usage per Container is 100Mi" in refused.message
    await call.ok("DELETE", "/api/v1/namespaces/default/limitranges/l")
    quotas = "/api/v1/namespaces/default/resourcequotas"
    await call.ok("POST", quotas, {"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": "500m"}}})
    used = {"status": {"hard": {"limits.cpu": "500m"}, "used": {"limits.cpu": "400m"}}}
    await call.ok("PATCH", f"{quotas}/q/status", used, MERGE)
    await call.ok("GET", f"{quotas}/q")
    refused = await resize(call, of("a", limits={"cpu": "400m"}))
    assert refused.code == 403 and "exceeded quota: q" in refused.message, refused.message
    assert (await resize(call, of("a", limits={"cpu": "300m"}))).code == 200
    assert (await call.ok("GET", f"{quotas}/q"))["status"]["used"] == {"limits.cpu": "500m"}


def test_resize_policies() -> None:
    async def test(call: Caller) -> None:
        await call.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        def policy(resource: str, restart: str) -> Tree:
            return {"resourceName": resource, "restartPolicy": restart}

        for policies, restart, words in (
            ([policy("disk", "NotRequired")], "Always", 'Unsupported value: "disk": supported values: "cpu", "memory"'),
            ([policy("cpu", "Maybe")], "Always", 'supported values: "NotRequired", "RestartContainer"'),
            ([policy("cpu", "RestartContainer")], "Never", "must be 'NotRequired' when `restartPolicy` is 'Never'"),
            ([policy("cpu", "NotRequired")] * 2, "Always", 'Duplicate value: "cpu"'),
        ):
            spec = {"containers": [container("a", resizePolicy=policies)], "restartPolicy": restart}
            refused = await call("POST", PODS, {"metadata": {"name": "p"}, "spec": spec})
            assert refused.code == 422 and words in refused.message, refused.message

    serving(test)
