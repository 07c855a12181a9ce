"""Which of the default flow schemas a request belongs to."""

from __future__ import annotations

import pytest

from apiserver.flowcontrol.defaults import flow_schemas
from apiserver.flowcontrol.matching import distinguisher, matches, schema_order
from apiserver.http.requestinfo import parse_request
from apiserver.request import ANONYMOUS, User

EVERYBODY = "system:authenticated"
NODE = User("system:node:n", ("system:nodes", EVERYBODY))
MANAGER, SCHEDULER = (User(f"system:kube-{n}", (EVERYBODY,)) for n in ("controller-manager", "scheduler"))
ACCOUNT = User("system:serviceaccount:default:x", ("system:serviceaccounts", EVERYBODY))
SYSTEM_ACCOUNT = User("system:serviceaccount:kube-system:x", ("system:serviceaccounts", EVERYBODY))
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x"


@pytest.mark.parametrize(
    ("user", "method", "path", "schema", "flow"),
    [
        (User("a", ("system:masters", EVERYBODY)), "GET", "/api/v1/pods", "exempt", ""),
        (ANONYMOUS, "GET", "/healthz", "probes", ""),
        (ANONYMOUS, "GET", "/version", "global-default", "system:anonymous"),
        (User("bob", (EVERYBODY,)), "GET", "/api/v1/pods", "global-default", "bob"),
        (NODE, "PATCH", "/api/v1/nodes/n/status", "system-node-high", "system:node:n"),
        (
            NODE,
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n",
            "system-node-high",
            "system:node:n",
        ),
        (NODE, "GET", "/api/v1/namespaces/a/pods/p", "system-nodes", "system:node:n"),
        (MANAGER, "PUT", LEASE, "system-leader-election", "system:kube-controller-manager"),
        (MANAGER, "PATCH", LEASE, "kube-controller-manager", "kube-system"),
        (MANAGER, "PUT", "/api/v1/namespaces/a/endpoints/e", "endpoint-controller", "system:kube-controller-manager"),
        (SCHEDULER, "POST", "/api/v1/namespaces/a/pods/p/binding", "kube-scheduler", "a"),
        (SYSTEM_ACCOUNT, "GET", "/api/v1/namespaces/a/pods", "kube-system-service-accounts", "a"),
        (ACCOUNT, "GET", "/api/v1/namespaces/a/pods", "service-accounts", ACCOUNT.name),
        (ACCOUNT, "GET", "/apis", "service-accounts", ACCOUNT.name),
    ],
)
def test_defaults(user: User, method: str, path: str, schema: str, flow: str) -> None:
    info = parse_request(method, path, {})
    found = next(s for s in sorted(flow_schemas(), key=schema_order) if matches(s, user, info))
    assert (found["metadata"]["name"], distinguisher(found, user, info)) == (schema, flow)


def test_precedence_then_name() -> None:
    names = [s["metadata"]["name"] for s in sorted(flow_schemas(), key=schema_order)]
    assert names[:2] == ["exempt", "probes"] and names[-2:] == ["global-default", "catch-all"]
    assert names.index("kube-controller-manager") < names.index("kube-scheduler")  # same precedence
