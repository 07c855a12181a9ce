"""Command line and configuration of the API server. Flags have kube-apiserver's names where it has such a flag."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from navarch.settings import BOOLEAN, COUNT, DURATION, FILE, LIST, SECONDS, TEXT, Kind, Settings


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
    kubelet_preferred_address_types: str = "InternalIP"
    proxy_denied_cidrs: tuple[str, ...] = ()  # addresses of pods that nobody can reach
    proxy_client_cert_file: str = ""  # shown to API servers behind this one
    proxy_client_key_file: str = ""
    requestheader_client_ca_file: str = ""
    requestheader_allowed_names: tuple[str, ...] = ()
    requestheader_username_headers: tuple[str, ...] = ("X-Remote-User",)
    requestheader_uid_headers: tuple[str, ...] = ("X-Remote-Uid",)
    requestheader_group_headers: tuple[str, ...] = ("X-Remote-Group",)
    requestheader_extra_headers_prefix: tuple[str, ...] = ("X-Remote-Extra-",)
    anonymous_auth: bool = True
    token_auth_file: str = ""
    enable_bootstrap_token_auth: bool = False
    authentication_config: str = ""
    oidc_issuer_url: str = ""
    oidc_client_id: str = ""
    oidc_ca_file: str = ""
    oidc_username_claim: str = "sub"
    oidc_username_prefix: str = ""
    oidc_groups_claim: str = ""
    oidc_groups_prefix: str = ""
    oidc_signing_algs: tuple[str, ...] = ("RS256",)
    oidc_required_claim: tuple[str, ...] = ()
    authorization_always_allow_paths: tuple[str, ...] = ("/healthz", "/readyz", "/livez")
    service_account_key_file: tuple[str, ...] = ()
    service_account_signing_key_file: str = ""  # default: the first private one of the above
    service_account_issuer: tuple[str, ...] = ("https://kubernetes.default.svc.cluster.local",)
    service_account_max_token_expiration: str = "0s"
    service_account_extend_token_expiration: bool = True
    api_audiences: tuple[str, ...] = ()  # default: the issuer
    audit_policy_file: str = ""
    audit_log_path: str = ""
    audit_log_maxage: int = 0
    audit_log_maxbackup: int = 0
    audit_log_maxsize: int = 0
    encryption_provider_config: str = ""
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
    shutdown_delay_duration: float = 0.0  # between the first failing /readyz and the end of service
    shutdown_send_retry_after: bool = False  # in that time, send new requests elsewhere
    request_timeout: float = 60.0  # of requests that are no watches or streams
    enable_priority_and_fairness: bool = True
    max_requests_inflight: int = 400
    max_mutating_requests_inflight: int = 200
    verbosity: int = 0

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
    "anonymous_auth": "whether requests without credentials are let in, as system:anonymous",
    "token_auth_file": "CSV file of static tokens: token,user,uid,\"group1,group2\"",
    "enable_bootstrap_token_auth": "whether Secrets bootstrap.kubernetes.io/token in kube-system are tokens to log in with",
    "authentication_config": "an AuthenticationConfiguration (apiserver.config.k8s.io/v1): issuers of JWTs, anonymous",
    "oidc_issuer_url": "an OpenID issuer (https) whose ID tokens are users",
    "oidc_client_id": "the audience that the issuer's tokens must have",
    "oidc_ca_file": "CA of the issuer's server; default: the system's",
    "oidc_username_claim": "the claim that holds the user name",
    "oidc_username_prefix": "put before user names; '-' is none; default: ISSUER#, none for email",
    "oidc_groups_claim": "the claim that holds the groups",
    "oidc_groups_prefix": "put before groups",
    "oidc_signing_algs": "signing algorithms to believe, separated by commas",
    "oidc_required_claim": "KEY=VALUE that tokens must have; may be given several times",
    "authorization_always_allow_paths": "paths that need no right; * at the end is any",
    "service_account_key_file": "PEM key that checks service-account tokens, a private one signs; several to rotate",
    "service_account_signing_key_file": "PEM key that signs service-account tokens",
    "service_account_issuer": "who service-account tokens are from; the first signs, all are believed",
    "service_account_max_token_expiration": "longest life of a requested token, such as 24h; 0s: no limit",
    "service_account_extend_token_expiration": "whether pods' tokens live a year, for clients that do not read them again",
    "audit_policy_file": "an audit Policy (audit.k8s.io/v1); without it nothing is told",
    "audit_log_path": "where audit events go, one a line; '-' is standard output",
    "audit_log_maxage": "days that old audit logs are kept; 0: for ever",
    "audit_log_maxbackup": "old audit logs that are kept; 0: all",
    "audit_log_maxsize": "MiB at which an audit log is turned over; 0: 100",
    "encryption_provider_config": "an EncryptionConfiguration (apiserver.config.k8s.io/v1): what the store holds encrypted",
    "enable_admission_plugins": "admission plugins to run beside the usual ones, separated by commas",
    "disable_admission_plugins": "admission plugins to leave out, separated by commas",
    "admission_control_config_file": "an AdmissionConfiguration (apiserver.config.k8s.io/v1) with options of plugins",
    "enable_priority_and_fairness": "true or false; if false, the two limits below hold, else their sum is shared out",
    "max_requests_inflight": "reads that may run at a time",
    "max_mutating_requests_inflight": "writes that may run at a time",
    "kubelet_preferred_address_types": "which of a node's addresses leads to its agent: types in order, with commas",
    "proxy_denied_cidrs": "addresses that pods may have and nobody answers at: the proxies refuse them; repeatable",
    "event_ttl": "how long events are kept, such as 1h; 0 is for ever",
    "min_request_timeout": "a watch that names no timeout lives so long, up to twice; 0 is without end",
    "compaction_interval": "how often old revisions are forgotten; 0 is never",
}


_KINDS = {"int": COUNT, "float": DURATION, "bool": BOOLEAN}
_FLAGS = {"proxy_denied_cidrs": "proxy-denied-cidr", "bind_addresses": "bind-address"}


_FIELDS = {_FLAGS.get(f.name, f.name.replace("_", "-")): f for f in dataclasses.fields(Config)}


def _kind(option: dataclasses.Field[Any]) -> Kind:
    if option.name == "service_node_port_range":
        return Kind("LOW-HIGH within 1-65535", _port_range)
    if str(option.type).startswith("tuple"):
        return LIST
    if option.name.endswith(("_file", "_config")) or option.name == "encryption_provider_config":
        return FILE
    return SECONDS if option.name == "min_request_timeout" else _KINDS.get(str(option.type), TEXT)


def _port_range(text: str) -> str:
    low, _, high = text.partition("-")
    if not 0 < int(low) <= int(high) < 65536:
        raise ValueError(text)
    return text


SETTINGS = Settings("apiserver", {flag: _kind(option) for flag, option in _FIELDS.items()})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="apiserver", description="navarch's API server: the Kubernetes API over HTTPS")
    for flag, option in _FIELDS.items():
        kind = SETTINGS.kinds[flag]
        optional: dict[str, Any] = {"nargs": "?", "const": True} if kind is BOOLEAN else {}
        out.add_argument(
            f"--{flag}", dest=option.name, action="append" if kind is LIST else "store", default=None, **optional,
            type=kind.read if kind in (COUNT, DURATION, SECONDS, BOOLEAN) else str,
            help=_HELP.get(option.name, "").replace("%", "%%") or None,
        )  # fmt: skip
    out.add_argument("--set", action="append", default=[], metavar="FLAG=VALUE", help="any of the above, as FLAG=VALUE")
    return out


def check(settings: Sequence[str]) -> None:
    """Whether the server can be told this by ``--set``. Raises ValueError."""
    SETTINGS.read_all(settings)


def parse(argv: list[str]) -> Config:
    """The configuration of a command line; exits with a message if it is wrong."""
    commands = parser()
    arguments = commands.parse_args(argv)
    values: dict[str, Any] = {k: v for k, v in vars(arguments).items() if v is not None and k != "set"}
    values = {
        k: tuple(p for text in v for p in text.split(",")) if isinstance(v, list) else v for k, v in values.items()
    }
    try:
        settings = SETTINGS.read_all(arguments.set)
    except ValueError as error:
        commands.error(str(error))
    return Config(**values | {_FIELDS[flag].name: value for flag, value in settings.items()})
