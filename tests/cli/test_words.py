"""describe, wait, logs, explain and the rest against a real server, compared with kubectl where its words are stable."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Navarch, Ran

FULL = """\
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {a: b, c: d}, annotations: {note: "x y", long: "line1\\nline2"}}
spec:
  initContainers:
  - {name: init, image: busybox, command: [sh, -c, "true"]}
  containers:
  - name: main
    image: nginx:1
    args: ["100"]
    ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP}]
    resources: {limits: {cpu: 500m, memory: 64Mi}, requests: {cpu: 100m, memory: 32Mi}}
    env:
    - {name: A, value: "1"}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: K, valueFrom: {configMapKeyRef: {name: cm1, key: k, optional: true}}}
    - {name: S, valueFrom: {secretKeyRef: {name: s1, key: k, optional: true}}}
    - {name: R, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    envFrom: [{configMapRef: {name: cm1, optional: true}}]
    livenessProbe: {httpGet: {path: /h, port: http}, initialDelaySeconds: 3}
    readinessProbe: {exec: {command: [cat, /x]}}
    volumeMounts: [{name: e, mountPath: /e}, {name: c, mountPath: /c, readOnly: true, subPath: p}]
  - {name: second, image: redis}
  volumes:
  - {name: e, emptyDir: {}}
  - {name: c, configMap: {name: cm1, optional: true}}
  - {name: s, secret: {secretName: s1, optional: true}}
  - {name: h, hostPath: {path: /tmp, type: Directory}}
  - {name: d, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}
  nodeSelector: {kubernetes.io/hostname: nowhere}
  tolerations: [{key: k, operator: Exists, effect: NoSchedule}, {key: k2, value: v}]
---
apiVersion: v1
kind: Service
metadata: {name: full}
spec: {type: NodePort, selector: {a: b}, ports: [{name: web, port: 80, targetPort: http}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: idle, annotations: {kubernetes.io/change-cause: because}}
spec:
  replicas: 0
  selector: {matchLabels: {app: idle}}
  template:
    metadata: {labels: {app: idle}}
    spec: {containers: [{name: c, image: x}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: texts}
data: {a: "1", b: "two\\nlines"}
"""


def ageless(text: str) -> str:
    """Without ages, and without the blanks that depend on how long they are."""
    return re.sub(r" +", " ", re.sub(r"\b\d+(m\d+)?[smh]\b(?! delay)|-{3,}", "AGE", text))


def undisturbed(navarch: Navarch, kubectl: Callable[..., Ran], *words: str) -> tuple[Ran, Ran]:
    """Both answers, from a moment in which nothing (an event, say) came in between: kubectl says the same before and after."""
    while True:
        before, ours, after = kubectl(*words), navarch(*words), kubectl(*words)
        if ageless(before.out) == ageless(after.out):
            return ours, after


def test_descriptions_are_kubectls(navarch: Navarch, kubectl: Callable[..., Ran], tmp_path: Path) -> None:
    file = tmp_path / "full.yaml"
    file.write_text(FULL)
    n = ("-n", navarch.namespace)
    navarch.ok("apply", "-f", str(file), *n)
    navarch.ok("rollout", "status", "deploy/idle", *n)
    navarch.ok("wait", "pod/full", "--for=condition=PodScheduled=false", *n)
    for what in ("pod full", "svc full", "deploy idle", "rs", "cm texts", "sa default", "pod fu", "pod nope"):
        ours, theirs = undisturbed(navarch, kubectl, "describe", *what.split(), *n)
        if what != "sa default":  # we describe those like any other kind
            assert ours.out == ageless(theirs.out) or ageless(ours.out) == ageless(theirs.out), what
        assert (ours.code, ours.err) == (theirs.code, theirs.err)
    node = kubectl("describe", "node", "n1").out.partition("Events:")[0]
    assert ageless(
        re.sub("RenewTime.*|.*Pressure.*|  Ready .*", "", navarch.ok("describe", "node", "n1")).partition("Events:")[0]
    ) == (ageless(re.sub("RenewTime.*|.*Pressure.*|  Ready .*", "", node)))


@pytest.mark.parametrize(
    "arguments",
    [
        "api-resources -o wide",
        "api-resources --namespaced=false -o name",
        "explain pods.spec.containers.livenessProbe.httpGet",
        "explain deploy",
        "explain cm.data",
        "explain rs --recursive",
        "wait pod/nope -n default --for=condition=Ready",
        "wait pod/nope -n default --for=delete",
        "wait pods -n default -l x=y --for=condition=Ready",
        "wait node/n1 --for=condition=ready",
        "wait node/n1 --for=jsonpath={.metadata.name}=n1",
        "wait node/n1 --for=condition=Nonsense --timeout=10ms",
        "wait node/n1 --for=nonsense",
        "logs nope -n default",
        "exec nope -n default -- ls",
        "scale svc/kubernetes -n default --replicas=2",
        "rollout status svc/kubernetes -n default",
        "rollout history svc/kubernetes -n default",
        "delete cm nope -n default",
        "delete cm",
    ],
)
def test_words_are_kubectls(command: Navarch, kubectl: Callable[..., Ran], arguments: str) -> None:
    ours, theirs = command(*arguments.split()), kubectl(*arguments.split())
    assert ours == theirs


def test_wait_for_what_comes_and_goes(navarch: Navarch, tmp_path: Path) -> None:
    n = ("-n", navarch.namespace)
    file = tmp_path / "pod.yaml"
    file.write_text("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: x}]}}")
    navarch.ok("apply", "-f", str(file), *n)
    assert navarch.ok("wait", "pod/p", "--for=condition=Ready", *n) == "pod/p condition met\n"
    assert navarch.ok("wait", "pod", "p", "--for=jsonpath={.status.phase}=Running", *n) == "pod/p condition met\n"
    assert navarch.ok("wait", "pod", "p", "--for=create", *n) == "pod/p condition met\n"
    navarch.ok("delete", "pod", "p", "--wait=false", *n)
    assert navarch("wait", "pod/p", "--for=delete", *n).code == 0
    assert navarch.ok("wait", "pod/p", "--for=delete", *n) == ""


def test_an_unknown_lab_is_said_to_be_unknown(
    command: Navarch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    ran = command("get", "pods", "--lab", "x")
    assert (ran.code, ran.err) == (
        1,
        'error: there is no lab "x" and no $KUBECONFIG; start one with: navarch up --lab x\n',
    )


def test_flags_as_people_write_them(command: Navarch) -> None:
    assert command.ok("get", "ns", "default", "-o=name") == "namespace/default\n"
    assert command.ok("get", "ns", "default", "-oname", "--all-namespaces=false") == "namespace/default\n"
    assert (
        command.ok("delete", "ns", "default", "--dry-run", "--wait=false") == 'namespace "default" deleted (dry run)\n'
    )
    ran = command("get", "ns", "--nonsense")
    assert ran.code == 1
    assert ran.err == "error: unknown flag: --nonsense\nSee 'navarch get --help' for usage.\n"


def test_a_server_that_does_not_listen(command: Navarch, kubeconfig: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "kubeconfig"
    elsewhere.write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", Path(kubeconfig).read_text()))
    ran = command("get", "pods", "--kubeconfig", str(elsewhere))
    expected = "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?\n"
    assert (ran.code, ran.err) == (1, expected)
