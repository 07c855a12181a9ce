"""The official Python client, from outside with the kubeconfig and from inside a pod with its service account."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import pydantic_core
import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import stream

from nodeagent.images.build import build
from nodeagent.images.store import ImageStore
from tests.clients.conftest import FOREVER, IMAGE, Kubectl
from tests.clients.widgets import GROUP, Widgets
from tests.e2e.harness import Lab, wait_for

PYTHON = "localhost/python:1"
INSIDE = """
from kubernetes import client, config
config.load_incluster_config()
api = client.CoreV1Api()
namespace = open("/var/run/secrets/kubernetes.io/serviceaccount/namespace").read()
print("pods", [p.metadata.name for p in api.list_namespaced_pod(namespace).items])
for what in (api.list_namespaced_secret, api.list_namespaced_config_map):
    try:
        what(namespace)
    except client.ApiException as error:
        print(error.status, error.reason, error.body)
try:
    api.list_pod_for_all_namespaces()
except client.ApiException as error:
    print(error.status, error.body)
"""


@pytest.fixture(scope="module")
def core(lab: Lab) -> Iterator[client.CoreV1Api]:
    config.load_kube_config(lab.environment["KUBECONFIG"])
    with client.ApiClient() as api:
        yield client.CoreV1Api(api)


@pytest.fixture(scope="module")
def python_image(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """This machine's Python as an image, with the libraries of the client's compiled parts; the client is mounted."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    compiled = next(Path(pydantic_core.__file__).parent.glob("*.so"))
    needed = re.findall(r"(/\S+\.so\S*) \(", subprocess.check_output(["ldd", compiled], text=True))
    copies = "\n".join(f"COPY --from=host {path} {path}" for path in dict.fromkeys(needed))
    text = f"""
        FROM scratch
        COPY --from=host /usr/bin/{name} /usr/bin/python3
        COPY --from=host /usr/lib/{name} /usr/lib/{name}
        {copies}
        ENTRYPOINT ["/usr/bin/python3", "-u"]
    """
    lines = "\n".join(line.strip() for line in text.splitlines())
    build(ImageStore(lab.home / "images"), tmp_path_factory.mktemp("context"), [PYTHON], text=lines)
    return PYTHON


def pod(name: str, script: str = FOREVER) -> client.V1Pod:
    container = client.V1Container(name="main", image=IMAGE, command=["sh", "-c", script])
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=1)
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name, labels={"app": name}), spec=spec)


def running(core: client.CoreV1Api, name: str, namespace: str) -> bool:
    status = core.read_namespaced_pod(name, namespace).status
    return bool(status.container_statuses) and status.container_statuses[0].ready


def test_inside_a_pod(kubectl: Kubectl, python_image: str) -> None:
    namespace = kubectl.namespace
    kubectl("create", "sa", "reader")
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:reader")
    packages = str(Path(kubernetes.__file__).parents[1])
    container = {
        "name": "main", "image": python_image, "args": ["-c", INSIDE], "env": [{"name": "PYTHONPATH", "value": "/packages"}],
        "volumeMounts": [{"name": "packages", "mountPath": "/packages", "readOnly": True}],
    }  # fmt: skip
    spec = {
        "restartPolicy": "Never", "serviceAccountName": "reader", "containers": [container],
        "volumes": [{"name": "packages", "hostPath": {"path": packages}}],
    }  # fmt: skip
    config.load_kube_config(kubectl.lab.environment["KUBECONFIG"])
    with client.ApiClient() as api:
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "inside"}, "spec": spec}
        client.CoreV1Api(api).create_namespaced_pod(namespace, body)
    wait_for(lambda: kubectl.get("pod", "inside")["status"]["phase"] in ("Succeeded", "Failed"), "the pod has ended")
    said = kubectl("logs", "inside")
    user = f"system:serviceaccount:{namespace}:reader"
    assert "pods ['inside']\n" in said, said
    for resource in ("secrets", "configmaps"):
        refused = (
            f'{resource} is forbidden: User \\"{user}\\" cannot list resource \\"{resource}\\" in API group \\"\\" '
        )
        assert refused + f'in the namespace \\"{namespace}\\"' in said, said
    assert "403 Forbidden {" in said and '"reason":"Forbidden"' in said
    assert (
        f'pods is forbidden: User \\"{user}\\" cannot list resource \\"pods\\"' in said
        and "at the cluster scope" in said
    )


def test_objects(kubectl: Kubectl, core: client.CoreV1Api) -> None:
    namespace = kubectl.namespace
    made = core.create_namespaced_config_map(
        namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="conf-"), data={"a": "1"})
    )
    name = made.metadata.name
    assert name.startswith("conf-") and made.metadata.creation_timestamp.tzinfo is not None
    read = core.read_namespaced_config_map(name, namespace)
    assert read.data == {"a": "1"} and read.metadata.uid == made.metadata.uid
    core.patch_namespaced_config_map(name, namespace, {"data": {"b": "2"}})
    core.patch_namespaced_config_map(name, namespace, [{"op": "add", "path": "/data/c", "value": "3"}])
    with pytest.raises(client.ApiException) as caught:
        core.replace_namespaced_config_map(name, namespace, read)  # somebody else has changed it
    assert caught.value.status == 409 and "the object has been modified" in caught.value.body
    read = core.read_namespaced_config_map(name, namespace)
    assert read.data == {"a": "1", "b": "2", "c": "3"}
    read.data = {"d": "4"}
    assert core.replace_namespaced_config_map(name, namespace, read).data == {"d": "4"}
    core.delete_namespaced_config_map(name, namespace)
    with pytest.raises(client.ApiException) as caught:
        core.read_namespaced_config_map(name, namespace)
    assert caught.value.status == 404 and f'configmaps \\"{name}\\" not found' in caught.value.body
    for i in range(7):
        core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"c{i}")))
    names, token = [], None
    while token != "":
        page = core.list_namespaced_config_map(namespace, limit=3, _continue=token)
        names += [c.metadata.name for c in page.items]
        token = page.metadata._continue or ""
    assert names == [f"c{i}" for i in range(7)] + ["kube-root-ca.crt"]
    core.delete_collection_namespaced_config_map(namespace, field_selector="metadata.name!=kube-root-ca.crt")
    assert len(core.list_namespaced_config_map(namespace).items) == 1


def test_watch(kubectl: Kubectl, core: client.CoreV1Api) -> None:
    namespace = kubectl.namespace
    start = core.list_namespaced_config_map(namespace).metadata.resource_version
    core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="w")))
    core.patch_namespaced_config_map("w", namespace, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("w", namespace)
    events = watch.Watch()
    seen: list[tuple[str, Any]] = []
    for event in events.stream(core.list_namespaced_config_map, namespace, resource_version=start, timeout_seconds=20):
        if event["object"].metadata.name == "w":
            seen.append((event["type"], event["object"].data))
        if event["type"] == "DELETED":
            events.stop()
    assert seen == [("ADDED", None), ("MODIFIED", {"a": "b"}), ("DELETED", {"a": "b"})]


def test_deployment(kubectl: Kubectl, core: client.CoreV1Api) -> None:
    namespace, apps = kubectl.namespace, client.AppsV1Api(core.api_client)
    template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": "d"}), spec=pod("d").spec)
    spec = client.V1DeploymentSpec(
        replicas=1, selector=client.V1LabelSelector(match_labels={"app": "d"}), template=template
    )
    apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="d"), spec=spec))
    wait_for(lambda: apps.read_namespaced_deployment_status("d", namespace).status.available_replicas == 1, "it runs")
    assert apps.read_namespaced_deployment_scale("d", namespace).spec.replicas == 1
    apps.patch_namespaced_deployment_scale("d", namespace, {"spec": {"replicas": 2}})
    wait_for(lambda: apps.read_namespaced_deployment_status("d", namespace).status.available_replicas == 2, "two run")
    apps.delete_namespaced_deployment("d", namespace, propagation_policy="Foreground")
    wait_for(lambda: core.list_namespaced_pod(namespace).items == [], "all is gone")


def test_streams(kubectl: Kubectl, core: client.CoreV1Api) -> None:
    namespace = kubectl.namespace
    core.create_namespaced_pod(
        namespace, pod("p", "echo one; until [ -e /tmp/go ]; do sleep 0.1; done; echo two; " + FOREVER)
    )
    wait_for(lambda: running(core, "p", namespace), "the pod is ready")

    def execute(*command: str, **options: Any) -> Any:
        options = {"stdin": False, "stdout": True, "stderr": True, "tty": False} | options
        return stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=list(command), **options)

    assert execute("sh", "-c", "echo out; echo err >&2") in ("out\nerr\n", "err\nout\n")
    failed = execute("sh", "-c", "exit 7", _preload_content=False)
    failed.run_forever(timeout=20)
    assert failed.returncode == 7
    shell = execute("sh", stdin=True, _preload_content=False)
    shell.write_stdin("echo $((6 * 7))\n")
    assert shell.readline_stdout(timeout=20) == "42"
    shell.write_stdin("echo oops >&2\n")
    assert shell.readline_stderr(timeout=20) == "oops"
    shell.write_stdin("exit 3\n")
    shell.run_forever(timeout=20)
    assert shell.returncode == 3
    with pytest.raises(client.ApiException) as caught:
        stream(core.connect_get_namespaced_pod_exec, "none", namespace, command=["ls"], stdout=True)
    assert "404" in str(caught.value)

    assert core.read_namespaced_pod_log("p", namespace) == "one\n"
    following = core.read_namespaced_pod_log("p", namespace, follow=True, _preload_content=False)
    chunks = following.stream(decode_content=False)
    assert next(chunks) == b"one\n"
    execute("touch", "/tmp/go")
    assert next(chunks).startswith(b"two\n")
    following.close()


def test_dynamic_client(kubectl: Kubectl, core: client.CoreV1Api) -> None:
    api = dynamic.DynamicClient(core.api_client)
    services = api.resources.get(api_version="v1", kind="Service")
    body = {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}
    assert services.create(body=body, namespace=kubectl.namespace).spec.clusterIP.startswith("10.")
    applied = services.server_side_apply(
        body | {"metadata": {"name": "s", "labels": {"a": "b"}}}, "s", kubectl.namespace, field_manager="me"
    )
    assert applied.metadata.labels.a == "b"
    assert [s.metadata.name for s in services.get(namespace=kubectl.namespace).items] == ["s"]
    services.delete(name="s", namespace=kubectl.namespace)


def test_authorization_and_version(lab: Lab, core: client.CoreV1Api) -> None:
    authorization = client.AuthorizationV1Api(core.api_client)
    attributes = client.V1ResourceAttributes(namespace="default", verb="list", resource="pods")
    spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
    review = authorization.create_self_subject_access_review(client.V1SelfSubjectAccessReview(spec=spec))
    assert review.status.allowed is True
    assert client.VersionApi(core.api_client).get_code().git_version.startswith("v1.34.")
    assert {"apps", "rbac.authorization.k8s.io"} <= {
        g.name for g in client.ApisApi(core.api_client).get_api_versions().groups
    }
    assert [n.metadata.name for n in core.list_node().items] == ["node-1", "node-2", "node-3"]


def test_dynamic_watch(kubectl: Kubectl, core: client.CoreV1Api, widgets: Widgets) -> None:
    api = dynamic.DynamicClient(core.api_client)
    resource = api.resources.get(api_version=f"{GROUP}/v1", kind="Widget")
    body = {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"colour": "red"}}
    version = resource.get(namespace=kubectl.namespace).metadata.resourceVersion
    made = resource.create(body=body, namespace=kubectl.namespace)
    assert made.spec.size == 1
    patch = {"metadata": {"name": "w"}, "spec": {"colour": "blue"}}
    resource.patch(body=patch, namespace=kubectl.namespace, content_type="application/merge-patch+json")
    resource.status.patch(
        body={"metadata": {"name": "w"}, "status": {"phase": "Grown"}},
        namespace=kubectl.namespace,
        content_type="application/merge-patch+json",
    )
    resource.delete(name="w", namespace=kubectl.namespace)
    seen = []
    for event in resource.watch(namespace=kubectl.namespace, resource_version=version, timeout=20):
        seen.append((event["type"], event["object"].spec.colour, (event["object"].status or {}).get("phase")))
        if event["type"] == "DELETED":
            break
    assert seen == [
        ("ADDED", "red", None), ("MODIFIED", "blue", None), ("MODIFIED", "blue", "Grown"), ("DELETED", "blue", "Grown"),
    ]  # fmt: skip


def test_leader_election(kubectl: Kubectl, core: client.CoreV1Api) -> None:
    """The library's own, on a Lease: when the first leader fails, the lease runs out and the second leads."""
    led: list[str] = []
    fail = threading.Event()

    def elect(name: str) -> threading.Thread:
        def lead() -> None:
            led.append(name)
            fail.wait(60)
            raise RuntimeError("the work has failed")

        lock = LeaseLock("leader", kubectl.namespace, name)
        settings = electionconfig.Config(lock, 3, 2, 1, onstarted_leading=lead, onstopped_leading=lambda: None)
        thread = threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True)
        thread.start()
        return thread

    first = elect("one")
    wait_for(lambda: led == ["one"], "the first leads")
    held = kubectl.get("lease", "leader")["spec"]
    assert (held["holderIdentity"], held["leaseDurationSeconds"]) == ("one", 3)
    second = elect("two")
    fail.set()
    wait_for(lambda: led == ["one", "two"], "the second leads")
    assert kubectl.get("lease", "leader")["spec"]["holderIdentity"] == "two"
    for thread in (first, second):
        thread.join(30)
        assert not thread.is_alive()
