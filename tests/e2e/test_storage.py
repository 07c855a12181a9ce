"""Claims on real nodes: data is shared where the class shares it, and goes with its claim (that it outlives its pod, is
test_manifests' to show)."""

from __future__ import annotations

from tests.e2e.conftest import REDIS
from tests.e2e.harness import Lab, wait_for
from tests.e2e.test_manifests import folders

SHARED = f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: common}}
spec: {{storageClassName: lab-shared, accessModes: [ReadWriteMany], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: writers}}
spec:
  selector: {{matchLabels: {{app: writers}}}}
  template:
    metadata: {{labels: {{app: writers}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: a
        image: {REDIS}
        command: [sh, -c, "echo $HOSTNAME >> /data/hosts; exec sleep 3600"]
        volumeMounts: [{{name: data, mountPath: /data}}, {{name: scratch, mountPath: /scratch}}]
      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: common}}}}
      - name: scratch
        ephemeral:
          volumeClaimTemplate: {{spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}}}
"""


def test_a_shared_volume_is_the_same_on_every_node_and_ephemeral_ones_go_with_their_pod(lab: Lab) -> None:
    lab.apply(SHARED)
    try:
        lab.kubectl("rollout", "status", "daemonset/writers", "--timeout=90s")
        pods = {p["metadata"]["name"] for p in lab.get("pods", "-l", "app=writers")["items"]}
        wait_for(lambda: set(lab.kubectl("exec", "ds/writers", "--", "cat", "/data/hosts").split()) == pods, "all wrote", 30)
        assert len(lab.get("pvc")["items"]) == 1 + len(pods)
    finally:
        lab.kubectl("delete", "daemonset", "writers")
    wait_for(lambda: len(lab.get("pvc")["items"]) == 1, "the ephemeral claims are gone", 60)
    lab.kubectl("delete", "pvc", "common")
    wait_for(lambda: not lab.get("pv")["items"] and not folders(lab), "volumes and their folders are gone", 60)
