"""The agent's settings and its command line. Flags are named as kubelet's where kubelet has one."""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from navarch.api import names
from navarch.settings import (
    BOOLEAN,
    COUNT,
    DURATION,
    FILE,
    POSITIVE,
    POSITIVE_DURATION,
    QUANTITY,
    TEXT,
    Kind,
    Settings,
    choice,
)
from nodeagent.node import sysctls, thresholds
from nodeagent.node.shutdownperiods import Period, read_periods, shutdown_periods
from nodeagent.node.thresholds import Threshold

VERSION = "v1.34.0+navarch"
RUNTIMES = ("oci", "cri", "hollow")


@dataclass(frozen=True)
class Config:
    """Everything the agent must be told. Sizes are quantities, times seconds."""

    node_name: str
    node_ip: str = "127.0.0.1"
    runtime: str = "oci"
    cri_socket: str = ""  # of containerd or another CRI runtime; empty: containerd.sock in run_dir
    root_dir: Path = Path("/var/lib/navarch/node")  # pods, volumes, logs: survives a reboot
    run_dir: Path = Path("/run/navarch")  # a tmpfs: secrets, runtime state; gone with power
    image_root: Path = Path("/var/lib/navarch/images")  # shared by the nodes of one machine
    cgroup_root: str = ""  # absolute cgroup path of the node, with "sys" and "pods" below; empty: the agent's own
    pod_cidr: str = ""  # registered with the node; empty: the node IPAM controller gives one
    resolv_conf: Path = Path("/etc/resolv.conf")
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    cpu: str = ""  # capacity; empty: the machine's
    memory: str = ""
    pods: int = 110
    ephemeral_storage: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()  # key=value:Effect
    register_node: bool = True
    kubeconfig: str = ""
    address: str = ""  # where the server listens; empty: the node's IP
    port: int = 10250
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    client_ca_file: str = ""
    lease_seconds: int = 40
    lease_renew: float = 10.0
    status_frequency: float = 10.0  # how often conditions are looked at
    status_report: float = 300.0  # how often the status is written even if nothing changed
    max_log_size: int = 10 * 1024 * 1024
    max_log_files: int = 5
    pod_max_pids: int = 4096  # processes and threads of one pod; -1: as many as the node may have
    max_pids: int = 0  # of all pods of the node; 0: half of what the machine can have
    allowed_unsafe_sysctls: tuple[str, ...] = ()  # names or prefixes that end in *
    registry_pull_burst: int = 2  # pulls at the same time
    image_puller: str = ""  # the socket of the process that pulls for this node; empty: the agent does
    registries_conf: Path = Path("/etc/navarch/registries.conf")
    image_gc_high: int = 85  # percent of the images' disk above which unused images are removed; 100: never
    image_gc_low: int = 80  # percent at which that ends
    image_min_age: float = 120.0  # seconds that an image is left alone
    image_max_age: float = 0.0  # seconds after which an unused image goes, however much room there is; 0: never
    image_gc_period: float = 300.0
    plugins: bool = False  # serves device plugins and CSI drivers
    kubelet_dir: Path = Path("/var/lib/kubelet")  # where plugins find the node's sockets
    shutdown_grace: float = 0.0  # seconds that all pods get together when the node is shut down; 0: it is not graceful
    shutdown_grace_critical: float = 0.0  # of these, those of critical pods
    shutdown_by_priority: str = ""  # PRIORITY=DURATION,... instead of both
    static_pod_path: str = ""  # folder of static pods; empty: none
    eviction_hard: str = thresholds.DEFAULT_HARD
    eviction_soft: str = ""
    eviction_soft_grace: str = ""
    eviction_reclaim: str = ""
    eviction_transition: float = 300.0  # seconds that a pressure condition stays after it was seen last
    eviction_max_grace: float = 0.0  # seconds that a pod gets at most when a soft threshold is met
    use_tmpfs: bool = True  # secrets only ever in memory: run_dir gets a tmpfs where it is none

    @property
    def is_real(self) -> bool:
        """Whether volumes are mounted and host folders made: not for simulated containers, whose agent may be anybody."""
        return self.use_tmpfs

    @property
    def plugins_dir(self) -> Path:
        """The folder that is mounted at ``kubelet_dir``."""
        return self.root_dir / "kubelet"

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """The eviction thresholds. Raises ValueError."""
        return thresholds.read(self.eviction_hard, self.eviction_soft, self.eviction_soft_grace, self.eviction_reclaim)

    @property
    def shutdown_periods(self) -> tuple[Period, ...]:
        """The periods of a graceful shutdown. Raises ValueError."""
        return shutdown_periods(self.shutdown_grace, self.shutdown_grace_critical, self.shutdown_by_priority)

    @property
    def pods_dir(self) -> Path:
        return self.root_dir / "pods"

    @property
    def logs_dir(self) -> Path:
        return self.root_dir / "log" / "pods"

    @property
    def secrets_dir(self) -> Path:
        return self.run_dir / "volumes"


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m nodeagent",
        description="navarch's node agent: registers this machine (or lab node) as a Node and runs the pods bound to it.",
    )
    p.add_argument("--kubeconfig", required=True, help="how to reach the API server, as system:node:NAME")
    p.add_argument("--node-name", default=socket.gethostname(), help="name of the Node object (default: the host's)")
    p.add_argument("--node-ip", default="127.0.0.1", help="address under which the API server and pods find this node")
    p.add_argument("--runtime", choices=RUNTIMES, default="oci", help="what runs containers")
    p.add_argument(
        "--cri-socket", default="", help="socket of containerd, for --runtime cri (default: containerd.sock in --run-dir)"
    )
    p.add_argument("--root-dir", type=Path, default=Config.root_dir, help="pods' volumes and logs")
    p.add_argument("--run-dir", type=Path, default=Config.run_dir, help="state that may not outlive a reboot (a tmpfs)")
    p.add_argument(
        "--kubelet-dir", type=Path, default=Config.kubelet_dir, help="where plugins find the node's sockets (a mount)"
    )
    p.add_argument("--image-root", type=Path, default=Config.image_root, help="image store; may be shared by nodes")
    p.add_argument(
        "--image-puller", default="", help="socket of the process that pulls images (default: the agent pulls)"
    )
    p.add_argument(
        "--registries-conf",
        type=Path,
        default=Config.registries_conf,
        help="mirrors and logins, if the agent pulls itself",
    )
    p.add_argument("--image-gc-high-threshold", dest="image_gc_high", type=int, default=Config.image_gc_high)
    p.add_argument("--image-gc-low-threshold", dest="image_gc_low", type=int, default=Config.image_gc_low)
    p.add_argument(
        "--minimum-image-ttl-duration", dest="image_min_age", type=float, default=Config.image_min_age
    )
    p.add_argument(
        "--maximum-image-ttl-duration", dest="image_max_age", type=float, default=Config.image_max_age
    )
    p.add_argument(
        "--image-gc-period", type=float, default=Config.image_gc_period, help="how often to look"
    )
    p.add_argument("--shutdown-grace-period", dest="shutdown_grace", type=float, default=0.0)
    p.add_argument("--shutdown-grace-period-critical-pods", dest="shutdown_grace_critical", type=float, default=0.0)
    p.add_argument(
        "--shutdown-grace-period-by-pod-priority", dest="shutdown_by_priority", default="", help="PRIORITY=DURATION,..."
    )
    p.add_argument("--static-pod-path", "--pod-manifest-path", default="", help="folder of the node's own pods, as files")
    p.add_argument("--eviction-hard", default=Config.eviction_hard, help="SIGNAL<AMOUNT,... at which pods are evicted")
    p.add_argument("--eviction-soft", default="", help="SIGNAL<AMOUNT,... at which they are after a grace period")
    p.add_argument("--eviction-soft-grace-period", dest="eviction_soft_grace", default="", help="SIGNAL=DURATION,...")
    p.add_argument("--eviction-minimum-reclaim", dest="eviction_reclaim", default="", help="SIGNAL=AMOUNT,...")
    p.add_argument(
        "--eviction-pressure-transition-period", dest="eviction_transition", type=float,
        default=Config.eviction_transition,
    )  # fmt: skip
    p.add_argument(
        "--eviction-max-pod-grace-period", dest="eviction_max_grace", type=float, default=Config.eviction_max_grace
    )
    p.add_argument("--pod-cidr", default="", help="pod addresses of this node, until its Node object names them")
    p.add_argument("--cgroup-root", default="", help="cgroup of this node's pods, e.g. /navarch/node-1/pods")
    p.add_argument("--runtime-cgroup", default="", help="cgroup of agent and supervisors, e.g. /navarch/node-1/sys")
    p.add_argument(
        "--resolv-conf", type=Path, default=Config.resolv_conf, help="resolver file of pods without cluster DNS"
    )
    p.add_argument("--cluster-dns", action="append", default=[], help="address of the cluster's DNS (repeatable)")
    p.add_argument("--cluster-domain", default=Config.cluster_domain)
    p.add_argument("--cpu", default="", help="capacity as a quantity (default: the machine's)")
    p.add_argument("--memory", default="", help="capacity as a quantity (default: the machine's)")
    p.add_argument("--max-pods", dest="pods", type=int, default=110)
    p.add_argument("--ephemeral-storage", default="", help="capacity as a quantity (default: the root dir's disk)")
    p.add_argument("--node-labels", default="", help="key=value,... set when the node is registered")
    p.add_argument("--register-with-taints", default="", help="key=value:Effect,... set when the node is registered")
    p.add_argument("--register-node", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--address", default="", help="where the HTTPS server listens (default: --node-ip)")
    p.add_argument("--port", type=int, default=10250)
    p.add_argument("--tls-cert-file", default="", help="the server's certificate (PEM)")
    p.add_argument("--tls-private-key-file", default="")
    p.add_argument("--client-ca-file", default="", help="CA whose client certificates the server takes")
    p.add_argument("--node-lease-duration-seconds", dest="lease_seconds", type=int, default=40)
    p.add_argument("--node-status-update-frequency", dest="status_frequency", type=float, default=10.0)
    p.add_argument("--node-status-report-frequency", dest="status_report", type=float, default=300.0)
    p.add_argument("--container-log-max-size", dest="max_log_size", type=int, default=Config.max_log_size)
    p.add_argument("--container-log-max-files", dest="max_log_files", type=int, default=Config.max_log_files)
    p.add_argument(
        "--pod-max-pids", type=int, default=Config.pod_max_pids, help="processes of one pod (-1: no limit of its own)"
    )
    p.add_argument("--max-pids", type=int, default=0, help="processes of all pods (default: half of the machine's)")
    p.add_argument("--allowed-unsafe-sysctls", default="", help="sysctls that pods may set: NAME,PREFIX*,...")
    p.add_argument("--v", type=int, default=2, help="log level: 0 warnings, 2 info, 4 debug")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any flag, by its name")
    return p


def _taints(text: str) -> tuple[str, ...]:
    out = tuple(taint for taint in text.split(",") if taint)
    for taint in out:
        key, _, effect = taint.rpartition(":")
        if not key or effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            raise ValueError(taint)
    return out


def _labels(text: str) -> dict[str, str]:
    pairs = dict(pair.partition("=")[::2] for pair in text.split(",") if pair)
    if any(names.qualified_name(key) or names.label_value(value) for key, value in pairs.items()):
        raise ValueError(text)
    return pairs


def _pids(text: str) -> int:
    if (number := int(text)) < -1 or number == 0:
        raise ValueError(f"{text} is neither above 0 nor -1")
    return number


def _sysctls(text: str) -> tuple[str, ...]:
    patterns = tuple(word for word in text.split(",") if word)
    sysctls.check_patterns(patterns)
    return patterns


def _percent(text: str) -> int:
    if not 0 <= int(text) <= 100:
        raise ValueError(text)
    return int(text)


def _checked(read: Callable[..., object], *more: str) -> Callable[[str], str]:
    """Text that ``read`` can read."""

    def check(text: str) -> str:
        read(text, *more)
        return text

    return check


THRESHOLDS = Kind(
    f"SIGNAL<QUANTITY or SIGNAL<PERCENT%, separated by commas; signals: {', '.join(thresholds.SIGNALS)}",
    _checked(thresholds.read_amounts),
)
PERCENT = Kind("a whole number from 0 to 100", _percent)

SETTINGS = Settings("agent", {
    "node-name": TEXT, "node-ip": TEXT, "runtime": choice(*RUNTIMES), "cri-socket": TEXT, "root-dir": TEXT, "run-dir": TEXT,
    "kubelet-dir": TEXT, "image-root": TEXT, "image-puller": TEXT, "registries-conf": FILE, "image-gc-high-threshold": PERCENT,
    "image-gc-low-threshold": PERCENT, "minimum-image-ttl-duration": DURATION, "maximum-image-ttl-duration": DURATION,
    "image-gc-period": POSITIVE_DURATION, "pod-cidr": TEXT, "cgroup-root": TEXT, "runtime-cgroup": TEXT, "resolv-conf": FILE,
    "cluster-dns": TEXT, "cluster-domain": TEXT, "cpu": QUANTITY, "memory": QUANTITY, "max-pods": POSITIVE,
    "ephemeral-storage": QUANTITY, "node-labels": Kind("KEY=VALUE,... of valid labels", _labels),
    "register-with-taints": Kind("KEY=VALUE:EFFECT,...", _taints), "register-node": BOOLEAN, "address": TEXT,
    "port": COUNT, "tls-cert-file": FILE, "tls-private-key-file": FILE, "client-ca-file": FILE,
    "node-lease-duration-seconds": POSITIVE, "node-status-update-frequency": POSITIVE_DURATION,
    "node-status-report-frequency": POSITIVE_DURATION, "container-log-max-size": POSITIVE,
    "container-log-max-files": POSITIVE, "v": COUNT, "max-pids": COUNT,
    "pod-max-pids": Kind("a whole number above 0, or -1 for no limit", _pids),
    "shutdown-grace-period": DURATION, "shutdown-grace-period-critical-pods": DURATION,
    "shutdown-grace-period-by-pod-priority": Kind("PRIORITY=DURATION,...", _checked(read_periods)),
    "static-pod-path": TEXT, "eviction-hard": THRESHOLDS, "eviction-soft": THRESHOLDS,
    "eviction-soft-grace-period": Kind("SIGNAL=DURATION,...", _checked(thresholds.read_durations)),
    "eviction-minimum-reclaim": Kind("SIGNAL=QUANTITY,...", _checked(thresholds.read_amounts, "=")),
    "eviction-pressure-transition-period": DURATION, "eviction-max-pod-grace-period": COUNT,
    "allowed-unsafe-sysctls": Kind("names or PREFIX*,... of sysctls that namespaces have of their own", _sysctls),
})  # fmt: skip
"""Settings of ``--set``: every flag but the one that leads to the API server."""


def check(settings: Sequence[str]) -> None:
    """Whether the agent can be told this by ``--set``. Raises ValueError."""
    values = SETTINGS.read_all(settings)
    high = values.get("image-gc-high-threshold", Config.image_gc_high)
    low = values.get("image-gc-low-threshold", Config.image_gc_low)
    if low >= high:
        raise ValueError(f"agent.image-gc-low-threshold={low} must be below agent.image-gc-high-threshold={high}")
    soft, graces = values.get("eviction-soft", ""), values.get("eviction-soft-grace-period", "")
    try:
        thresholds.read("", soft, graces)
    except ValueError as error:
        raise ValueError(f"agent.eviction-soft={soft}: {error}") from None
    grace, critical = (values.get(f"shutdown-grace-period{end}", 0.0) for end in ("", "-critical-pods"))
    if critical > grace and "shutdown-grace-period" in values:
        raise ValueError(f"agent.shutdown-grace-period-critical-pods={critical:g}s is more than all pods get: {grace:g}s")


def _flag(pair: str) -> str:
    """A setting as the flag of that name."""
    name, value = SETTINGS.read(pair)
    if SETTINGS.kinds[name] is BOOLEAN:
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name}={value}" if SETTINGS.kinds[name] in (DURATION, POSITIVE_DURATION) else f"--{pair}"


def parse(argv: Sequence[str]) -> tuple[Config, argparse.Namespace]:
    """The configuration that a command line asks for."""
    p = parser()
    args = p.parse_args(argv)
    try:
        check(args.set)
    except ValueError as error:
        p.error(str(error))
    if args.set:
        args = p.parse_args([*argv, *(_flag(pair) for pair in args.set)])
    field_names = {f.name for f in fields(Config)}
    values = {k: v for k, v in vars(args).items() if k in field_names}
    values["cluster_dns"] = tuple(args.cluster_dns)
    try:
        values["labels"], values["taints"] = _labels(args.node_labels), _taints(args.register_with_taints)
    except ValueError as error:
        p.error(f"--node-labels, --register-with-taints: {error} is no label or taint")
    try:
        values["allowed_unsafe_sysctls"] = _sysctls(args.allowed_unsafe_sysctls)
        values["pod_max_pids"] = _pids(str(args.pod_max_pids))
    except ValueError as error:
        p.error(f"--allowed-unsafe-sysctls, --pod-max-pids: {error}")
    try:
        thresholds.read(args.eviction_hard, args.eviction_soft, args.eviction_soft_grace, args.eviction_reclaim)
    except ValueError as error:
        p.error(f"--eviction-...: {error}")
    try:
        shutdown_periods(args.shutdown_grace, args.shutdown_grace_critical, args.shutdown_by_priority)
    except ValueError as error:
        p.error(f"--shutdown-grace-period...: {error}")
    # Pods and system share one parent: the node's cgroup.
    values["cgroup_root"] = args.cgroup_root.removesuffix("/pods")
    values["use_tmpfs"] = args.runtime != "hollow"  # whose pods are nobody's secrets, and often not root's
    values["plugins"] = args.runtime != "hollow"
    values["lease_renew"] = args.lease_seconds / 4
    return Config(**values), args
