"""Objects of a lab's cluster from the start besides Kubernetes' own objects: the Service of the cluster DNS.

Each node's proxy answers DNS for its own node and publishes itself in an EndpointSlice, so there are no DNS pods.
"""

from __future__ import annotations

from typing import Any

from lab.addresses import Addresses
from lab.apiclient import Api
from lab.hollow import rights
from lab.paths import LabError
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
            "metadata": {"name": "lab-shared"}, "provisioner": "navarch.dev/shared-path", "volumeBindingMode": "Immediate",
        },
    ]  # fmt: skip


def apply_addons(addresses: Addresses, api: Api, simulated: bool) -> None:
    """Creates what is missing; what a user changed stays as it is. ``simulated``: there are simulated nodes."""
    services = "/api/v1/namespaces/kube-system/services"
    hollow = rights() if simulated else []
    classes = [("/apis/storage.k8s.io/v1/storageclasses", one) for one in storage_classes()]
    for path, desired in [*publisher_role(), *hollow, *classes, (services, dns_service(addresses.dns))]:
        name = desired["metadata"]["name"]
        if api.call("GET", f"{path}/{name}")[0] != 404:
            continue
        status, body = api.call("POST", path, desired)
        if status not in (201, 409):
            raise LabError(f"could not create {desired['kind']} {name}: {body.decode(errors='replace')[:300]}")
