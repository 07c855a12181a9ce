"""A kopf operator on a custom resource: handlers, finalizers, status, peering, events."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clients.conftest import Kubectl
from tests.clients.widgets import GROUP, Widgets
from tests.e2e.harness import wait_for

PEERING = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: kopfpeerings.kopf.dev}
spec:
  scope: Namespaced
  group: kopf.dev
  names: {kind: KopfPeering, plural: kopfpeerings, singular: kopfpeering}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {status: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
WATCHED = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","labels":{"watched":"yes"}}}'


def widget(name: str, colour: str) -> str:
    return json.dumps(
        {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"colour": colour}}
    )


class Operator:
    """``kopf run`` in kubectl's namespace; the caller ends it. Its output goes to ``log``."""

    def __init__(self, kubectl: Kubectl, log: Path) -> None:
        self.log = log
        handlers = str(Path(__file__).with_name("operator_.py"))
        words = [sys.executable, "-m", "kopf", "run", "-n", kubectl.namespace, handlers]
        with log.open("wb") as file:
            self.process = subprocess.Popen(words, env=kubectl.lab.environment, stdout=file, stderr=file)

    def until(self, condition: Callable[[], Any], what: str) -> None:
        try:
            wait_for(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()}") from None


def colour(kubectl: Kubectl, name: str) -> str:
    return kubectl("get", "cm", name, "-o", "jsonpath={.data.colour}", "--ignore-not-found")


def peering_and_a_widget(kubectl: Kubectl) -> None:
    """All that is there when the operator comes."""
    kubectl("apply", "-f", "-", stdin=PEERING)
    kubectl("wait", "--for=condition=Established", "crd/kopfpeerings.kopf.dev", "--timeout=20s")
    kubectl("apply", "-f", "-", stdin="apiVersion: kopf.dev/v1\nkind: KopfPeering\nmetadata: {name: widgets}\n")
    kubectl("apply", "-f", "-", stdin=widget("before", "grey"))


def handles_creation(kubectl: Kubectl, operator: Operator) -> None:
    operator.until(lambda: colour(kubectl, "before") == "grey", "what was there is handled")
    kubectl("apply", "-f", "-", stdin=widget("w", "red"))
    operator.until(lambda: colour(kubectl, "w") == "red", "the handler of creation")
    operator.until(
        lambda: kubectl.get("widget", "w").get("status", {}).get("created") == {"config-map": "w"},
        "the handler's result in the status",
    )
    assert kubectl.get("widget", "w")["metadata"]["finalizers"] == [f"{GROUP}/operator"]


def handles_updates(kubectl: Kubectl, operator: Operator) -> None:
    kubectl("apply", "-f", "-", stdin=widget("w", "blue"))
    operator.until(
        lambda: kubectl.get("widget", "w")["status"].get("painted") == "red to blue", "the handler of updates"
    )
    assert colour(kubectl, "w") == "blue"
    operator.until(
        lambda: "Handler 'created' succeeded" in kubectl("events", "--for", "widget/w"), "events of the operator"
    )


def handles_raw_events(kubectl: Kubectl, operator: Operator) -> None:
    kubectl("create", "cm", "free")
    kubectl("label", "cm", "free", "watched=yes")
    kubectl("apply", "-f", "-", stdin=WATCHED)
    operator.until(lambda: kubectl.get("cm", "x").get("data") == {"seen": "yes"}, "the handler of raw events")


def handles_deletion(kubectl: Kubectl, operator: Operator) -> None:
    kubectl("delete", "widget", "w", "--timeout=30s")
    assert kubectl.get("cm", "w-was-here")
    operator.until(lambda: not kubectl("get", "cm", "w", "--ignore-not-found"), "what it owned is collected")


def test_operator(kubectl: Kubectl, widgets: Widgets, tmp_path: Path) -> None:
    peering_and_a_widget(kubectl)
    operator = Operator(kubectl, tmp_path / "log")
    try:
        handles_creation(kubectl, operator)
        handles_updates(kubectl, operator)
        assert len(kubectl.get("kopfpeering", "widgets")["status"]) == 1, "it has registered itself"
        handles_raw_events(kubectl, operator)
        handles_deletion(kubectl, operator)
        operator.process.terminate()
        assert operator.process.wait(30) == 0, operator.log.read_text()
        assert not kubectl.get("kopfpeering", "widgets").get("status"), "it has signed off"
        kubectl("delete", "widget", "before", "--wait=false")
        kubectl("patch", "widget", "before", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    finally:
        operator.process.kill()
        operator.process.wait()
