"""The objects of `up --custom-metrics`: APIServices that lead to the adapter (controllers/custommetrics), and rights.

The adapter is a process beside the API server, on loopback. So its Service is one of type ExternalName: nobody else has to
reach it, and a lab without real nodes has no other address.
"""

from __future__ import annotations

import base64
from typing import Any

import orjson

from lab.apiclient import Api
from lab.components import ADAPTER_SERVICE, ADAPTER_USER
from lab.paths import LabError

SERVICES = "/api/v1/namespaces/kube-system/services"
APISERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
VERSIONS = (("custom.metrics.k8s.io", "v1beta2", 200), ("custom.metrics.k8s.io", "v1beta1", 100),
            ("external.metrics.k8s.io", "v1beta1", 100))  # fmt: skip
READ = ["get", "list", "watch"]
RBAC = "rbac.authorization.k8s.io"


def apiservices(port: int, authority: bytes) -> list[dict[str, Any]]:
    """``authority``: PEM of the CA that signed the adapter's certificate."""
    reference = {"name": ADAPTER_SERVICE, "namespace": "kube-system", "port": port}
    return [
        {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": f"{version}.{group}"},
            "spec": {
                "group": group, "version": version, "service": reference, "caBundle": base64.b64encode(authority).decode(),
                "groupPriorityMinimum": 100, "versionPriority": priority,
            },
        }
        for group, version, priority in VERSIONS
    ]  # fmt: skip


def rights() -> list[tuple[str, dict[str, Any]]]:
    """The adapter's own, and, as other adapters bring them, those of Kubernetes' autoscaler to read the metrics."""
    own = [
        {"apiGroups": [""], "resources": ["pods", "services", "namespaces", "nodes", "replicationcontrollers"], "verbs": READ},
        {"apiGroups": ["apps"], "resources": ["daemonsets", "deployments", "replicasets", "statefulsets"], "verbs": READ},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": READ},
    ]
    metrics = [{"apiGroups": ["custom.metrics.k8s.io", "external.metrics.k8s.io"], "resources": ["*"], "verbs": ["*"]}]
    reader = {"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"}
    out: list[tuple[str, dict[str, Any]]] = []
    for name, rules, subject in (
        (ADAPTER_USER, own, {"kind": "User", "apiGroup": RBAC, "name": ADAPTER_USER}),
        ("custom-metrics-server-resources", metrics, reader),
    ):
        head: dict[str, Any] = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": name}}
        role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
        binding = head | {"kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]}
        path = f"/apis/{RBAC}/v1/clusterrole"
        out += [(f"{path}s", head | {"kind": "ClusterRole", "rules": rules}), (f"{path}bindings", binding)]
    return out


def objects(port: int, authority: bytes) -> list[tuple[str, dict[str, Any]]]:
    """(path of the collection, object) pairs."""
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": ADAPTER_SERVICE, "namespace": "kube-system"},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }  # fmt: skip
    return [*rights(), (SERVICES, service), *((APISERVICES, one) for one in apiservices(port, authority))]


def forget_port(api: Api, port: int) -> None:
    """Deletes our APIServices if they lead to another port, so that they are made anew."""
    for one in apiservices(port, b""):
        path = f"{APISERVICES}/{one['metadata']['name']}"
        status, body = api.call("GET", path)
        reference = orjson.loads(body)["spec"].get("service") if status == 200 else None
        if reference and reference["name"] == ADAPTER_SERVICE and reference.get("port") != port:
            api.call("DELETE", path)


def remove(api: Api) -> None:
    """Deletes what `up --custom-metrics` made."""
    for path, obj in reversed(objects(0, b"")):
        status, body = api.call("DELETE", f"{path}/{obj['metadata']['name']}")
        if status not in (200, 202, 404):
            raise LabError(f"could not delete {obj['kind']}: {body.decode(errors='replace')[:300]}")
