"""Identities in a lab: the certificates and kubeconfigs of its components, its nodes and its administrator."""

from __future__ import annotations

from lab import components
from lab.addresses import Addresses
from lab.certificates import Authority
from lab.paths import LabPaths, LabRecord, private_directory
from nodeagent.hollow.roster import HOST as HOLLOW_HOST

MASTERS = ("system:masters",)


def issue_all(paths: LabPaths, record: LabRecord, hollow: bool) -> None:
    """Makes what is missing, or does not name all addresses any more; ``hollow``: also for simulated nodes."""
    pki, addresses = paths.pki, Addresses(record.index)
    cluster = f"navarch-{record.name}"
    authority = Authority(pki, cluster)
    authority.issue("apiserver", "kube-apiserver", hosts=components.apiserver_hosts(record))
    authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", MASTERS)
    authority.signing_key("service-account")
    front = Authority(private_directory(pki / "front-proxy"), "front-proxy-ca")
    front.issue(components.FRONT_PROXY, components.FRONT_PROXY)
    own, inside = f"https://127.0.0.1:{record.port}", f"https://{addresses.host}:{record.port}"
    clients = {
        "admin": ("kubernetes-admin", MASTERS, own),
        "scheduler": ("system:kube-scheduler", (), own),
        "controllers": ("system:kube-controller-manager", (), own),
        "proxy": ("system:kube-proxy", (), inside),
    }
    if record.ingress:
        clients["ingress"] = (components.INGRESS_USER, (), inside)
    if record.gateway:
        clients["gateways"] = (components.GATEWAY_USER, (), inside)
    for file, (user, groups, server) in clients.items():
        authority.issue(file, user, groups)
        path = paths.kubeconfig if file == "admin" else paths.component_kubeconfig(file)
        authority.kubeconfig(path, file, server, cluster, user)
    if record.custom_metrics:
        host = f"{components.ADAPTER_SERVICE}.kube-system.svc"
        authority.issue("custom-metrics", components.ADAPTER_USER, (), (host,))
        path = paths.component_kubeconfig("custom-metrics")
        authority.kubeconfig(path, "custom-metrics", own, cluster, components.ADAPTER_USER)
    if record.vpa:
        authority.issue("vpa", components.VPA_USER, (), ("127.0.0.1",))
        authority.kubeconfig(paths.component_kubeconfig("vpa"), "vpa", own, cluster, components.VPA_USER)
    if hollow:
        authority.issue("hollow", components.HOLLOW_USER, (), (HOLLOW_HOST, "127.0.0.1"))
        authority.kubeconfig(paths.component_kubeconfig("hollow"), "hollow", own, cluster, components.HOLLOW_USER)
    for entry in record.nodes:
        user = f"system:node:{entry.name}"
        authority.issue(entry.name, user, ("system:nodes",), (addresses.node(entry.number), entry.name))
        authority.kubeconfig(paths.component_kubeconfig(entry.name), entry.name, inside, cluster, user)
