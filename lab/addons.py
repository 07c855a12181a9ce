"""Objects of a lab's cluster from the start besides Kubernetes' own objects: the Service of the cluster DNS.

Each node's proxy answers DNS for its own node and publishes itself in an EndpointSlice, so there are no DNS pods.
"""

from __future__ import annotations

from typing import Any

from lab import custommetrics, gatewayapi, verticalautoscaler
from lab.addresses import Addresses
from lab.apiclient import Api
from lab.components import INGRESS_HTTP, INGRESS_HTTPS, INGRESS_USER
from lab.hollow import rights
from lab.paths import LabError, LabRecord
from navarch.api import wellknown


def dns_service(address: str) -> dict[str, Any]:
    """kube-system/kube-dns. Local policy: a node asks its own resolver, so a dead node takes nobody's DNS along."""
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", wellknown.SERVICE_SHOWN_AS: "CoreDNS", "kubernetes.io/cluster-service": "true"},
        },
        "spec": {"clusterIP": address, "ports": ports, "internalTrafficPolicy": "Local"},
    }


def publisher_role() -> list[tuple[str, dict[str, Any]]]:
    """Lets the proxies publish their resolvers: (path of the collection, object) pairs."""
    name = {"name": "navarch:dns-publisher", "namespace": "kube-system"}
    rules = [
        {
            "apiGroups": ["discovery.k8s.io"],
            "resources": ["endpointslices"],
            "verbs": ["create", "get", "update"],
        }
    ]
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "apiGroup": group, "name": "system:kube-proxy"}
    reference = {"apiGroup": group, "kind": "Role", "name": name["name"]}
    path, version = f"/apis/{group}/v1/namespaces/kube-system", f"{group}/v1"
    return [
        (f"{path}/roles", {"apiVersion": version, "kind": "Role", "metadata": name, "rules": rules}),
        (
            f"{path}/rolebindings",
            {
                "apiVersion": version,
                "kind": "RoleBinding",
                "metadata": name,
                "roleRef": reference,
                "subjects": [subject],
            },
        ),
    ]


def storage_classes() -> list[dict[str, Any]]:
    """Classes of the provisioner in controllers/persistentvolume/localpath.py; local-path is the default."""
    default = {"annotations": {wellknown.DEFAULT_STORAGE_CLASS: "true"}}
    head = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "reclaimPolicy": "Delete", "allowVolumeExpansion": True}
    return [
        head | {
            "metadata": {"name": "local-path", **default}, "provisioner": "navarch.dev/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
        head | {
            "metadata": {"name": "local-loop"}, "provisioner": "navarch.dev/local-loop",
            "volumeBindingMode": "WaitForFirstConsumer",
        },
        head | {
            "metadata": {"name": "lab-shared"}, "provisioner": "navarch.dev/shared-path", "volumeBindingMode": "Immediate",
        },
    ]  # fmt: skip


INGRESS_CLASS, INGRESS_SERVICE = "navarch", "navarch-ingress"


def ingress_objects() -> list[tuple[str, dict[str, Any]]]:
    """The ingress controller's class, its Service and its rights: (path of the collection, object) pairs."""
    group, name = "rbac.authorization.k8s.io", INGRESS_USER
    reads = ["get", "list", "watch"]
    rules = [
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": reads},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["patch", "update"]},
        {"apiGroups": [""], "resources": ["services", "secrets"], "verbs": reads},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": [*reads, "create", "update"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    ]
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}
    binding = {
        "apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "User", "apiGroup": group, "name": INGRESS_USER}],
    }  # fmt: skip
    ingress_class = {
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": INGRESS_CLASS, "annotations": {wellknown.DEFAULT_INGRESS_CLASS: "true"}},
        "spec": {"controller": "navarch.dev/ingress"},
    }  # fmt: skip
    ports = [
        {"name": "http", "port": 80, "protocol": "TCP", "targetPort": INGRESS_HTTP},
        {"name": "https", "port": 443, "protocol": "TCP", "targetPort": INGRESS_HTTPS},
    ]
    # Local: the node that answers for the address serves by itself, and sees who asks.
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": ports, "allocateLoadBalancerNodePorts": False}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": INGRESS_SERVICE, "namespace": "kube-system"}}
    return [
        (f"/apis/{group}/v1/clusterroles", role),
        (f"/apis/{group}/v1/clusterrolebindings", binding),
        ("/apis/networking.k8s.io/v1/ingressclasses", ingress_class),
        ("/api/v1/namespaces/kube-system/services", service | {"spec": spec}),
    ]


def remove_ingress(api: Api) -> None:
    """Deletes what `up --ingress` made."""
    for path, obj in reversed(ingress_objects()):
        status, body = api.call("DELETE", f"{path}/{obj['metadata']['name']}")
        if status not in (200, 202, 404):
            raise LabError(f"could not delete {obj['kind']}: {body.decode(errors='replace')[:300]}")


def apply_addons(addresses: Addresses, api: Api, simulated: bool, record: LabRecord) -> None:
    """Creates what is missing; what a user changed stays as it is. ``simulated``: there are simulated nodes."""
    services = "/api/v1/namespaces/kube-system/services"
    hollow = rights() if simulated else []
    classes = [("/apis/storage.k8s.io/v1/storageclasses", one) for one in storage_classes()]
    more = [*(ingress_objects() if record.ingress else []), *(gatewayapi.objects() if record.gateway else [])]
    ca = (api.lab.paths.pki / "ca.crt").read_bytes()
    if record.vpa:
        verticalautoscaler.forget_webhook(api, record.vpa)
        more += verticalautoscaler.objects(record.vpa, ca)
    if record.custom_metrics:
        custommetrics.forget_port(api, record.custom_metrics)
        more += custommetrics.objects(record.custom_metrics, ca)
    for path, desired in [*publisher_role(), *hollow, *classes, *more, (services, dns_service(addresses.dns))]:
        name = desired["metadata"]["name"]
        if api.call("GET", f"{path}/{name}")[0] != 404:
            continue
        if path.startswith(gatewayapi.GROUP_PATH):
            gatewayapi.wait_served(api)
        status, body = api.call("POST", path, desired)
        if status not in (201, 409):
            raise LabError(f"could not create {desired['kind']} {name}: {body.decode(errors='replace')[:300]}")
