"""A kopf operator on a custom resource: handlers, finalizers, status, peering, events."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def widget(name: str, colour: str) -> str:
    return json.dumps(
        {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"colour": colour}}
    )


def test_operator(kubectl: Kubectl, widgets: Widgets, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", stdin=PEERING)
    kubectl("wait", "--for=condition=Established", "crd/kopfpeerings.kopf.dev", "--timeout=20s")
    kubectl("apply", "-f", "-", stdin="apiVersion: kopf.dev/v1\nkind: KopfPeering\nmetadata: {name: widgets}\n")
    kubectl("apply", "-f", "-", stdin=widget("before", "grey"))  # it is there when the operator comes
    log = tmp_path / "log"
    with log.open("wb") as file:
        operator = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "kopf",
                "run",
                "-n",
                kubectl.namespace,
                str(Path(__file__).with_name("operator_.py")),
            ],
            env=kubectl.lab.environment,
            stdout=file,
            stderr=file,
        )

    def until(condition: object, what: str) -> None:
        try:
            wait_for(condition, what)  # type: ignore[arg-type]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()}") from None

    def colour(name: str) -> str:
        return kubectl("get", "cm", name, "-o", "jsonpath={.data.colour}", "--ignore-not-found")

    try:
        until(lambda: colour("before") == "grey", "what was there is handled")
        kubectl("apply", "-f", "-", stdin=widget("w", "red"))
        until(lambda: colour("w") == "red", "the handler of creation")
        until(
            lambda: kubectl.get("widget", "w").get("status", {}).get("created") == {"config-map": "w"},
            "the handler's result in the status",
        )
        assert kubectl.get("widget", "w")["metadata"]["finalizers"] == [f"{GROUP}/operator"]
        kubectl("apply", "-f", "-", stdin=widget("w", "blue"))
        until(lambda: kubectl.get("widget", "w")["status"].get("painted") == "red to blue", "the handler of updates")
        assert colour("w") == "blue"
        until(lambda: "Handler 'created' succeeded" in kubectl("events", "--for", "widget/w"), "events of the operator")
        assert len(kubectl.get("kopfpeering", "widgets")["status"]) == 1, "it has registered itself"

        kubectl("create", "cm", "free")
        kubectl("label", "cm", "free", "watched=yes")
        kubectl(
            "apply",
            "-f",
            "-",
            stdin='{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","labels":{"watched":"yes"}}}',
        )
        until(lambda: kubectl.get("cm", "x").get("data") == {"seen": "yes"}, "the handler of raw events")

        kubectl("delete", "widget", "w", "--timeout=30s")
        assert kubectl.get("cm", "w-was-here")
        until(lambda: not kubectl("get", "cm", "w", "--ignore-not-found"), "what it owned is collected")
        operator.terminate()
        assert operator.wait(30) == 0, log.read_text()
        assert not kubectl.get("kopfpeering", "widgets").get("status"), "it has signed off"
        kubectl("delete", "widget", "before", "--wait=false")
        kubectl("patch", "widget", "before", "--type=json", "-p", '[{"op":"remove","path":"/metadata/finalizers"}]')
    finally:
        operator.kill()
        operator.wait()
