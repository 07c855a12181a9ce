"""Claims on real nodes: data outlives its pod, is shared where the class shares it, and goes with its claim."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import REDIS
from tests.e2e.harness import Lab, wait_for

DATABASE = f"""
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 2
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {{runAsUser: 1000, fsGroup: 3000}}
      containers:
      - name: db
        image: {REDIS}
        command: [sh, -c, "echo $HOSTNAME >> /data/log; id -G; cat /data/log; exec sleep 3600"]
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
"""
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


def folders(lab: Lab) -> list[Path]:
    return sorted((lab.directory / "volumes").glob("*/pvc-*"))


def test_claims_are_bound_and_data_outlives_its_pod(lab: Lab) -> None:
    lab.apply(DATABASE)
    try:
        lab.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
        claims = {c["metadata"]["name"]: c for c in lab.get("pvc")["items"]}
        assert {c["status"]["phase"] for c in claims.values()} == {"Bound"} and set(claims) == {"data-db-0", "data-db-1"}
        node = lab.get("pod", "db-0")["spec"]["nodeName"]
        assert "3000" in lab.kubectl("logs", "db-0").split(), "the container's process is in the volume's group"
        lab.kubectl("delete", "pod", "db-0")
        lab.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
        wait_for(lambda: lab.kubectl("logs", "db-0").split().count("db-0") == 2, "the first pod's line is there", 30)
        assert lab.get("pod", "db-0")["spec"]["nodeName"] == node, "the volume's node"
        path = next(p for p in folders(lab) if claims["data-db-0"]["metadata"]["uid"] in p.name)
        assert (path / "log").stat().st_gid == 3000 and path.stat().st_mode & 0o2070 == 0o2070
    finally:
        lab.kubectl("delete", "statefulset", "db")
    lab.kubectl("delete", "pvc", "data-db-0", "data-db-1")
    wait_for(lambda: not lab.get("pv")["items"] and not folders(lab), "volumes and their folders are gone", 60)


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
