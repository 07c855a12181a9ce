"""kr8s, the client library that looks like kubectl."""

from __future__ import annotations

import urllib.request

import kr8s
import pytest
from kr8s.objects import ConfigMap, Deployment, Pod, Service, new_class

from tests.clients.conftest import FOREVER, IMAGE, Kubectl
from tests.clients.widgets import GROUP, Widgets

SCRIPT = "echo hello > /tmp/index.html; httpd -p 8080 -h /tmp; echo one; " + FOREVER


@pytest.fixture
def api(kubectl: Kubectl) -> kr8s.Api:
    return kr8s.api(kubeconfig=kubectl.lab.environment["KUBECONFIG"], namespace=kubectl.namespace)


def test_cluster(api: kr8s.Api) -> None:
    assert api.version()["gitVersion"].startswith("v1.34.")
    assert api.whoami() == "kubernetes-admin"
    assert {"pods", "deployments", "customresourcedefinitions"} <= {r["name"] for r in api.api_resources()}
    assert [n.name for n in api.get("nodes")] == ["node-1", "node-2", "node-3"]


def test_objects(api: kr8s.Api, kubectl: Kubectl) -> None:
    conf = ConfigMap({"metadata": {"name": "conf"}, "data": {"a": "1"}}, api=api, namespace=kubectl.namespace)
    assert not conf.exists()
    conf.create()
    conf.label({"tier": "front"})
    conf.annotate({"note": "x y"})
    conf.patch({"data": {"b": "2"}})
    conf.patch([{"op": "replace", "path": "/data/a", "value": "3"}], type="json")
    assert dict(conf.data) == {"a": "3", "b": "2"} and conf.labels == {"tier": "front"}
    conf.remove_label("tier")
    assert not conf.labels
    assert [c.name for c in api.get("configmaps", field_selector="metadata.name=conf")] == ["conf"]
    for event, seen in api.watch("configmaps", field_selector="metadata.name=conf"):
        assert (event, seen.name) == ("ADDED", "conf")
        break
    child = ConfigMap({"metadata": {"name": "child"}}, api=api, namespace=kubectl.namespace)
    child.create()
    child.set_owner(conf)
    conf.delete(propagation_policy="Foreground")
    child.wait("delete", timeout=30)
    conf.wait("delete", timeout=30)  # a moment later: the owner goes when nothing is left that it owns
    with pytest.raises(kr8s.NotFoundError):
        ConfigMap.get("conf", api=api, namespace=kubectl.namespace)


def test_workloads_and_streams(api: kr8s.Api, kubectl: Kubectl) -> None:
    labels = {"app": "web"}
    container = {"name": "web", "image": IMAGE, "command": ["sh", "-c", SCRIPT], "ports": [{"containerPort": 8080}]}
    deployment = Deployment(
        {
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        },
        api=api,
        namespace=kubectl.namespace,
    )
    deployment.create()
    deployment.wait("condition=Available", timeout=30)
    deployment.scale(2)
    deployment.wait("jsonpath='{.status.readyReplicas}'=2", timeout=30)
    pods = deployment.pods()
    assert len(pods) == 2 and all(pod.ready() for pod in pods)
    pod: Pod = pods[0]
    assert next(iter(pod.logs())) == "one"
    assert pod.exec(["sh", "-c", "echo out; cat /tmp/index.html"]).stdout == b"out\nhello\n"
    assert pod.exec(["sh", "-c", "exit 3"], check=False).returncode == 3
    service = Service({"metadata": {"name": "web"}, "spec": {"selector": labels, "ports": [{"port": 8080}]}},
                      api=api, namespace=kubectl.namespace)  # fmt: skip
    service.create()
    for target, port in ((pod, 8080), (service, 8080)):
        with target.portforward(port, local_port="auto") as local:
            assert urllib.request.urlopen(f"http://127.0.0.1:{local}/index.html", timeout=20).read() == b"hello\n"


def test_custom_resource(api: kr8s.Api, kubectl: Kubectl, widgets: Widgets) -> None:
    widget = new_class("Widget", version=f"{GROUP}/v1", namespaced=True, plural="widgets", asyncio=False)
    made = widget({"metadata": {"name": "w"}, "spec": {"size": 1}}, api=api, namespace=kubectl.namespace)
    made.create()
    made.patch({"status": {"phase": "Grown"}}, subresource="status")
    made.wait("jsonpath='{.status.phase}'=Grown", timeout=20)
    assert [w.name for w in api.get(f"widgets.{GROUP}")] == ["w"]
    made.delete()
