"""lightkube, the typed client library that operators of the Juju world use."""

from __future__ import annotations

import lightkube
import pytest
from lightkube import codecs
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Node, Pod, Service
from lightkube.types import CascadeType, PatchType

from tests.clients.conftest import FOREVER, IMAGE, Kubectl
from tests.clients.widgets import GROUP, Widgets

MANIFESTS = f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: c, image: {IMAGE}, command: [sh, -c, "{FOREVER}"]}}]
"""


@pytest.fixture
def client(kubectl: Kubectl) -> lightkube.Client:
    config = lightkube.KubeConfig.from_file(kubectl.lab.environment["KUBECONFIG"])
    return lightkube.Client(config, namespace=kubectl.namespace, field_manager="lightkube-test")


def test_objects(client: lightkube.Client) -> None:
    assert [n.metadata.name for n in client.list(Node)] == ["node-1", "node-2", "node-3"]
    for i in range(5):
        client.create(ConfigMap(metadata=ObjectMeta(name=f"c{i}", labels={"n": str(i)}), data={"a": str(i)}))
    names = [c.metadata.name for c in client.list(ConfigMap, chunk_size=2, labels={"n": lightkube.operators.exists()})]
    assert names == [f"c{i}" for i in range(5)]
    assert [c.metadata.name for c in client.list(ConfigMap, labels={"n": ("1", "2")})] == ["c1", "c2"]
    assert [c.metadata.name for c in client.list(ConfigMap, fields={"metadata.name": "c3"})] == ["c3"]

    client.patch(ConfigMap, "c0", {"data": {"b": "x"}}, patch_type=PatchType.STRATEGIC)
    client.patch(ConfigMap, "c0", {"data": {"a": None}}, patch_type=PatchType.MERGE)
    client.patch(ConfigMap, "c0", [{"op": "add", "path": "/data/c", "value": "y"}], patch_type=PatchType.JSON)
    seen = client.get(ConfigMap, "c0")
    assert seen.data == {"b": "x", "c": "y"}
    seen.data = {"d": "z"}
    assert client.replace(seen).data == {"d": "z"}
    with pytest.raises(ApiError) as caught:
        client.replace(seen)
    assert caught.value.status.reason == "Conflict" and caught.value.status.code == 409

    listed = client.list(ConfigMap)
    assert len(list(listed)) == 6
    version = listed.resourceVersion
    client.delete(ConfigMap, "c4")
    for event, gone in client.watch(ConfigMap, resource_version=version):
        assert (event, gone.metadata.name) == ("DELETED", "c4")
        break
    client.deletecollection(ConfigMap)
    assert list(client.list(ConfigMap, labels={"n": lightkube.operators.exists()})) == []


def test_apply_and_workloads(client: lightkube.Client, kubectl: Kubectl) -> None:
    for each in codecs.load_all_yaml(MANIFESTS):
        client.apply(each)
        client.apply(each)  # again is the same
    client.wait(Deployment, "web", for_conditions=["Available"])
    scale = client.get(Deployment.Scale, "web")
    scale.spec.replicas = 2
    client.replace(scale, name="web")
    kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    other = lightkube.Client(
        lightkube.KubeConfig.from_file(kubectl.lab.environment["KUBECONFIG"]),
        namespace=kubectl.namespace,
        field_manager="other",
    )
    (mine,) = codecs.load_all_yaml(MANIFESTS.partition("---")[2].replace("Seconds: 0", "Seconds: 5"))
    with pytest.raises(ApiError) as caught:
        other.apply(mine)
    assert 'conflicts with "lightkube-test":\n- .spec.template.spec.terminationGracePeriodSeconds' in (
        caught.value.status.message
    )
    other.apply(mine, force=True)
    kubectl("rollout", "status", "deploy/web", "--timeout=30s")
    pod = next(p for p in client.list(Pod, labels={"app": "web"}) if not p.metadata.deletionTimestamp)
    assert list(client.log(pod.metadata.name)) == ["started\n"]
    result = client.exec(
        pod.metadata.name, command=["sh", "-c", "cat; echo err >&2; exit 3"], stdin="in\n", stdout=True, stderr=True
    )
    assert (result.stdout, result.stderr, result.exit_code) == ("in\n", "err\n", 3)
    assert client.get(Service, "web").spec.clusterIP.startswith("10.")
    client.delete(Deployment, "web", cascade=CascadeType.FOREGROUND)
    kubectl("wait", "--for=delete", "deploy/web", "--timeout=30s")


def test_custom_resource(client: lightkube.Client, widgets: Widgets) -> None:
    widget = create_namespaced_resource(GROUP, "v1", "Widget", "widgets")
    client.create(widget(metadata=ObjectMeta(name="w"), spec={"colour": "red"}))
    client.patch(widget.Status, "w", {"status": {"phase": "Grown"}}, patch_type=PatchType.MERGE)
    seen = client.get(widget, "w")
    assert (seen.spec, seen.status) == ({"colour": "red", "size": 1}, {"phase": "Grown"})
    client.delete(widget, "w")
