"""LimitRanger's arithmetic and words; what a ResourceQuota must be there for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from navarch.api import quota
from tests.apiserver.admission.support import Server, Tree, namespace, running
from tests.within import Within

PODS = "/api/v1/namespaces/n/pods"
CLAIMS = "/api/v1/namespaces/n/persistentvolumeclaims"


def container(name: str, requests: Tree | None = None, limits: Tree | None = None, **more: Any) -> Tree:
    return {"name": name, "image": "i", "resources": {"requests": requests or {}, "limits": limits or {}}} | more


def pod(name: str, *containers: Tree, **spec: Any) -> Tree:
    return {"metadata": {"name": name}, "spec": {"containers": list(containers)} | spec}


async def limited(server: Server, *limits: Tree, name: str = "l") -> None:
    body = {"metadata": {"name": name}, "spec": {"limits": list(limits)}}
    await server.ok("POST", "/api/v1/namespaces/n/limitranges", body)
    await server.server.cache.current()


async def test_defaults(server: Server) -> None:
    await namespace(server, "n", {})
    default = {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m"}}
    await limited(server, default)
    made = await server.ok("POST", PODS, pod("p", container("a"), initContainers=[container("i", {"cpu": "1"})]))
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; "
        "memory request for init container i; cpu, memory limit for init container i"
    )
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"},
    }  # fmt: skip


async def test_bounds(server: Server) -> None:
    await namespace(server, "n", {})
    await limited(
        server,
        {"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "4"}},
        {"type": "Pod", "max": {"memory": "1Gi"}},
    )
    memory = {"memory": "1Gi"}
    for bad, expected in (
        (pod("p", container("a", {"cpu": "50m"}, {"cpu": "100m"} | memory)),
         "minimum cpu usage per Container is 100m, but request is 50m"),
        (pod("p", container("a", {"cpu": "2"}, {"cpu": "3"} | memory)),
         "maximum cpu usage per Container is 2, but limit is 3"),
        (pod("p", container("a", {"cpu": "200m"}, {"cpu": "1"} | memory)),
         "cpu max limit to request ratio per Container is 4, but provided ratio is 5.000000"),
        (pod("p", container("a", {"cpu": "1"}, {"cpu": "1"})),
         "maximum memory usage per Pod is 1Gi.  No limit is specified"),
        (pod("p", container("a", {"cpu": "1"}, {"cpu": "1"} | memory),
             initContainers=[container("s", {"cpu": "1"}, {"cpu": "1", "memory": "1Mi"}, restartPolicy="Always")]),
         "maximum memory usage per Pod is 1Gi, but limit is 1025Mi"),
    ):  # fmt: skip
        refused = await server("POST", PODS, bad)
        assert (refused.code, refused.message) == (403, f'pods "p" is forbidden: {expected}')
    # The same text is said once, whoever is at fault.
    wrong = container("a", {"cpu": "1m"}, {"cpu": "1m", "memory": "1Mi"})
    refused = await server("POST", PODS, pod("p", wrong, wrong | {"name": "b"}))
    assert refused.message.endswith("is forbidden: minimum cpu usage per Container is 100m, but request is 1m")
    # An init container that ends before the others is no sum with them.
    init = container("i", {"cpu": "1"}, {"cpu": "1"} | memory)
    await server.ok(
        "POST", PODS, pod("p", container("a", {"cpu": "1"}, {"cpu": "1"} | memory), initContainers=[init])
    )


def test_claims() -> None:
    async def test(server: Server) -> None:
        await namespace(server, "n", {})
        await limited(server, {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}})

        def claim(size: str) -> Tree:
            return {
                "metadata": {"name": "c"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
            }

        refused = await server("POST", CLAIMS, claim("3Gi"))
        why = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
        assert refused.message == f'persistentvolumeclaims "c" is forbidden: {why}'
        refused = await server("POST", CLAIMS, claim("1Mi"))
        assert refused.message.endswith("minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi")
        await server.ok("POST", CLAIMS, claim("2Gi"))

    running(test)


LIMITED_RESOURCES = """
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - resource: pods
      matchScopes: [{scopeName: PriorityClass, operator: In, values: [gold]}]
    - resource: persistentvolumeclaims
      matchContains: [fast.storageclass.storage.k8s.io/requests.storage]
"""


@pytest.fixture
def limiting(tmp_path: Path) -> Within:
    """A server on which some pods and claims need a quota, with the priority class gold."""
    file = tmp_path / "admission.yaml"
    file.write_text(LIMITED_RESOURCES)

    def run(test: Callable[[Server], Awaitable[None]]) -> None:
        async def main(server: Server) -> None:
            await namespace(server, "n", {})
            gold = {"metadata": {"name": "gold"}, "value": 1}
            await server.ok("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", gold)
            await server.server.cache.current()
            await test(server)

        running(main, admission_control_config_file=str(file))

    return Within(run)


async def test_limited_pods(limiting: Server) -> None:
    server = limiting
    refused = await server("POST", PODS, pod("p", container("a"), priorityClassName="gold"))
    assert refused.message == (
        'pods "p" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [gold]}]'
    )
    await server.ok("POST", PODS, pod("p", container("a")))
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["gold"]}]}
    made = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopeSelector": selector}}
    await server.ok("POST", "/api/v1/namespaces/n/resourcequotas", made)
    status = {"status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}}
    await server.ok("PATCH", "/api/v1/namespaces/n/resourcequotas/q/status", status)
    await server.server.cache.current()
    await server.ok("POST", PODS, pod("q", container("a"), priorityClassName="gold"))
    refused = await server("POST", PODS, pod("r", container("a"), priorityClassName="gold"))
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in refused.message


async def test_limited_claims(limiting: Server) -> None:
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "fast",
    }
    refused = await limiting("POST", CLAIMS, {"metadata": {"name": "c"}, "spec": spec})
    assert refused.message == (
        'persistentvolumeclaims "c" is forbidden: insufficient quota to consume: '
        "fast.storageclass.storage.k8s.io/requests.storage"
    )


def test_only_cpu_and_memory_must_be_said() -> None:
    silent = pod("p", container("a"))
    assert quota.missing({"requests.ephemeral-storage": "1", "limits.cpu": "1"}, silent) == "limits.cpu for: a"
