"""Static pods: files that become pods, the mirrors that the API server shows of them, and what happens without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from navarch.api import errors
from nodeagent.agent import Agent
from nodeagent.pods import staticpods
from nodeagent.runtime.hollow import HollowRuntime
from tests.nodeagent.cluster import NODE, Api
from tests.nodeagent.test_agent import alive, run

MIRROR = "/api/v1/namespaces/default/pods/web-n1"


def manifest(**spec: Any) -> dict[str, Any]:
    containers = [{"name": "a", "image": "web:1"}]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 1, **spec},
    }  # fmt: skip


def write(folder: Path, name: str = "web.yaml", **spec: Any) -> Path:
    (folder / "manifests").mkdir(exist_ok=True)
    file = folder / "manifests" / name
    file.write_text(json.dumps(manifest(**spec)))
    return file


def settings(folder: Path) -> dict[str, Any]:
    return {"static_pod_path": str(folder / "manifests"), "pod_cidr": "10.1.2.0/24"}


def test_a_file_becomes_a_pod_with_a_mirror(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        await api.until(lambda: api.ready(MIRROR))
        meta = api.objects[MIRROR]["metadata"]
        notes = meta["annotations"]
        assert notes["kubernetes.io/config.source"] == "file" and notes["kubernetes.io/config.seen"]
        assert notes["kubernetes.io/config.mirror"] == notes["kubernetes.io/config.hash"] != meta["uid"]
        (owner,) = meta["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("Node", "n1", True)
        assert owner["uid"] == api.objects[NODE]["metadata"]["uid"] and meta["labels"] == {"app": "web"}
        spec = api.objects[MIRROR]["spec"]
        assert spec["nodeName"] == "n1" and spec["tolerations"] == [{"effect": "NoExecute", "operator": "Exists"}]
        assert node.worker_of("default", "web-n1") is not None and alive(runtime) == ["a"]
        started = list(runtime.node.containers)
        api.delete(MIRROR, 30)
        await api.until(lambda: MIRROR in api.objects and api.objects[MIRROR]["metadata"]["uid"] != meta["uid"])
        await api.until(lambda: api.ready(MIRROR))
        assert list(runtime.node.containers) == started, "whoever deletes the mirror does not restart the pod"

    write(tmp_path)
    run(tmp_path, body, **settings(tmp_path))


def test_changes_and_removal_of_a_file(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        await api.until(lambda: api.ready(MIRROR))
        first = api.objects[MIRROR]["metadata"]["annotations"]["kubernetes.io/config.hash"]
        write(tmp_path, hostNetwork=True)
        await api.until(lambda: api.objects.get(MIRROR, {}).get("spec", {}).get("hostNetwork") and api.ready(MIRROR))
        assert api.objects[MIRROR]["metadata"]["annotations"]["kubernetes.io/config.hash"] != first
        assert len(node.workers()) == 1 and alive(runtime) == ["a"]
        file.unlink()
        await api.until(lambda: MIRROR not in api.objects)
        await node.world.sleep(5)
        assert not node.workers() and not runtime.node.containers

    file = write(tmp_path)
    run(tmp_path, body, **settings(tmp_path))


def test_a_mirror_of_nothing_goes(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        stray = api.pod("gone-n1", {"containers": [{"name": "a"}]}, annotations={"kubernetes.io/config.mirror": "x"})
        await api.until(lambda: stray not in api.objects)
        assert not runtime.node.containers

    run(tmp_path, body, **settings(tmp_path))


def test_bad_files_are_told_once_and_the_others_run(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        await api.until(lambda: api.ready(MIRROR))
        await api.until(lambda: len(api.events("InvalidStaticPod")) == 2)
        names = sorted(text.partition("manifests/")[2] for text in api.events("InvalidStaticPod"))
        assert names == ["bad.yaml: a file holds one pod", "z.yaml: " + names[1].removeprefix("z.yaml: ")]
        assert names[1].endswith("web.yaml has this name already")
        await node.world.sleep(60)
        assert len(api.events("InvalidStaticPod")) == 2 and len(node.workers()) == 1

    write(tmp_path)
    write(tmp_path, "z.yaml", hostNetwork=True)
    write(tmp_path, "bad.yaml").write_text("[]")
    write(tmp_path, ".hidden").write_text("[]")
    run(tmp_path, body, **settings(tmp_path))


class Deaf(Api):
    """An API server that is away at times."""

    away = False

    def _answer(self, method: str, path: str, query: dict[str, str], body: Any, scope: Any) -> Any:
        if self.away:
            raise errors.ServiceUnavailable("away")
        return super()._answer(method, path, query, body, scope)


def test_the_api_server_is_not_needed(tmp_path: Path) -> None:
    async def body(api: Api, runtime: HollowRuntime, node: Agent) -> None:
        assert isinstance(api, Deaf)
        api.away = True
        write(tmp_path)
        await node.world.sleep(10)
        assert alive(runtime) == ["a"] and MIRROR not in api.objects
        api.away = False
        await api.until(lambda: api.ready(MIRROR))

    run(tmp_path, body, api_class=Deaf, **settings(tmp_path))


@pytest.mark.parametrize(("change", "why"), [
    ({"kind": "Deployment"}, "it is 'Deployment' of 'v1', not Pod of v1"),
    ({"metadata": {"name": "Web"}}, "metadata.name: Invalid value"),
    ({"spec": {"containers": []}}, "spec.containers: Required value"),
    ({"spec": {"containers": [{"name": "a"}]}}, r"spec.containers\[0\].image: Required value"),
    ({"spec": {"containers": "a"}}, r"Expected `array`.*spec.containers"),
    ({"spec": {"serviceAccountName": "x"}}, "static pods may not reference serviceaccounts"),
    ({"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}}, "may not reference configmaps"),
    ({"spec": {"imagePullSecrets": [{"name": "s"}]}}, "may not reference secrets"),
    ({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}}, "persistentvolumeclaims"),
    ({"spec": {"volumes": [{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "s"}}}]}}, "secrets"),
    ({"metadata": {"name": "web", "uid": "../../../etc"}}, "metadata.uid: Invalid value"),
    ({"metadata": {"name": "web", "namespace": "../x"}}, "metadata.namespace: Invalid value"),
    ({"metadata": {"name": "a" * 253}}, "which is its name on this node: must be no more than 253"),
    ({"spec": {"containers": [{"name": "../a", "image": "i"}]}}, r"spec.containers\[0\].name: Invalid value"),
    ({"spec": {"initContainers": [{"name": "a", "image": "i"}]}}, r"spec.containers\[0\].name: Duplicate value"),
    ({"spec": {"volumes": [{"name": "../v", "emptyDir": {}}]}}, r"spec.volumes\[0\].name: Invalid value"),
    ({"spec": {"hostname": "a\n1.2.3.4 b"}}, "spec.hostname: Invalid value"),
    ({"spec": {"restartPolicy": "Sometimes"}}, "spec.restartPolicy: Unsupported value"),
])  # fmt: skip
def test_what_is_no_static_pod(change: dict[str, Any], why: str) -> None:
    tree = manifest() | change
    if "spec" in change:
        tree["spec"] = manifest()["spec"] | change["spec"]
    with pytest.raises(staticpods.BadManifest, match=why):
        staticpods.read(json.dumps(tree).encode(), "/f", "n1", 0.0)
