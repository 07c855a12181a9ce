"""KubeSchedulerConfiguration (kubescheduler.config.k8s.io/v1): the file that --config names, and the flags of --set.

The file is Kubernetes': its fields, its strictness about unknown ones, its checks. What tunes sampling and parallelism has
no meaning here, since every node is always scored by one thread: such fields are checked, and a warning says so.
leaderElect is off unless the file says otherwise (upstream: on), since most labs have one scheduler.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from navarch.api.durations import parse_duration
from navarch.api.errors import Cause, invalid, required
from navarch.api.serialization import decode_yaml
from scheduler.framework.arguments import Args, Strict, decoded
from scheduler.framework.plugin import Plugin, Profile
from scheduler.framework.profiles import DEFAULT_SCHEDULER, ProfileConfig, default_profile, profiles
from scheduler.framework.ties import TieBreak, by_chance
from scheduler.plugins.node_resources import NodeResourcesFit

__all__ = ["DEFAULT_SCHEDULER", "SchedulerConfig", "default_profile"]

VERSION = "kubescheduler.config.k8s.io/v1"
KIND = "KubeSchedulerConfiguration"
T = TypeVar("T")




class LeaderElection(Strict):
    leader_elect: bool = False
    lease_duration: str = "15s"
    renew_deadline: str = "10s"
    retry_period: str = "2s"
    resource_lock: str = "leases"
    resource_name: str = "kube-scheduler"
    resource_namespace: str = "kube-system"

    @property
    def times(self) -> tuple[float, float, float]:
        """Lease duration, renew deadline and retry period in seconds."""
        return parse_duration(self.lease_duration), parse_duration(self.renew_deadline), parse_duration(self.retry_period)


class ClientConnection(Strict):
    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = ""
    qps: float = 50
    burst: int = 100


class ManagedResource(Strict):
    name: str = ""
    ignored_by_scheduler: bool = False


class ExtenderTLS(Strict):
    insecure: bool = False
    server_name: str = ""
    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""
    cert_data: str = ""
    key_data: str = ""
    ca_data: str = ""


class ExtenderConfig(Strict):
    url_prefix: str = msgspec.field(default="", name="urlPrefix")
    filter_verb: str = ""
    preempt_verb: str = ""
    prioritize_verb: str = ""
    weight: int = 0
    bind_verb: str = ""
    enable_https: bool = msgspec.field(default=False, name="enableHTTPS")
    tls_config: ExtenderTLS | None = msgspec.field(default=None, name="tlsConfig")
    http_timeout: str = msgspec.field(default="5s", name="httpTimeout")
    node_cache_capable: bool = False
    managed_resources: list[ManagedResource] = []
    ignorable: bool = False


class Document(Strict):
    """The whole file."""

    api_version: str = ""
    kind: str = ""
    parallelism: int = 16
    leader_election: LeaderElection = msgspec.field(default_factory=LeaderElection)
    client_connection: ClientConnection = msgspec.field(default_factory=ClientConnection)
    enable_profiling: bool = True
    enable_contention_profiling: bool = True
    percentage_of_nodes_to_score: int | None = None
    pod_initial_backoff_seconds: int = 1
    pod_max_backoff_seconds: int = 10
    profiles: list[ProfileConfig] | None = None
    extenders: list[ExtenderConfig] = []
    delay_cache_until_active: bool = False


@dataclass
class SchedulerConfig:
    """Seconds, as in KubeSchedulerConfiguration (podInitialBackoffSeconds, podMaxBackoffSeconds)."""

    pod_initial_backoff_seconds: float = 1.0
    pod_max_backoff_seconds: float = 10.0
    leader_election: LeaderElection = field(default_factory=LeaderElection)
    kubeconfig: str = ""
    profiles: list[Profile] = field(default_factory=lambda: [default_profile()])
    extenders: list[ExtenderConfig] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tie_break: TieBreak = by_chance
    """Which of several nodes with the same total a pod gets; in all profiles."""

    @classmethod
    def load(cls, text: str, user: Sequence[type[Plugin]] = ()) -> SchedulerConfig:
        """A KubeSchedulerConfiguration in YAML, or "" for the defaults. Raises ValueError with every cause."""
        documents: list[Any] = decode_yaml(text) if text.strip() else [{"apiVersion": VERSION, "kind": KIND}]
        if len(documents) != 1 or not isinstance(documents[0], dict):
            raise ValueError("one KubeSchedulerConfiguration is expected")
        tree: Args = documents[0]
        version, kind = tree.get("apiVersion", VERSION), tree.get("kind", KIND)
        if (version, kind) != (VERSION, KIND):
            raise ValueError(f'no kind "{kind}" is registered for version "{version}"')
        document = decoded(tree, Document, "")
        causes = _check(document)
        ignored = [r.name for e in document.extenders for r in e.managed_resources if r.ignored_by_scheduler]
        profiles_ = profiles(document.profiles if document.profiles is not None else [ProfileConfig()], user, causes)
        for plugin in (p for profile in profiles_ for p in profile.plugins if isinstance(p, NodeResourcesFit)):
            plugin.ignored += tuple(ignored)  # an extender counts these
        if causes:
            texts = [c.text() for c in causes]
            raise ValueError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
        return cls(
            document.pod_initial_backoff_seconds, document.pod_max_backoff_seconds, document.leader_election,
            document.client_connection.kubeconfig, profiles_, document.extenders, _without_meaning(tree),
        )  # fmt: skip


def _without_meaning(tree: Args) -> list[str]:
    """Warnings about fields that are accepted and do nothing here."""
    out = []
    if tree.get("parallelism"):
        out.append("parallelism has no meaning here: filters and scores work on whole columns")
    scored = [("percentageOfNodesToScore", tree.get("percentageOfNodesToScore"))] + [
        (f"profiles[{n}].percentageOfNodesToScore", p.get("percentageOfNodesToScore"))
        for n, p in enumerate(tree.get("profiles") or ())
    ]
    out += [f"{path} has no meaning here: every node is scored, always" for path, value in scored if value]
    connection = tree.get("clientConnection") or {}
    named = [n for n in ("acceptContentTypes", "contentType", "qps", "burst") if connection.get(n)]
    out += [f"clientConnection.{n} has no meaning here: JSON, and no limit of our own" for n in named]
    if tree.get("delayCacheUntilActive") is False and (tree.get("leaderElection") or {}).get("leaderElect"):
        out.append("delayCacheUntilActive is always true here: a scheduler lists when it begins to lead")
    return out


def _check(document: Document) -> list[Cause]:
    out: list[Cause] = []
    if document.parallelism <= 0:
        out.append(invalid("parallelism", document.parallelism, "should be an integer value greater than zero"))
    percentages = [("percentageOfNodesToScore", document.percentage_of_nodes_to_score)] + [
        (f"profiles[{n}].percentageOfNodesToScore", p.percentage_of_nodes_to_score)
        for n, p in enumerate(document.profiles or ())
    ]
    for path, value in percentages:
        if value is not None and not 0 <= value <= 100:
            out.append(invalid(path, value, "not in valid range [0-100]"))
    first, most = document.pod_initial_backoff_seconds, document.pod_max_backoff_seconds
    if first <= 0:
        out.append(invalid("podInitialBackoffSeconds", first, "must be greater than 0"))
    if most < first:
        out.append(invalid("podMaxBackoffSeconds", most, "must be greater than or equal to PodInitialBackoffSeconds"))
    if document.profiles is not None and not document.profiles:
        out.append(required("profiles"))
    return out + _check_election(document.leader_election) + _check_extenders(document.extenders)


def _check_election(election: LeaderElection) -> list[Cause]:
    out: list[Cause] = []
    times: dict[str, float] = {}
    for name in ("leaseDuration", "renewDeadline", "retryPeriod"):
        text = getattr(election, re.sub("([A-Z])", lambda m: "_" + m[1].lower(), name))
        try:
            times[name] = parse_duration(text)
        except ValueError as error:
            out.append(invalid(f"leaderElection.{name}", text, str(error)))
    if out or not election.leader_elect:
        return out
    for name, value in times.items():
        if value <= 0:
            out.append(invalid(f"leaderElection.{name}", value, "must be greater than zero"))
    if times["leaseDuration"] <= times["renewDeadline"]:
        path, text = "leaderElection.leaseDuration", election.lease_duration
        out.append(invalid(path, text, "LeaseDuration must be greater than RenewDeadline"))
    if times["renewDeadline"] <= times["retryPeriod"]:
        path, text = "leaderElection.renewDeadline", election.renew_deadline
        out.append(invalid(path, text, "RenewDeadline must be greater than RetryPeriod"))
    if election.resource_lock != "leases":
        out.append(
            invalid("leaderElection.resourceLock", election.resource_lock, 'resourceLock value must be "leases"')
        )
    for name, value_ in (("resourceNamespace", election.resource_namespace), ("resourceName", election.resource_name)):
        if not value_:
            out.append(required(f"leaderElection.{name}", f"{name} is required"))
    return out


def _check_extenders(extenders: Sequence[ExtenderConfig]) -> list[Cause]:
    out: list[Cause] = []
    binders, managed = 0, set()
    for n, extender in enumerate(extenders):
        path = f"extenders[{n}]"
        if not extender.url_prefix:
            out.append(required(f"{path}.urlPrefix"))
        if extender.prioritize_verb and extender.weight <= 0:
            out.append(invalid(f"{path}.weight", extender.weight, "must have a positive weight applied to it"))
        binders += bool(extender.bind_verb)
        try:
            parse_duration(extender.http_timeout)
        except ValueError as error:
            out.append(invalid(f"{path}.httpTimeout", extender.http_timeout, str(error)))
        for m, resource in enumerate(extender.managed_resources):
            where = f"{path}.managedResources[{m}].name"
            if "/" not in resource.name or resource.name.startswith(("kubernetes.io/", "requests.")):
                out.append(invalid(where, resource.name, "name is an invalid extended resource name"))
            if resource.name in managed:
                out.append(invalid(where, resource.name, "duplicate extender managed resource name"))
            managed.add(resource.name)
    if binders > 1:
        out.append(
            invalid("extenders", f"found {binders} extenders implementing bind", "only one extender can implement bind")
        )
    return out
