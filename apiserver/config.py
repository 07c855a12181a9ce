"""Command line and configuration of the API server. Flags have kube-apiserver's names where it has such a flag."""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Config:
    """Everything the server can be told. Times are in seconds, files are paths."""

    store: str = "memory"  # memory, sqlite:FILE or etcd:ADDRESS
    bind_addresses: tuple[str, ...] = ("127.0.0.1",)
    secure_port: int = 6443
    advertise_address: str = ""  # where pods reach the server; default: the first bind address
    cert_dir: str = ""  # certificates and an admin kubeconfig are made here if none are given
    tls_cert_file: str = ""
    tls_private_key_file: str = ""
    client_ca_file: str = ""
    kubelet_client_certificate: str = ""
    kubelet_client_key: str = ""
    kubelet_certificate_authority: str = ""
    proxy_client_cert_file: str = ""  # shown to API servers behind this one
    proxy_client_key_file: str = ""
    requestheader_client_ca_file: str = ""
    requestheader_allowed_names: tuple[str, ...] = ()
    requestheader_username_headers: tuple[str, ...] = ("X-Remote-User",)
    requestheader_uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    requestheader_group_headers: tuple[str, ...] = ("X-Remote-Group",)
    requestheader_extra_headers_prefix: tuple[str, ...] = ("X-Remote-Extra-",)
    service_account_key_file: str = ""
    service_account_issuer: str = "https://kubernetes.default.svc.cluster.local"
    api_audiences: tuple[str, ...] = ()  # default: the issuer
    service_cluster_ip_range: str = "10.96.0.0/16"
    service_node_port_range: str = "30000-32767"
    default_not_ready_toleration_seconds: int = 300
    default_unreachable_toleration_seconds: int = 300
    enable_admission_plugins: tuple[str, ...] = ()  # beside those that are on by default
    disable_admission_plugins: tuple[str, ...] = ()
    admission_control_config_file: str = ""
    event_ttl: float = 3600.0
    min_request_timeout: float = 1800.0
    compaction_interval: float = 300.0  # 0: never
    shutdown_grace: float = 5.0
    request_timeout: float = 60.0  # of requests that are no watches or streams
    enable_priority_and_fairness: bool = True
    max_requests_inflight: int = 400
    max_mutating_requests_inflight: int = 200
    verbosity: int = 0
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def node_ports(self) -> tuple[int, int]:
        low, _, high = self.service_node_port_range.partition("-")
        return int(low), int(high)


_HELP = {
    "store": "memory, sqlite:FILE, or etcd:ADDRESS (host:port or unix:PATH)",
    "bind_addresses": "address to listen on; may be given several times",
    "secure_port": "HTTPS port; 0 takes a free one",
    "cert_dir": "where to make certificates and admin.kubeconfig if no TLS files are given",
    "client_ca_file": "the CA whose client certificates are users",
    "service_account_key_file": "PEM key that signs and checks service-account tokens",
    "enable_admission_plugins": "admission plugins to run beside the usual ones, separated by commas",
    "disable_admission_plugins": "admission plugins to leave out, separated by commas",
    "admission_control_config_file": "an AdmissionConfiguration (apiserver.config.k8s.io/v1) with options of plugins",
    "enable_priority_and_fairness": "true or false; if false, the two limits below hold, else their sum is shared out",
    "max_requests_inflight": "reads that may run at a time",
    "max_mutating_requests_inflight": "writes that may run at a time",
    "compaction_interval": "how often old revisions are forgotten; 0 is never",
}


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


_TYPES: dict[str, Any] = {"int": int, "float": float, "bool": _flag}
_FLAGS = {"bind_addresses": "bind-address", "api_audiences": "api-audience"}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="apiserver", description="navarch's API server: the Kubernetes API over HTTPS")
    for option in dataclasses.fields(Config):
        if option.name == "extra":
            continue
        flag = "--" + _FLAGS.get(option.name, option.name.replace("_", "-"))
        many = str(option.type).startswith("tuple")
        kind: Any = _TYPES.get(str(option.type), str)
        out.add_argument(
            flag, dest=option.name, type=kind, action="append" if many else "store", default=None,
            help=_HELP.get(option.name, "").replace("%", "%%") or None,
        )  # fmt: skip
    out.add_argument("--set", action="append", default=[], metavar="FLAG=VALUE", help="any of the above, as FLAG=VALUE")
    return out


def parse(argv: list[str]) -> Config:
    """The configuration of a command line; exits with a message if it is wrong."""
    commands = parser()
    arguments = commands.parse_args(argv)
    values: dict[str, Any] = {k: v for k, v in vars(arguments).items() if v is not None and k != "set"}
    types = {f.name: str(f.type) for f in dataclasses.fields(Config)}
    for setting in arguments.set:
        flag, separator, value = setting.partition("=")
        name = {v: k for k, v in _FLAGS.items()}.get(flag, flag.replace("-", "_"))
        if not separator or name not in types or name == "extra":
            commands.error(f"--set {setting}: no such flag; see --help")
        try:
            if types[name].startswith("tuple"):
                values[name] = [value]
            else:
                values[name] = _TYPES.get(types[name], str)(value)
        except ValueError:
            commands.error(f"--set {setting}: no {types[name]}")
    values = {
        k: tuple(p for text in v for p in text.split(",")) if isinstance(v, list) else v for k, v in values.items()
    }
    return Config(**values)
