"""What a lab's cluster has from the start besides Kubernetes' own objects: the Service of the cluster DNS.

Each node's proxy answers DNS for its own node and publishes itself in an EndpointSlice, so there are no DNS pods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lab.paths import LabError

if TYPE_CHECKING:
    from lab.cluster import Cluster


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
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true"},
        },
        "spec": {"clusterIP": address, "ports": ports, "internalTrafficPolicy": "Local"},
    }


def apply_addons(cluster: Cluster) -> None:
    """Creates what is missing; what a user changed stays as it is."""
    path = "/api/v1/namespaces/kube-system/services"
    if cluster.call("GET", f"{path}/kube-dns")[0] != 404:
        return
    status, body = cluster.call("POST", path, dns_service(cluster.addresses.dns))
    if status not in (201, 409):
        raise LabError(f"could not create the DNS service: {body.decode(errors='replace')[:300]}")
