"""Users, impersonation and the audit log, with the real kubectl on a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.auth.real import Kubectl, running

TOKENS = 'jane-token,jane,u1,"dev,ops"\nroot-token,root,u0,system:masters\n'
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ["/api*", "/openapi*"]}
- {level: RequestResponse, omitManagedFields: true, resources: [{group: "", resources: [configmaps]}]}
- {level: Request, resources: [{group: "", resources: [secrets]}], namespaces: [kube-system]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}], verbs: [watch]}
- {level: None, resources: [{group: "", resources: [secrets]}]}
- {level: Metadata, userGroups: [dev]}
- {level: Metadata, users: [""]}
"""
RIGHTS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: as-NUMBER}
rules: [{apiGroups: ["", authentication.k8s.io], resources: [RESOURCE], verbs: [impersonate]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: as-NUMBER}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: as-NUMBER}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: dev}]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "tokens.csv").write_text(TOKENS)
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path


def who(kubectl: Kubectl, *arguments: str) -> dict[str, Any]:
    user: dict[str, Any] = json.loads(kubectl("auth", "whoami", "-o", "json", *arguments))["status"]["userInfo"]
    return user


def impersonate(kubectl: Kubectl, jane: list[str]) -> None:
    """Each part of the new self is a right of its own."""
    alias = ["--as", "bob", "--as-group", "dev", "--as-uid", "7"]
    refused = kubectl.fails("get", "ns", *jane, *alias)
    assert 'users "bob" is forbidden: User "jane" cannot impersonate resource "users"' in refused
    for number, refused in enumerate(("users", "groups", "uids")):
        assert f'cannot impersonate resource "{refused}"' in kubectl.fails("get", "ns", *jane, *alias)
        kubectl("apply", "-f", "-", text=RIGHTS.replace("NUMBER", str(number)).replace("RESOURCE", refused))
    assert who(kubectl, *jane, *alias) == {"username": "bob", "uid": "7", "groups": ["dev", "system:authenticated"]}
    account = who(kubectl, "--as", "system:serviceaccount:ns:a")
    assert account["groups"] == ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]


def ask_as_anonymous(kubectl: Kubectl, jane: list[str]) -> None:
    """Health and version, nothing else."""
    assert "+navarch" in kubectl.anonymous("/version")[1]
    assert kubectl.anonymous("/readyz") == (200, "ok") and kubectl.anonymous("/livez/ping")[0] == 403
    code, text = kubectl.anonymous("/api")
    assert code == 403 and json.loads(text)["message"].endswith('"system:anonymous" cannot get path "/api"')
    assert json.loads(kubectl("get", "--raw", "/api", *jane))["versions"] == ["v1"]


def write_for_the_audit_log(kubectl: Kubectl) -> None:
    kubectl("create", "configmap", "told", "--from-literal=a=b")
    told2 = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: told2}\ndata: {c: d}\n"
    kubectl("apply", "--server-side", "-f", "-", text=told2)
    kubectl("create", "secret", "generic", "untold")
    kubectl("create", "secret", "generic", "half", "-n", "kube-system", "--from-literal=x=y")
    kubectl("get", "--raw", "/api/v1/namespaces/default/secrets?watch=1&timeoutSeconds=1")


def test_users(home: Path) -> None:
    flags = ("--token-auth-file", str(home / "tokens.csv"), "--audit-policy-file", str(home / "policy.yaml"))
    log = home / "audit.log"
    with running(home, *flags, "--audit-log-path", str(log), store="memory") as kubectl:
        jane = kubectl.token("jane-token")

        assert who(kubectl, *jane) == {"username": "jane", "uid": "u1", "groups": ["dev", "ops", "system:authenticated"]}
        admin = who(kubectl)
        assert admin["username"] == "kubernetes-admin" and admin["groups"] == ["system:masters", "system:authenticated"]
        (credential,) = admin["extra"]["authentication.kubernetes.io/credential-id"]
        assert credential.startswith("X509SHA256=")
        assert "You must be logged in" in kubectl.fails("get", "--raw", "/api/v1/namespaces", *kubectl.token("wrong"))
        assert 'User "jane" cannot list resource "namespaces"' in kubectl.fails("get", "ns", *jane)

        impersonate(kubectl, jane)
        ask_as_anonymous(kubectl, jane)
        write_for_the_audit_log(kubectl)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    check_audit(events)


def check_audit(events: list[dict[str, Any]]) -> None:
    def find(**wanted: Any) -> list[dict[str, Any]]:
        return [
            e for e in events
            if all(e["objectRef"].get(k) == v if k in ("resource", "name") else e.get(k) == v for k, v in wanted.items())
        ]  # fmt: skip

    (told,) = find(resource="configmaps", name="told", verb="create")
    assert told["level"] == "RequestResponse" and told["stage"] == "ResponseComplete"
    assert told["requestObject"]["data"] == told["responseObject"]["data"] == {"a": "b"}
    assert "managedFields" not in told["responseObject"]["metadata"]
    assert told["responseStatus"] == {"metadata": {}, "code": 201} and told["sourceIPs"] == ["127.0.0.1"]
    assert told["annotations"]["authorization.k8s.io/decision"] == "allow"
    (applied,) = find(resource="configmaps", name="told2", verb="patch")
    assert applied["requestObject"]["data"] == {"c": "d"}
    assert not find(resource="secrets", name="untold", verb="create")
    (half,) = find(resource="secrets", name="half", verb="create")
    assert half["level"] == "Request" and half["requestObject"]["data"] and "responseObject" not in half
    assert [e["stage"] for e in find(resource="secrets", verb="watch")] == ["ResponseStarted", "ResponseComplete"]
    asked = [e for e in events if e["user"].get("username") == "jane" and e["objectRef"]["resource"] == "namespaces"]
    assert asked[0]["annotations"] == {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
    assert asked[0]["responseStatus"]["reason"] == "Forbidden"
    aliased = [e for e in events if e.get("impersonatedUser", {}).get("username") == "bob"]
    assert aliased[0]["user"]["username"] == "jane" and aliased[0]["impersonatedUser"]["uid"] == "7"
    failed = [e for e in events if e["responseStatus"]["code"] == 401]
    assert failed[0]["responseStatus"]["message"] == "Authentication failed, attempted: bearer"
