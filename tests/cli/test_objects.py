"""apply, get, delete, scale and rollout against a real server, compared with kubectl."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Navarch, Ran

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: nginx
        env: [{name: A, value: "1<2"}, {name: B, value: "2"}]
---
apiVersion: v1
kind: Service
metadata: {name: web, creationTimestamp: null}
spec:
  selector: {app: web}
  ports: [{port: 80}]
status: {loadBalancer: {}}
"""


@pytest.fixture
def web(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


def test_apply_creates_changes_and_removes(navarch: Navarch, web: Path) -> None:
    n = ("-n", navarch.namespace)
    assert navarch.ok("apply", "-f", str(web), "--dry-run=client", *n).splitlines() == [
        "deployment.apps/web created (dry run)",
        "service/web created (dry run)",
    ]
    assert navarch.ok("apply", "-f", str(web), *n) == "deployment.apps/web created\nservice/web created\n"
    assert navarch.ok("apply", "-f", str(web), *n) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    # What others add stays; what was applied and is left out now goes.
    navarch.ok("scale", "deploy/web", "--replicas=3", *n)
    web.write_text(WEB.replace(', {name: B, value: "2"}', "").replace("  replicas: 2\n", ""))
    assert navarch.ok("apply", "-f", str(web), *n) == "deployment.apps/web configured\nservice/web unchanged\n"
    container = json.loads(navarch.ok("get", "deploy", "web", "-o", "json", *n))["spec"]["template"]["spec"][
        "containers"
    ]
    assert container[0]["env"] == [{"name": "A", "value": "1<2"}]


def test_apply_and_kubectl_agree_on_what_is_applied(
    navarch: Navarch, kubectl: Callable[..., Ran], web: Path, tmp_path: Path
) -> None:
    n = ("-n", navarch.namespace)
    # kubectl takes the null and the empty status of generated manifests for changes, each time anew; we do not.
    plain = WEB.replace(", creationTimestamp: null", "").replace("status: {loadBalancer: {}}\n", "")
    web.write_text(plain)
    navarch.ok("apply", "-f", str(web), *n)
    assert kubectl("apply", "-f", str(web), *n).out == "deployment.apps/web unchanged\nservice/web unchanged\n"
    web.write_text(plain.replace("1<2", "2<3"))
    assert kubectl("apply", "-f", str(web), *n).out == "deployment.apps/web configured\nservice/web unchanged\n"
    assert navarch.ok("apply", "-f", str(web), *n) == "deployment.apps/web unchanged\nservice/web unchanged\n"


def test_apply_says_what_is_wrong(navarch: Navarch, tmp_path: Path) -> None:
    n = ("-n", navarch.namespace)
    file = tmp_path / "x.yaml"

    def errors(text: str) -> str:
        file.write_text(text)
        ran = navarch("apply", "-f", str(file), *n)
        assert ran.code == 1
        return ran.err

    assert (
        navarch("apply", "-f", str(tmp_path / "none.yaml")).err
        == f'error: the path "{tmp_path}/none.yaml" does not exist\n'
    )
    assert "error validating data: apiVersion not set" in errors("kind: Pod")
    assert f"error: error parsing {file}: error converting YAML to JSON: yaml: line 1: did not find" in errors("a: [")
    assert 'no matches for kind "Foo" in version "foo/v1"' in errors(
        "{apiVersion: foo/v1, kind: Foo, metadata: {name: x}}"
    )
    wrong = "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: []}}"
    assert errors(wrong) == 'The Pod "x" is invalid: spec.containers: Required value\n'
    unknown = "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, dat: {}}"
    assert 'strict decoding error: unknown field "dat"' in errors(unknown)
    elsewhere = "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: kube-system}}"
    assert "does not match the namespace" in errors(elsewhere)


@pytest.mark.parametrize(
    "arguments",
    [
        "get nodes",
        "get svc -A -o name",
        "get sa,cm -n kube-system --show-labels",
        "get ns default -o yaml",
        "get cm -n kube-system -o json",
        "get cm kube-root-ca.crt nope -n default",
        "get svc kubernetes -n default -o wide --show-kind",
        "get pods -n kube-system",
        "get -n default svc -o jsonpath={.items[*].spec.ports[?(@.name=='https')].port}",
        "get foo",
        "get ns/default svc/kubernetes -n default",
        "get svc -n default -o custom-columns=NAME:.metadata.name,P:.spec.ports[*].port,X:.x",
        "get nodes -L kubernetes.io/os --no-headers --sort-by=.metadata.name",
    ],
)  # fmt: skip
def test_get_prints_what_kubectl_prints(command: Navarch, kubectl: Callable[..., Ran], arguments: str) -> None:
    ours, theirs = command(*arguments.split()), kubectl(*arguments.split())

    def ageless(text: str) -> str:
        return re.sub(r"\b\d+[smh](\d+s)? *(?=\s|$)|\d\d:\d\d:\d\dZ|resourceVersion.*", "", text)

    assert (ours.code, ageless(ours.out), ours.err) == (theirs.code, ageless(theirs.out), theirs.err)


def test_rollout(navarch: Navarch, web: Path) -> None:
    n = ("-n", navarch.namespace)
    navarch.ok("apply", "-f", str(web), *n)
    assert navarch.ok("rollout", "status", "deploy/web", *n).endswith('deployment "web" successfully rolled out\n')
    navarch.ok("rollout", "restart", "deployment", "web", *n)
    assert navarch.ok("rollout", "status", "deploy/web", "--timeout=30s", *n).endswith("successfully rolled out\n")
    assert navarch.ok("rollout", "history", "deploy/web", *n) == (
        "deployment.apps/web \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
    )
    assert navarch.ok("rollout", "undo", "deploy/web", *n) == "deployment.apps/web rolled back\n"
    navarch.ok("rollout", "status", "deploy/web", *n)
    again = navarch.ok("rollout", "undo", "deploy/web", "--to-revision=3", *n)
    assert again == "deployment.apps/web skipped rollback (current template already matches revision 3)\n"
    assert navarch.ok("rollout", "pause", "deploy/web", *n) == "deployment.apps/web paused\n"
    assert navarch("rollout", "pause", "deploy/web", *n).err == 'error: deployments.apps "web" is already paused\n'
    assert navarch.ok("rollout", "resume", "deploy/web", *n) == "deployment.apps/web resumed\n"


def test_delete_waits_until_objects_are_gone(navarch: Navarch, web: Path) -> None:
    n = ("-n", navarch.namespace)
    navarch.ok("apply", "-f", str(web), *n)
    navarch.ok("rollout", "status", "deploy/web", *n)
    assert navarch.ok("delete", "-f", str(web), *n) == 'deployment.apps "web" deleted\nservice "web" deleted\n'
    assert navarch("delete", "svc", "web", *n).err == 'Error from server (NotFound): services "web" not found\n'
    pods = navarch.ok("delete", "pods", "--all", "--force", *n)
    assert "force deleted" in pods or pods == "No resources found\n"
    ran = navarch("get", "pods", *n)
    assert ran == Ran(0, "", f"No resources found in {navarch.namespace} namespace.\n")


def test_output_of_apply_is_the_object(navarch: Navarch, web: Path) -> None:
    made = yaml.safe_load(navarch.ok("create", "-f", str(web), "-o", "yaml", "-n", navarch.namespace))
    assert [item["kind"] for item in made["items"]] == ["Deployment", "Service"]
    ran = navarch("create", "-f", str(web), "-n", navarch.namespace)
    assert ran.code == 1
    assert (
        f'Error from server (AlreadyExists): error when creating "{web}": deployments.apps "web" already exists'
        in ran.err
    )


def test_replace_of_what_no_version_is_named_for(navarch: Navarch, tmp_path: Path) -> None:
    """The server replaces budgets only by who names the version that he has seen; kubectl, too, asks for it."""
    n = ("-n", navarch.namespace)
    budget = tmp_path / "budget.yaml"
    text = "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b}, spec: {minAvailable: MIN, selector: {}}}"
    budget.write_text(text.replace("MIN", "1"))
    navarch.ok("create", "-f", str(budget), *n)
    budget.write_text(text.replace("MIN", "2"))
    assert navarch.ok("replace", "-f", str(budget), *n) == "poddisruptionbudget.policy/b replaced\n"
    assert navarch.ok("get", "pdb", "b", "-o", "jsonpath={.spec.minAvailable}", *n) == "2"
