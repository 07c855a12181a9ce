"""Go's empty value is unset: "", 0, false, [] and {} in a field that is no pointer are the same as no field, for every
kind. Fields that are pointers keep what they are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import yaml

from apiserver.registry.strategy import Strategy
from navarch.api import pruning
from navarch.api.schema import BOOL, LIST, MAP, NUMBER, OBJECT, STRING, Node
from tests.apiserver.kinds.served import Asker
from tests.apiserver.kinds.support import CATALOG
from tests.apiserver.kinds.test_served import NS, create

Tree = dict[str, Any]
APPLY = "application/apply-patch+yaml"
EMPTY = {STRING: "", BOOL: False, LIST: [], MAP: {}, "bytes": "", "int32": 0, "int64": 0, NUMBER: 0}
STRATEGIES = sorted(CATALOG.values(), key=lambda s: (s.kind.group, s.kind.kind, s.kind.version))


def structs(node: Node, seen: set[str]) -> Iterator[Node]:
    """All structs that the node holds."""
    if node.kind in (LIST, MAP):
        yield from structs(node.element, seen)
    elif node.kind == OBJECT and node.go not in seen:
        seen.add(node.go)
        yield node
        for child in node.fields.values():
            yield from structs(child, seen)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: f"{s.kind.api_version}-{s.kind.kind}")
def test_empty_is_absent(strategy: Strategy) -> None:
    checked = 0
    for struct in structs(strategy.schema, set()):
        for field in struct.vanish:
            tree: Tree = {field: EMPTY[struct.fields[field].kind]}
            assert not pruning.prepare(tree, struct) and not tree, (struct, field)
            kept: Tree = {field: EMPTY[struct.fields[field].kind]}
            pruning.prepare(kept, struct, keep_empty=True)
            assert field in kept
            checked += 1
    assert checked > 10


POD = "spec: {containers: [{name: c, image: i}]}"
# kind; fields that are set to what is empty, over an object; what each becomes.
DEFAULTED: list[tuple[str, str, str, dict[str, Any]]] = [
    ("Pod", "v1", POD, {
        "spec.restartPolicy=": "Always", "spec.dnsPolicy=": "ClusterFirst", "spec.schedulerName=": "default-scheduler",
        "spec.nodeName=": None, "spec.hostname=": None, "spec.subdomain=": None, "spec.priorityClassName=": None,
        "spec.serviceAccountName=": None, "spec.serviceAccount=": None, "spec.hostNetwork=false": None,
        "spec.hostPID=false": None, "spec.hostIPC=false": None, "spec.initContainers=[]": None, "spec.volumes=[]": None,
        "spec.nodeSelector={}": None, "spec.tolerations=[]": None, "spec.overhead={}": None,
        "spec.containers.0.imagePullPolicy=": "Always", "spec.containers.0.terminationMessagePath=": "/dev/termination-log",
        "spec.containers.0.terminationMessagePolicy=": "File", "spec.containers.0.command=[]": None,
        "spec.containers.0.args=[]": None, "spec.containers.0.workingDir=": None, "spec.containers.0.tty=false": None,
        "spec.containers.0.stdin=false": None, "spec.containers.0.env=[]": None, "spec.containers.0.ports=[]": None,
    }),
    ("Pod", "v1", "spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}", {
        "spec.containers.0.ports.0.protocol=": "TCP", "spec.containers.0.ports.0.hostPort=0": None,
        "spec.containers.0.ports.0.name=": None, "spec.containers.0.ports.0.hostIP=": None,
    }),
    ("Pod", "v1", "spec: {containers: [{name: c, env: [{name: a, valueFrom: {fieldRef: {fieldPath: p}}}]}]}", {
        "spec.containers.0.env.0.value=": None, "spec.containers.0.env.0.valueFrom.fieldRef.apiVersion=": "v1",
    }),
    ("Pod", "v1", "spec: {containers: [{name: c, livenessProbe: {httpGet: {port: 1}}}]}", {
        "spec.containers.0.livenessProbe.timeoutSeconds=0": 1, "spec.containers.0.livenessProbe.periodSeconds=0": 10,
        "spec.containers.0.livenessProbe.successThreshold=0": 1, "spec.containers.0.livenessProbe.failureThreshold=0": 3,
        "spec.containers.0.livenessProbe.initialDelaySeconds=0": None,
        "spec.containers.0.livenessProbe.httpGet.path=": "/", "spec.containers.0.livenessProbe.httpGet.scheme=": "HTTP",
        "spec.containers.0.livenessProbe.httpGet.host=": None,
    }),
    ("Pod", "v1", "spec: {volumes: [{iscsi: {}}, {rbd: {}}, {scaleIO: {}}, {hostPath: {}}]}", {
        "spec.volumes.0.iscsi.iscsiInterface=": "default", "spec.volumes.1.rbd.pool=": "rbd",
        "spec.volumes.1.rbd.user=": "admin", "spec.volumes.1.rbd.keyring=": "/etc/ceph/keyring",
        "spec.volumes.2.scaleIO.storageMode=": "ThinProvisioned", "spec.volumes.2.scaleIO.fsType=": "xfs",
        "spec.volumes.3.hostPath.type=": "",
    }),
    ("Pod", "v1", "spec: {volumes: [{name: e, emptyDir: {}}, {name: d, downwardAPI: {items: [{path: x, fieldRef: {}}]}}]}", {
        "spec.volumes.0.emptyDir.medium=": None, "spec.volumes.1.downwardAPI.items.0.fieldRef.apiVersion=": "v1",
    }),
    ("Service", "v1", "spec: {ports: [{port: 80}]}", {
        "spec.type=": "ClusterIP", "spec.sessionAffinity=": "None", "spec.externalTrafficPolicy=": None,
        "spec.clusterIP=": None, "spec.clusterIPs=[]": None, "spec.ipFamilies=[]": ["IPv4"], "spec.externalName=": None,
        "spec.loadBalancerIP=": None, "spec.externalIPs=[]": None, "spec.selector={}": None,
        "spec.healthCheckNodePort=0": None, "spec.publishNotReadyAddresses=false": None,
        "spec.ports.0.protocol=": "TCP", "spec.ports.0.targetPort=0": 80, "spec.ports.0.targetPort=''": 80,
        "spec.ports.0.nodePort=0": None, "spec.ports.0.name=": None,
    }),
    ("Service", "v1", "spec: {type: NodePort, ports: [{port: 80}]}", {"spec.externalTrafficPolicy=": "Cluster"}),
    ("Service", "v1", "spec: {externalIPs: [1.2.3.4], ports: [{port: 80}]}", {"spec.externalTrafficPolicy=": "Cluster"}),
    ("Endpoints", "v1", "subsets: [{ports: [{port: 1}]}]", {"subsets.0.ports.0.protocol=": "TCP"}),
    ("Secret", "v1", "{}", {"type=": "Opaque", "data={}": None}),
    ("ConfigMap", "v1", "{}", {"data={}": None, "binaryData={}": None}),
    ("PersistentVolume", "v1", "spec: {iscsi: {}}", {
        "spec.persistentVolumeReclaimPolicy=": "Retain", "spec.storageClassName=": None, "spec.mountOptions=[]": None,
        "spec.iscsi.iscsiInterface=": "default", "status.phase=": "Pending",
    }),
    ("PersistentVolumeClaim", "v1", "{}", {
        "status.phase=": "Pending", "spec.volumeName=": None, "spec.accessModes=[]": None, "spec.storageClassName=": "",
    }),
    ("Namespace", "v1", "{}", {"status.phase=": "Active"}),
    ("ReplicationController", "v1", "spec: {template: {metadata: {labels: {a: b}}, spec: {}}}", {
        "metadata.labels={}": {"a": "b"}, "spec.selector={}": {"a": "b"}, "spec.minReadySeconds=0": None,
        "spec.template.spec.restartPolicy=": "Always",
    }),
    ("Deployment", "apps/v1", "spec: {template: {spec: {containers: [{name: c, image: 'i:1'}]}}}", {
        "spec.strategy.type=": "RollingUpdate", "spec.paused=false": None, "spec.minReadySeconds=0": None,
        "spec.template.spec.restartPolicy=": "Always", "spec.template.spec.dnsPolicy=": "ClusterFirst",
        "spec.template.spec.containers.0.imagePullPolicy=": "IfNotPresent", "spec.replicas=0": 0,
    }),
    ("DaemonSet", "apps/v1", "{}", {"spec.updateStrategy.type=": "RollingUpdate"}),
    ("StatefulSet", "apps/v1", "{}", {
        "spec.podManagementPolicy=": "OrderedReady", "spec.updateStrategy.type=": "RollingUpdate",
        "spec.persistentVolumeClaimRetentionPolicy.whenDeleted=": "Retain", "spec.serviceName=": "",
        "spec.persistentVolumeClaimRetentionPolicy.whenScaled=": "Retain",
    }),
    ("Job", "batch/v1", "spec: {podFailurePolicy: {rules: [{onPodConditions: [{type: a}]}]}}", {
        "spec.podFailurePolicy.rules.0.onPodConditions.0.status=": "True", "spec.completionMode=": "",
        }),
    ("CronJob", "batch/v1", "{}", {"spec.concurrencyPolicy=": "Allow"}),
    ("HorizontalPodAutoscaler", "autoscaling/v2", "spec: {behavior: {scaleUp: {}}}", {
        "spec.metrics=[]": [{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
        "spec.behavior.scaleUp.policies=[]": [
            {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}],
    }),
    ("NetworkPolicy", "networking.k8s.io/v1", "spec: {ingress: [{ports: [{port: 1}]}]}", {
        "spec.policyTypes=[]": ["Ingress"], "spec.egress=[]": None, "spec.ingress.0.from=[]": None,
        "spec.ingress.0.ports.0.protocol=": "",
    }),
    ("RoleBinding", "rbac.authorization.k8s.io/v1", "{roleRef: {kind: Role, name: a}, subjects: [{kind: User, name: u}]}", {
        "roleRef.apiGroup=": "rbac.authorization.k8s.io", "subjects.0.apiGroup=": "rbac.authorization.k8s.io",
        "subjects.0.namespace=": None,
    }),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "{roleRef: {}, subjects: [{kind: ServiceAccount}]}", {
        "roleRef.apiGroup=": "rbac.authorization.k8s.io", "subjects.0.apiGroup=": None,
    }),
    ("EndpointSlice", "discovery.k8s.io/v1", "ports: [{port: 1}]", {"ports.0.name=": "", "ports.0.protocol=": ""}),
    ("FlowSchema", "flowcontrol.apiserver.k8s.io/v1", "{}", {"spec.matchingPrecedence=0": 1000}),
    ("PriorityLevelConfiguration", "flowcontrol.apiserver.k8s.io/v1", "spec: {limited: {limitResponse: {queuing: {}}}}", {
        "spec.limited.limitResponse.queuing.queues=0": 64, "spec.limited.limitResponse.queuing.handSize=0": 8,
        "spec.limited.limitResponse.queuing.queueLengthLimit=0": 50, "spec.limited.nominalConcurrencyShares=0": 0,
    }),
    ("StorageClass", "storage.k8s.io/v1", "{}", {"parameters={}": None, "mountOptions=[]": None, "reclaimPolicy=": ""}),
    ("CSIDriver", "storage.k8s.io/v1", "{}", {
        "spec.volumeLifecycleModes=[]": ["Persistent"], "spec.attachRequired=false": False,
    }),
    ("PriorityClass", "scheduling.k8s.io/v1", "{}", {"description=": None, "globalDefault=false": None, "value=0": 0}),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", "spec: {names: {kind: Foo}}", {
        "spec.names.singular=": "foo", "spec.names.listKind=": "FooList", "spec.names.shortNames=[]": None,
        "spec.preserveUnknownFields=false": None,
    }),
    ("ValidatingWebhookConfiguration", "admissionregistration.k8s.io/v1", "webhooks: [{rules: [{}]}]", {
        "webhooks.0.failurePolicy=": "", "webhooks.0.rules.0.apiGroups=[]": None, "webhooks.0.matchConditions=[]": None,
    }),
    ("APIService", "apiregistration.k8s.io/v1", "spec: {}", {"spec.insecureSkipTLSVerify=false": None, "spec.caBundle=": None}),
]  # fmt: skip
ROWS = [
    (kind, version, base, *change.split("=", 1), expected)
    for kind, version, base, rows in DEFAULTED
    for change, expected in rows.items()
]


def walk(tree: Any, path: str, make: bool = False) -> tuple[Any, Any]:
    """What holds the field at the path, and its key there."""
    *way, last = [int(step) if step.isdecimal() else step for step in path.split(".")]
    for step in way:
        tree = tree.setdefault(step, {}) if make and isinstance(tree, dict) else tree[step]
    return tree, last


@pytest.mark.parametrize(("kind", "version", "base", "path", "text", "expected"), ROWS)
def test_defaults_of_empty_fields(
    kind: str, version: str, base: str, path: str, text: str, expected: Any
) -> None:
    strategy = next(s for s in STRATEGIES if (s.kind.kind, s.kind.api_version) == (kind, version))
    outcomes = []
    for empty in (True, False):
        obj: Tree = {"metadata": {"name": "a"}, **yaml.safe_load(base)}
        if empty:
            holder, key = walk(obj, path, make=True)
            holder[key] = yaml.safe_load(text) if text else ""
        assert not pruning.prepare(obj, strategy.schema)
        strategy.default(obj)
        if empty:
            holder, key = walk(obj, path)
            found = holder.get(key) if isinstance(holder, dict) else holder[key]
            assert found == expected and isinstance(found, bool) == isinstance(expected, bool)
        outcomes.append(orjson.dumps(obj, option=orjson.OPT_SORT_KEYS))
    if walk_absent(strategy, path):
        assert outcomes[0] == outcomes[1]


def walk_absent(strategy: Strategy, path: str) -> bool:
    """Whether the field is one of those where empty is absent."""
    node = strategy.schema
    *way, last = path.split(".")
    for step in way:
        node = node.element if step.isdecimal() else node.fields[step]
    return last in node.vanish


CASES = """
apiVersion: v1
kind: Pod
metadata: {name: a}
spec: {nodeName: "", containers: [{name: c, image: "localhost/bb:v1"}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
spec:
  restartPolicy: ""
  containers: [{name: c, image: "i", terminationMessagePolicy: "", ports: [{containerPort: 80, protocol: ""}],
    env: [{name: N, valueFrom: {fieldRef: {apiVersion: "", fieldPath: metadata.name}}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {type: "", sessionAffinity: "", externalTrafficPolicy: "", selector: {a: b}, ports: [{port: 80}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: c}
spec: {volumeName: "", storageClassName: "", accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: m, labels: {}}
data: {}
"""


async def test_served(ask: Asker) -> None:
    """The same through the API: POST, PUT and apply of objects with empty fields; who applies one owns it."""

    await create(ask, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
    for obj in yaml.safe_load_all(CASES):
        path = f"{NS}/{obj['kind'].lower()}s"
        for number, way in enumerate(("POST", "APPLY")):
            name = obj["metadata"]["name"] + str(number)
            mine = {**obj, "metadata": {**obj["metadata"], "name": name}}
            if way == "POST":
                made = await ask("POST", path, mine)
            else:
                made = await ask("PATCH", f"{path}/{name}", mine, query="fieldManager=me", type=APPLY, code=201)
            before = {k: v for k, v in (mine.get("spec") or {}).items() if v == ""}
            for field in before:
                assert made["spec"].get(field) != "" or field == "storageClassName", (obj["kind"], field)
            assert "data" not in made
            again = await ask("PUT", f"{path}/{name}", made)
            assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
            if way == "APPLY":
                owned = made["metadata"]["managedFields"][0]["fieldsV1"]
                assert {f"f:{field}" for field in before} <= set(owned.get("f:spec", {}))
    [pod] = [p for p in (await ask("GET", f"{NS}/pods"))["items"] if p["metadata"]["name"] == "b0"]
    assert pod["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
