"""A CSI driver on real nodes (the manifest of docs/storage.md): data that moves with its pod, whatever is killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import REDIS
from tests.e2e.harness import ROOT, Lab, wait_for

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: moving}
spec: {storageClassName: folders, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""


def writer(node: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: writer}}
spec:
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsUser: 1000, fsGroup: 3000}}
  containers:
  - name: a
    image: {REDIS}
    command: [sh, -c, "echo {node} >> /data/log; cat /data/log; cat /own/.context; exec sleep 3600"]
    volumeMounts: [{{name: data, mountPath: /data}}, {{name: own, mountPath: /own}}]
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: moving}}}}
  - {{name: own, csi: {{driver: folders.example.com, volumeAttributes: {{colour: blue}}}}}}
"""


@pytest.fixture
def driver(lab: Lab, tmp_path: Path) -> Iterator[Path]:
    """The driver on all nodes; the folder of its volumes."""
    text = (ROOT / "examples" / "06_a_csi_driver.yaml").read_text()
    lab.apply(text.replace("CHECKOUT", str(ROOT)).replace("IMAGE", REDIS).replace("DATA", str(tmp_path)))
    try:
        lab.kubectl("-n", "csi-folders", "rollout", "status", "daemonset/driver", "--timeout=60s")
        yield tmp_path
    finally:
        lab.kubectl("delete", "pod/writer", "pvc/moving", "--ignore-not-found", "--timeout=60s")
        wait_for(lambda: not list(tmp_path.iterdir()), "the driver has deleted its volumes", 30)
        lab.kubectl("delete", "namespace/csi-folders", "storageclass/folders", "csidriver/folders.example.com")
        lab.kubectl("delete", "clusterrole/csi-folders-sidecar", "clusterrolebinding/csi-folders-sidecar")


def runs(lab: Lab, node: str) -> str:
    """The log of the writer, once it runs on a node."""
    lab.apply(writer(node))
    lab.kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=60s")
    return lab.kubectl("logs", "writer")


def test_data_moves_with_its_pod(patient: Lab, lab: Lab, driver: Path) -> None:
    lab.apply(CLAIM)
    log = runs(lab, "node-1")
    assert log.startswith("node-1\n") and '"colour": "blue"' in log
    lab.kill("agent/node-1")
    pods = lab.get("-n", "csi-folders", "pods", "--field-selector=spec.nodeName=node-1")["items"]
    lab.kubectl("-n", "csi-folders", "delete", "pod", pods[0]["metadata"]["name"], "--grace-period=1")
    assert lab.kubectl("exec", "writer", "--", "cat", "/data/log") == "node-1\n"  # neither of them is in the way
    lab.kubectl("patch", "pvc", "moving", "-p", '{"spec": {"resources": {"requests": {"storage": "2Gi"}}}}')
    lab.kubectl("delete", "pod/writer", "--timeout=60s")
    assert runs(lab, "node-2").startswith("node-1\nnode-2\n")
    attachments = lab.get("volumeattachments")["items"]
    assert [a["spec"]["nodeName"] for a in attachments] == ["node-2"]
    capacity = "{.status.capacity.storage}"
    wait_for(lambda: lab.kubectl("get", "pvc", "moving", "-o", f"jsonpath={capacity}") == "2Gi", "it has grown", 60)
    lab.kubectl("delete", "pod/writer", "--timeout=60s")
    wait_for(lambda: not lab.get("volumeattachments")["items"], "it is detached", 30)
    for node in ("node-1", "node-2"):
        pods_folder = lab.directory / "nodes" / node / "kubelet" / "pods"
        assert not list(pods_folder.iterdir()), "something of a pod's volumes is left"
