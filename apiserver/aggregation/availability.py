"""Whether an API server behind an APIService can be asked: the reasons and words of Kubernetes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from apiserver.aggregation.strategy import AVAILABLE
from apiserver.serviceresolver import ready_addresses, service_port

Tree = dict[str, Any]


class Finding(NamedTuple):
    """A condition without its type and time."""

    status: str
    reason: str
    message: str


PASSED = Finding("True", "Passed", "all checks passed")


def referenced(spec: Tree, service: Tree | None, slices: Sequence[Tree]) -> Finding | None:
    """The fault of the service that an APIService names; None if there is none, and the server can be asked."""
    reference = spec["service"]
    what = f'service/{reference["name"]} in "{reference["namespace"]}"'
    if service is None:
        return Finding("False", "ServiceNotFound", f"{what} is not present")
    if service["spec"].get("type", "ClusterIP") != "ClusterIP":
        return None
    number = reference.get("port") or 443
    port = service_port(service, number)
    if port is None:
        return Finding("False", "ServicePortError", f"{what} is not listening on port {number}")
    if not slices:
        return Finding("False", "EndpointsNotFound", f"cannot find endpointslices for {what}")
    name = port.get("name") or ""
    if not ready_addresses(list(slices), name):
        text = f'endpointslices for {what} have no addresses with port name "{name}"'
        return Finding("False", "MissingEndpoints", text)
    return None


def failed(url: str, why: str) -> Finding:
    """It was asked for its discovery document, and did not answer well."""
    return Finding("False", "FailedDiscoveryCheck", f"failing or missing response from {url}: {why}")


def with_finding(status: Tree, finding: Finding, now: str) -> Tree:
    """The status with this condition; its time moves only with its value."""
    new = {"type": AVAILABLE, **finding._asdict(), "lastTransitionTime": now}
    conditions = []
    for old in status.get("conditions") or ():
        if old.get("type") != AVAILABLE:
            conditions.append(old)
        elif old.get("status") == finding.status:
            new["lastTransitionTime"] = old.get("lastTransitionTime") or now
    return status | {"conditions": [*conditions, new]}
