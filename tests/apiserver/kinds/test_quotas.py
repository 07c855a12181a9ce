"""ResourceQuota, LimitRanger, default classes, certificate approval: as a client meets them."""

from __future__ import annotations

import asyncio
from typing import Any

from navarch.api import quota
from tests.apiserver.kinds.served import Asker
from tests.apiserver.kinds.test_kinds import REQUEST
from tests.apiserver.kinds.test_served import JANE, NS, POD, account, create, on_server

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


def pod(name: str, **resources: Any) -> dict[str, Any]:
    containers = [{"name": "a", "image": "i", "resources": resources}]
    return POD | {"metadata": {"name": name}, "spec": {"containers": containers}}


async def new_quota(ask: Asker, hard: str, used: dict[str, str]) -> None:
    """A quota that the controller has counted for."""
    await create(ask, f"{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: q}}, spec: {{hard: {hard}}}}}")
    status = {"status": {"hard": used, "used": used}}
    await ask("PATCH", f"{NS}/resourcequotas/q/status", status)
    await ask("GET", f"{NS}/resourcequotas/q")  # waits until the cache knows


async def used(ask: Asker) -> dict[str, str]:
    found: dict[str, str] = (await ask("GET", f"{NS}/resourcequotas/q"))["status"]["used"]
    return found


def test_quota_is_exact_under_a_race() -> None:
    async def body(ask: Asker) -> None:
        await account(ask)
        await new_quota(ask, "{pods: 10, requests.cpu: 5}", {"pods": "0", "requests.cpu": "0"})

        async def one(i: int) -> bool:
            try:
                await ask("POST", f"{NS}/pods", pod(f"p{i}", requests={"cpu": "600m"}))
            except AssertionError as error:
                assert "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=4800m, limited: requests.cpu=5" in str(error)  # noqa: E501
                return False
            return True

        made = await asyncio.gather(*[one(i) for i in range(64)])
        assert sum(made) == 8 == len((await ask("GET", f"{NS}/pods"))["items"])
        assert await used(ask) == {"pods": "8", "requests.cpu": "4800m"}
        # What fails for another reason gives its share back; dry runs take none.
        first = f"p{made.index(True)}"
        await ask("POST", f"{NS}/pods", pod(first, requests={"cpu": "1m"}), code=409)
        await ask("POST", f"{NS}/pods", pod("dry", requests={"cpu": "1m"}), query="dryRun=All")
        assert await used(ask) == {"pods": "8", "requests.cpu": "4800m"}
        silent = await ask("POST", f"{NS}/pods", pod("x"), code=403)
        assert silent["message"] == 'pods "x" is forbidden: failed quota: q: must specify requests.cpu for: a'
        # Finished pods use nothing, and neither do those that are gone.
        await ask("PATCH", f"{NS}/pods/{first}/status", {"status": {"phase": "Succeeded"}})
        assert await used(ask) == {"pods": "7", "requests.cpu": "4200m"}
        for item in (await ask("GET", f"{NS}/pods"))["items"]:
            await ask("DELETE", f"{NS}/pods/{item['metadata']['name']}", {"gracePeriodSeconds": 0})
        assert await used(ask) == {"pods": "0", "requests.cpu": "0"}

    on_server(body)


async def test_quota_counts_objects_and_ports(ask: Asker) -> None:
    await new_quota(
        ask, "{count/configmaps: 1, services.nodeports: 2}", {"count/configmaps": "0", "services.nodeports": "0"}
    )
    config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: %s}}"
    await create(ask, config % "a")
    refused = await create(ask, config % "b", code=403)
    assert refused["message"] == (
        'configmaps "b" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, '
        "limited: count/configmaps=1"
    )
    await create(ask, "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}")
    await ask("PATCH", f"{NS}/services/s", {"spec": {"type": "NodePort"}})
    assert await used(ask) == {"count/configmaps": "1", "services.nodeports": "1"}
    await ask("PATCH", f"{NS}/services/s", {"spec": {"type": "ClusterIP"}})
    assert (await used(ask))["services.nodeports"] == "0"


async def test_limits(ask: Asker) -> None:
    await account(ask)
    text = """{apiVersion: v1, kind: LimitRange, metadata: {name: l}, spec: {limits: [
          {type: Container, default: {cpu: 500m}, defaultRequest: {cpu: 100m}, max: {cpu: 1}},
          {type: PersistentVolumeClaim, max: {storage: 1Gi}}]}}"""
    await create(ask, text)
    await ask("GET", f"{NS}/limitranges/l")
    made = await ask("POST", f"{NS}/pods", pod("p"))
    assert made["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu request for container a; cpu limit for container a"
    )
    big = await ask("POST", f"{NS}/pods", pod("q", limits={"cpu": "2"}), code=403)
    assert big["message"] == 'pods "q" is forbidden: maximum cpu usage per Container is 1, but limit is 2'
    claim = """{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: c}, spec: {accessModes: [ReadWriteOnce],
          resources: {requests: {storage: 2Gi}}}}"""
    over = await create(ask, claim, code=403)
    assert "maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi" in over["message"]


async def test_default_classes(ask: Asker) -> None:
    mark = {"storageclass.kubernetes.io/is-default-class": "true"}
    storage = {"metadata": {"name": "s", "annotations": mark}, "provisioner": "a.b/c"}
    await ask("POST", "/apis/storage.k8s.io/v1/storageclasses", storage)
    mark = {"ingressclass.kubernetes.io/is-default-class": "true"}
    ingress = {"metadata": {"name": "i", "annotations": mark}, "spec": {"controller": "a.b/c"}}
    await ask("POST", "/apis/networking.k8s.io/v1/ingressclasses", ingress)
    await ask("GET", "/apis/networking.k8s.io/v1/ingressclasses/i")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    made = await ask("POST", f"{NS}/persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": claim})
    assert made["spec"]["storageClassName"] == "s"
    backend = {"service": {"name": "a", "port": {"number": 80}}}
    path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
    made = await ask("POST", path, {"metadata": {"name": "c"}, "spec": {"defaultBackend": backend}})
    assert made["spec"]["ingressClassName"] == "i"


async def test_certificates_are_approved_by_who_may(ask: Asker) -> None:
    spec = {"request": REQUEST, "signerName": "a.b/c", "usages": ["client auth"], "username": "root"}
    made = await ask("POST", CSRS, {"metadata": {"name": "r"}, "spec": spec})
    assert made["spec"]["username"] == "system:apiserver"
    made["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "R", "message": "m"}]}
    kept = await ask("PUT", f"{CSRS}/r/status", made)
    assert "conditions" not in (kept.get("status") or {})
    del made["metadata"]["resourceVersion"]
    role = {"metadata": {"name": "a"}, "rules": [{"apiGroups": ["certificates.k8s.io"], "verbs": ["update"],
            "resources": ["certificatesigningrequests/approval"]}]}  # fmt: skip
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    await ask("POST", f"{rbac}/clusterroles", role)
    await ask("POST", f"{rbac}/clusterrolebindings", {"metadata": {"name": "a"}, "roleRef": {
        "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "a"},
        "subjects": [{"kind": "User", "name": "jane"}]})  # fmt: skip
    await ask("GET", f"{rbac}/clusterrolebindings/a")
    refused = await ask("PUT", f"{CSRS}/r/approval", made, user=JANE, code=403)
    assert 'user not permitted to approve requests with signerName "a.b/c"' in refused["message"]
    done = await ask("PUT", f"{CSRS}/r/approval", made)
    assert done["status"]["conditions"][0]["type"] == "Approved" and done["status"]["conditions"][0]["lastUpdateTime"]


def test_usage_of_a_pod() -> None:
    obj = pod("p", requests={"cpu": "1", "memory": "1Gi"}, limits={"cpu": "2"})
    found = quota.written(quota.usage("", "pods", obj))
    assert found == {
        "count/pods": "1", "cpu": "1", "limits.cpu": "2", "memory": "1Gi", "pods": "1", "requests.cpu": "1",
        "requests.memory": "1Gi",
    }  # fmt: skip
    assert quota.applies({"scopes": ["NotBestEffort", "NotTerminating"]}, "", "pods", obj)
    assert not quota.applies({"scopes": ["BestEffort"]}, "", "pods", obj)
    obj["status"] = {"phase": "Failed"}
    assert quota.usage("", "pods", obj) == {"count/pods": 10**9}
