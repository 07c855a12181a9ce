"""How each component of a lab is started: which module or program, with which arguments, where.

``up --set COMPONENT.FLAG=VALUE`` ends here: it is handed to the component as ``--set FLAG=VALUE``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from lab.addresses import Addresses
from lab.containerd import CONTAINERD
from lab.forking import Spec
from lab.namespaces import ProcessId
from lab.nodenamespaces import NODE_RUN, group
from lab.paths import LabError, LabPaths, LabRecord, NodeRecord, home, private_directory, write_private
from lab.ports import place
from navarch import egress
from nodeagent.hollow.roster import RANGE

FRONT_PROXY = "front-proxy-client"  # under this name the API server passes requests on to others behind it
HOLLOW_USER = "system:hollow-nodes"
DNS_RELAY_PORT = 10053  # on the lab's network
INGRESS_USER, GATEWAY_USER = "navarch:ingress-controller", "navarch:gateway-controller"
ADAPTER_USER, ADAPTER_SERVICE = "navarch:custom-metrics", "navarch-custom-metrics"
VPA_USER = "navarch:vertical-pod-autoscaler"
INGRESS_HTTP, INGRESS_HTTPS = 10080, 10443  # where a node's nginx listens, behind the load balancer's 80 and 443
ETCD_SOCKET, ETCD_PEER_SOCKET = "localhost:2379", "localhost:2380"  # files that etcd makes in its working directory

# `--failover fast`: what a cluster on one machine can afford; the defaults stay Kubernetes'.
FAST_FAILOVER = {
    "controllers.node-monitor-grace-period": "4s",
    "controllers.node-eviction-rate": "100",
    "controllers.secondary-node-eviction-rate": "100",
    "apiserver.default-not-ready-toleration-seconds": "2",
    "apiserver.default-unreachable-toleration-seconds": "2",
    "agent.node-status-update-frequency": "1s",
    "agent.node-lease-duration-seconds": "4",
    "hollow.node-lease-duration-seconds": "4",
}


def all_settings(record: LabRecord) -> dict[str, str]:
    """``component.name`` -> value: the lab's own, and what fast failover turns."""
    return (FAST_FAILOVER if record.failover == "fast" else {}) | record.settings


def settings_of(record: LabRecord, component: str) -> list[str]:
    """The ``--set`` arguments of a component."""
    out: list[str] = []
    for key, value in all_settings(record).items():
        owner, _, flag = key.partition(".")
        if owner == component:
            out += ["--set", f"{flag}={value}"]
    return out


def etcd(paths: LabPaths) -> Spec:
    """A single etcd on unix sockets in a private directory. Heartbeat and election are as short as one machine allows."""
    program = shutil.which("etcd")
    if program is None:
        raise LabError("etcd is not installed: run deploy/setup, or use --store sqlite")
    directory = private_directory(paths.etcd)
    url, peer = f"unix://{ETCD_SOCKET}", f"unix://{ETCD_PEER_SOCKET}"
    return Spec(
        name="etcd",
        exec=[
            program, "--name=navarch", "--data-dir=data", "--log-level=warn", "--logger=zap",
            f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=navarch={peer}",
            "--heartbeat-interval=20", "--election-timeout=100", "--auto-compaction-retention=0",
            "--quota-backend-bytes=4294967296", "--max-request-bytes=8388608",
        ],
        cwd=str(directory),
        log=str(paths.logs / "etcd.log"),
        cgroup=control_group(paths.id),
        env={"GOMAXPROCS": "2"},
        stale=[str(directory / ETCD_SOCKET), str(directory / ETCD_PEER_SOCKET)],
        alive=str(directory / ETCD_SOCKET),
        health="/health",
    )  # fmt: skip


def alive_socket(paths: LabPaths, component: str) -> str:
    """Where the supervisor asks a component whether it is alive."""
    return str(paths.run / f"{component.replace('/', '-')}.alive")


def control_group(lab: str) -> str:
    import os

    return f"navarch/{lab}/control" if os.geteuid() == 0 else ""


def store_argument(paths: LabPaths, record: LabRecord) -> str:
    return f"etcd:unix:{paths.etcd / ETCD_SOCKET}" if record.store == "etcd" else f"sqlite:{paths.database}"


def listen_addresses(record: LabRecord, with_nodes: bool) -> list[str]:
    """Where the API server listens. All addresses of this machine include the lab's own."""
    if any_address := [a for a in record.listen if a in ("0.0.0.0", "::")]:
        return any_address[:1]
    own = ["127.0.0.1", *([Addresses(record.index).host] if with_nodes else [])]
    return [*own, *(a for a in record.listen if a not in own)]


def apiserver(paths: LabPaths, record: LabRecord, with_nodes: bool) -> Spec:
    addresses = Addresses(record.index)
    pki = paths.pki
    advertise = addresses.host if with_nodes else "127.0.0.1"
    argv = [
        "--store", store_argument(paths, record),
        *(f"--bind-address={host}" for host in listen_addresses(record, with_nodes)),
        "--secure-port", str(record.port),
        "--advertise-address", advertise,
        "--client-ca-file", str(pki / "ca.crt"),
        "--tls-cert-file", str(pki / "apiserver.crt"), "--tls-private-key-file", str(pki / "apiserver.key"),
        "--kubelet-client-certificate", str(pki / "apiserver-kubelet-client.crt"),
        "--kubelet-client-key", str(pki / "apiserver-kubelet-client.key"),
        "--kubelet-certificate-authority", str(pki / "ca.crt"),
        "--kubelet-preferred-address-types", "InternalDNS,InternalIP",
        "--proxy-denied-cidr", RANGE,
        "--proxy-client-cert-file", str(pki / "front-proxy" / f"{FRONT_PROXY}.crt"),
        "--proxy-client-key-file", str(pki / "front-proxy" / f"{FRONT_PROXY}.key"),
        "--requestheader-client-ca-file", str(pki / "front-proxy" / "ca.crt"),
        "--requestheader-allowed-names", FRONT_PROXY,
        "--enable-bootstrap-token-auth", "true",
        "--service-account-key-file", str(pki / "service-account.key"),
        "--service-account-issuer", "https://kubernetes.default.svc.cluster.local",
        "--service-cluster-ip-range", addresses.services,
    ]  # fmt: skip
    return Spec(
        name="apiserver",
        module="apiserver.main",
        alive=alive_socket(paths, "apiserver"),
        argv=argv + settings_of(record, "apiserver"),
        log=str(paths.logs / "apiserver.log"),
        listen=[place(host, record.port) for host in listen_addresses(record, with_nodes)],
        cgroup=control_group(paths.id),
    )


def scheduler(paths: LabPaths, record: LabRecord) -> Spec:
    return Spec(
        name="scheduler",
        module="scheduler.main",
        alive=alive_socket(paths, "scheduler"),
        argv=[
            "--kubeconfig",
            str(paths.component_kubeconfig("scheduler")),
            "--address",
            str(paths.run / "scheduler.sock"),
            *settings_of(record, "scheduler"),
        ],
        log=str(paths.logs / "scheduler.log"),
        cgroup=control_group(paths.id),
    )


def controllers(paths: LabPaths, record: LabRecord, with_nodes: bool) -> Spec:
    addresses = Addresses(record.index)
    return Spec(
        name="controllers",
        module="controllers.main",
        alive=alive_socket(paths, "controllers"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig("controllers")),
            "--address", str(paths.run / "controllers.sock"),
            "--set", f"cluster-cidr={addresses.pods}", "--set", "node-cidr-mask-size=24",
            "--set", f"root-ca-file={paths.pki / 'ca.crt'}",
            "--set", f"cluster-signing-cert-file={paths.pki / 'ca.crt'}",
            "--set", f"cluster-signing-key-file={paths.pki / 'ca.key'}",
            "--set", f"service-account-private-key-file={paths.pki / 'service-account.key'}",
            *(["--set", f"load-balancer-range={addresses.balancers}"] if with_nodes else []),
            "--set", f"local-path-root={paths.volumes}",
            "--set", "controllers=*,bootstrap-signer-controller,token-cleaner-controller",
            *settings_of(record, "controllers"),
        ],
        log=str(paths.logs / "controllers.log"),
        cgroup=control_group(paths.id),
    )  # fmt: skip


SHUTDOWN = (30, 10)
"""Seconds that all pods of a node get together when it is stopped gracefully, and of these, those of critical pods."""
EVICTION = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%"
"""kubelet's defaults but for imagefs: pods and images share the machine's disk, which is judged once."""


def agent(paths: LabPaths, record: LabRecord, node: NodeRecord, init: ProcessId) -> Spec:
    addresses = Addresses(record.index)
    own = group(paths.id, node.name)
    return Spec(
        name=f"agent/{node.name}",
        module="nodeagent.main",
        alive=alive_socket(paths, f"agent/{node.name}"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig(node.name)),
            "--node-name", node.name,
            "--node-ip", addresses.node(node.number),
            "--pod-cidr", addresses.pod_range(node.number),
            "--runtime", "cri" if record.runtime == CONTAINERD else "oci",
            "--root-dir", str(private_directory(paths.nodes / node.name)),
            "--run-dir", NODE_RUN,
            "--image-root", str(paths.images),
            "--image-puller", str(paths.gateway_socket),
            *(["--resolv-conf", str(paths.resolv_conf)] if record.way_out else []),
            "--cluster-dns", addresses.dns,
            "--cluster-domain", "cluster.local",
            "--eviction-hard", EVICTION,
            "--shutdown-grace-period", str(SHUTDOWN[0]), "--shutdown-grace-period-critical-pods", str(SHUTDOWN[1]),
            "--static-pod-path", str(private_directory(paths.nodes / node.name / "manifests")),
            "--cpu", node.cpu, "--memory", node.memory,
            *(["--max-pods", str(node.pods)] if node.pods else []),
            *(["--ephemeral-storage", node.storage] if node.storage else []),
            *(["--node-labels", ",".join(f"{k}={v}" for k, v in node.labels.items())] if node.labels else []),
            *(["--register-with-taints", ",".join(node.taints)] if node.taints else []),
            "--cgroup-root", f"/{own}/pods",
            "--runtime-cgroup", f"/{own}/sys",
            "--client-ca-file", str(paths.pki / "ca.crt"),
            "--tls-cert-file", str(paths.pki / f"{node.name}.crt"),
            "--tls-private-key-file", str(paths.pki / f"{node.name}.key"),
            *settings_of(record, "agent"),
        ],
        log=str(paths.logs / f"agent-{node.name}.log"),
        cgroup=f"{own}/sys",
        node=init.dump(),
    )  # fmt: skip


def proxy(paths: LabPaths, record: LabRecord, node: NodeRecord, init: ProcessId) -> Spec:
    addresses = Addresses(record.index)
    return Spec(
        name=f"proxy/{node.name}",
        module="proxy.main",
        alive=alive_socket(paths, f"proxy/{node.name}"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig("proxy")),
            "--node-name", node.name,
            "--node-ip", addresses.node(node.number),
            "--cluster-cidr", addresses.pods,
            "--cluster-domain", "cluster.local",
            "--pod-socket", f"{NODE_RUN}/policies.sock",
            "--address", "127.0.0.1:10256",
            *(["--set", f"dns-upstream={dns_relay(record)}"] if record.way_out else []),
            *settings_of(record, "proxy"),
        ],
        log=str(paths.logs / f"proxy-{node.name}.log"),
        cgroup=f"{group(paths.id, node.name)}/sys",
        node=init.dump(),
    )  # fmt: skip


def dns_relay(record: LabRecord) -> str:
    """Where nodes ask for names outside of the cluster."""
    return f"{Addresses(record.index).host}:{DNS_RELAY_PORT}"


def registry(paths: LabPaths, record: LabRecord) -> Spec:
    """Debian's docker-registry for the lab, on loopback; the gateway passes on what comes from the lab's network."""
    program = shutil.which("docker-registry")
    if program is None:
        raise LabError("docker-registry is not installed: run deploy/setup, or leave out --registry")
    private_directory(paths.registry)
    place = f"127.0.0.1:{record.registry}"
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(paths.registry / "data")}, "delete": {"enabled": True}},
        "http": {"addr": place},
    }
    write_private(paths.registry / "config.yml", json.dumps(config))  # which is YAML, too
    return Spec(
        name="registry",
        exec=[program, "serve", str(paths.registry / "config.yml")],
        log=str(paths.logs / "registry.log"),
        cgroup=control_group(paths.id),
        env={"GOMAXPROCS": "2"},
        alive=place,
        health="/",
    )


def registries_conf(record: LabRecord) -> str:
    """The lab's own registries.conf: other names of its registry."""
    if not record.registry:
        return ""
    names = (f"registry.{record.name}:{record.registry}", f"{Addresses(record.index).host}:{record.registry}")
    return "".join(
        f'[[registry]]\nprefix = "{name}"\nlocation = "127.0.0.1:{record.registry}"\ninsecure = true\n\n' for name in names
    )


def gateway(paths: LabPaths, record: LabRecord, lab_flag: str) -> Spec:
    addresses = Addresses(record.index)
    closed = egress.of_machine(record.egress, lab_flag).reason
    argv = [
        "--images", str(paths.images), "--socket", str(paths.gateway_socket), "--range", addresses.range,
        "--registries", str(home() / "registries.conf"), "--registries", str(paths.registries), "--closed", closed,
    ]  # fmt: skip
    if record.way_out:
        argv += ["--dns", dns_relay(record)]
    if record.registry:
        argv += ["--relay", f"{addresses.host}:{record.registry}=127.0.0.1:{record.registry}"]
    return Spec(
        name="gateway",
        module="lab.gateway",
        alive=alive_socket(paths, "gateway"),
        argv=argv,
        log=str(paths.logs / "gateway.log"),
        cgroup=control_group(paths.id),
        stale=[str(paths.gateway_socket)],
    )


def ingress(paths: LabPaths, record: LabRecord, node: NodeRecord, init: ProcessId) -> Spec:
    """The ingress controller of a node, which starts nginx beside itself."""
    addresses = Addresses(record.index)
    return Spec(
        name=f"ingress/{node.name}",
        module="proxy.ingress.main",
        alive=alive_socket(paths, f"ingress/{node.name}"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig("ingress")),
            "--node-name", node.name,
            "--node-ip", addresses.node(node.number),
            "--http-port", str(INGRESS_HTTP), "--https-port", str(INGRESS_HTTPS),
            "--directory", f"{NODE_RUN}/ingress",
            "--nginx-log", str(paths.logs / f"nginx-{node.name}.log"),
            "--address", "127.0.0.1:10254",
        ],
        log=str(paths.logs / f"ingress-{node.name}.log"),
        cgroup=f"{group(paths.id, node.name)}/sys",
        node=init.dump(),
    )  # fmt: skip


def gateways(paths: LabPaths, record: LabRecord, node: NodeRecord, init: ProcessId) -> Spec:
    """The Gateway API's controller of a node, with an nginx of its own."""
    return Spec(
        name=f"gateways/{node.name}",
        module="proxy.gateway.main",
        alive=alive_socket(paths, f"gateways/{node.name}"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig("gateways")),
            "--node-name", node.name,
            "--node-ip", Addresses(record.index).node(node.number),
            "--directory", f"{NODE_RUN}/gateways",
            "--nginx-log", str(paths.logs / f"nginx-gateways-{node.name}.log"),
            "--address", "127.0.0.1:10255",
        ],
        log=str(paths.logs / f"gateways-{node.name}.log"),
        cgroup=f"{group(paths.id, node.name)}/sys",
        node=init.dump(),
    )  # fmt: skip


def custom_metrics(paths: LabPaths, record: LabRecord) -> Spec:
    """The adapter for custom and external metrics, on loopback: only the API server has to reach it."""
    pki, front = paths.pki, paths.pki / "front-proxy"
    return Spec(
        name="custom-metrics",
        module="controllers.custommetrics.main",
        alive=alive_socket(paths, "custom-metrics"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig("custom-metrics")),
            "--port", str(record.custom_metrics),
            "--tls-cert-file", str(pki / "custom-metrics.crt"), "--tls-private-key-file", str(pki / "custom-metrics.key"),
            "--requestheader-client-ca-file", str(front / "ca.crt"), "--requestheader-allowed-names", FRONT_PROXY,
            "--network", Addresses(record.index).range,
        ],
        log=str(paths.logs / "custom-metrics.log"),
        cgroup=control_group(paths.id),
    )  # fmt: skip


def vertical_autoscaler(paths: LabPaths, record: LabRecord) -> Spec:
    """The VerticalPodAutoscaler, with its webhook on loopback."""
    return Spec(
        name="vpa",
        module="controllers.verticalautoscaler.main",
        alive=alive_socket(paths, "vpa"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig("vpa")),
            "--port", str(record.vpa),
            "--tls-cert-file", str(paths.pki / "vpa.crt"), "--tls-private-key-file", str(paths.pki / "vpa.key"),
        ],
        log=str(paths.logs / "vpa.log"),
        cgroup=control_group(paths.id),
    )  # fmt: skip


def hollow(paths: LabPaths, record: LabRecord) -> Spec:
    """The one process of all simulated nodes."""
    pki = paths.pki
    return Spec(
        name="hollow",
        module="nodeagent.hollow.main",
        alive=alive_socket(paths, "hollow"),
        argv=[
            "--kubeconfig", str(paths.component_kubeconfig("hollow")),
            "--roster", str(paths.hollow),
            "--control", str(paths.hollow_socket),
            "--client-ca-file", str(pki / "ca.crt"),
            "--tls-cert-file", str(pki / "hollow.crt"),
            "--tls-private-key-file", str(pki / "hollow.key"),
            *settings_of(record, "hollow"),
        ],
        log=str(paths.logs / "hollow.log"),
        cgroup=control_group(paths.id),
        stale=[str(paths.hollow_socket)],
    )  # fmt: skip


def apiserver_hosts(record: LabRecord) -> tuple[str, ...]:
    """The names and addresses under which the API server is reached."""
    addresses = Addresses(record.index)
    services = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    return tuple(
        dict.fromkeys(("127.0.0.1", "localhost", addresses.host, addresses.kubernetes, *services, *record.names))
    )


def log_files(paths: LabPaths) -> list[Path]:
    return sorted(paths.logs.glob("*.log"))
