"""Every kind but pods: defaults, what is refused and in which words, the row of kubectl get."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.apiserver.kinds.support import CATALOG, CONTEXT, created, problems, strategy, tree

META = "metadata: {name: x, namespace: default, creationTimestamp: '2024-01-01T00:00:00Z'}"
NOW = 1_704_067_200.0 + 3 * 86400 + 4 * 3600
GLOBAL = META.replace(" namespace: default,", "")
JOB = "template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}"


def signing_request() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


REQUEST = signing_request()
TEMPLATE = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}"

MINIMAL = {
    ("apiregistration.k8s.io", "apiservices"): (
        "{metadata: {name: v1.x.example.com}, spec: {group: x.example.com, version: v1, groupPriorityMinimum: 10, "
        "versionPriority: 10, service: {namespace: a, name: b}}}",
        ["v1.x.example.com", "a/b", "Unknown", "<unknown>"],
    ),
    ("", "namespaces"): ("{metadata: {name: x, creationTimestamp: '2024-01-01T00:00:00Z'}}", ["x", "Active", "3d4h"]),
    ("", "nodes"): (
        "{metadata: {name: x, creationTimestamp: '2024-01-01T00:00:00Z', labels: {node-role.kubernetes.io/worker: ''}},"
        " spec: {unschedulable: true}, status: {conditions: [{type: Ready, status: 'True'}], addresses: "
        "[{type: InternalIP, address: 10.0.0.1}], nodeInfo: {kubeletVersion: v1.34.0}}}",
        ["x", "Ready,SchedulingDisabled", "worker", "3d4h", "v1.34.0", "10.0.0.1", "<none>", "<unknown>", "<unknown>",
         "<unknown>"],
    ),
    ("", "configmaps"): (f"{{{META}, data: {{a: b}}}}", ["x", 1, "3d4h"]),
    ("", "secrets"): (f"{{{META}, stringData: {{a: b}}}}", ["x", "Opaque", 1, "3d4h"]),
    ("", "serviceaccounts"): (f"{{{META}}}", ["x", 0, "3d4h"]),
    ("", "services"): (
        f"{{{META}, spec: {{selector: {{a: b}}, ports: [{{port: 80}}]}}}}",
        ["x", "ClusterIP", "<none>", "<none>", "80/TCP", "3d4h", "a=b"],
    ),
    ("", "endpoints"): (
        f"{{{META}, subsets: [{{addresses: [{{ip: 1.1.1.1}}, {{ip: 1.1.1.2}}], ports: [{{port: 1, name: a}}, "
        "{port: 2, name: b}]}]}",
        ["x", "1.1.1.1:1,1.1.1.2:1,1.1.1.1:2 + 1 more...", "3d4h"],
    ),
    ("discovery.k8s.io", "endpointslices"): (
        f"{{{META}, addressType: IPv4, endpoints: [{{addresses: [1.1.1.1]}}], ports: [{{port: 80}}]}}",
        ["x", "IPv4", "80", "1.1.1.1", "3d4h"],
    ),
    ("", "events"): (
        f"{{{META}, involvedObject: {{kind: Pod, name: p, namespace: default}}, reason: R, message: m, type: Normal, "
        "source: {component: c, host: h}, firstTimestamp: '2024-01-01T00:00:00Z', "
        "lastTimestamp: '2024-01-04T03:59:00Z', count: 3}",
        ["60s", "Normal", "R", "pod/p", "", "c, h", "m", "3d4h", 3, "x"],
    ),
    ("events.k8s.io", "events"): (
        f"{{{META}, regarding: {{kind: Pod, name: p, namespace: default}}, reason: R, note: m, type: Normal, action: A, "
        "reportingController: c, reportingInstance: i, eventTime: '2024-01-04T03:59:00Z'}",
        ["60s", "Normal", "R", "pod/p", "", "c", "m", "60s", 1, "x"],
    ),
    ("coordination.k8s.io", "leases"): (f"{{{META}, spec: {{holderIdentity: me}}}}", ["x", "me", "3d4h"]),
    ("apps", "replicasets"): (
        f"{{{META}, spec: {{selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}}}}}",
        ["x", 1, 0, 0, "3d4h", "c", "i", "a=b"],
    ),
    ("apps", "deployments"): (
        f"{{{META}, spec: {{selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}}}}}",
        ["x", "0/1", 0, 0, "3d4h", "c", "i", "a=b"],
    ),
    ("scheduling.k8s.io", "priorityclasses"): (
        "{metadata: {name: x, creationTimestamp: '2024-01-01T00:00:00Z'}, value: 5}",
        ["x", 5, False, "3d4h", "PreemptLowerPriority"],
    ),
    ("rbac.authorization.k8s.io", "roles"): (
        f"{{{META}, rules: [{{apiGroups: [''], resources: [pods], verbs: [get]}}]}}", ["x", "2024-01-01T00:00:00Z"],
    ),
    ("rbac.authorization.k8s.io", "clusterroles"): (f"{{{META}}}", ["x", "2024-01-01T00:00:00Z"]),
    ("rbac.authorization.k8s.io", "rolebindings"): (
        f"{{{META}, roleRef: {{kind: Role, name: r}}, subjects: [{{kind: User, name: u}}, "
        "{kind: ServiceAccount, name: s, namespace: n}]}",
        ["x", "Role/r", "3d4h", "u", "", "n/s"],
    ),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): (
        f"{{{META}, roleRef: {{kind: ClusterRole, name: r}}, subjects: [{{kind: Group, name: g}}]}}",
        ["x", "ClusterRole/r", "3d4h", "", "g", ""],
    ),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (
        f"{{{GLOBAL.replace('name: x', 'name: xs.a.b')}, spec: {{group: a.b, scope: Namespaced, "
        "names: {plural: xs, kind: X}, "
        "versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]}}",
        ["xs.a.b", "2024-01-01T00:00:00Z"],
    ),
    **{
        ("admissionregistration.k8s.io", f"{word}webhookconfigurations"): (
            f"{{{GLOBAL}, webhooks: [{{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], "
            "clientConfig: {url: 'https://a/'}}]}",
            ["x", 1, "3d4h"],
        )
        for word in ("mutating", "validating")
    },
    ("", "persistentvolumes"): (
        f"{{{GLOBAL}, spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], hostPath: {{path: /a}}}}}}",
        ["x", "1Gi", "RWO", "Retain", "Pending", "", "", "<unset>", "", "3d4h", "Filesystem"],
    ),
    ("", "persistentvolumeclaims"): (
        f"{{{META}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}",
        ["x", "Pending", "", "", "", "", "<unset>", "3d4h", "Filesystem"],
    ),
    ("", "podtemplates"): (f"{{{META}, {TEMPLATE}}}", ["x", "c", "i", "a=b"]),
    ("", "replicationcontrollers"): (f"{{{META}, spec: {{{TEMPLATE}}}}}", ["x", 1, 0, 0, "3d4h", "c", "i", "a=b"]),
    ("", "resourcequotas"): (f"{{{META}, spec: {{hard: {{pods: '3', limits.cpu: '2'}}}}}}", ["x", "", "", "3d4h"]),
    ("", "limitranges"): (
        f"{{{META}, spec: {{limits: [{{type: Container, max: {{cpu: '2'}}, min: {{cpu: 100m}}}}]}}}}",
        ["x", "2024-01-01T00:00:00Z"],
    ),
    ("apps", "statefulsets"): (
        f"{{{META}, spec: {{selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}, volumeClaimTemplates: [{{metadata: "
        "{name: v}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}",
        ["x", "0/1", "3d4h", "c", "i"],
    ),
    ("apps", "daemonsets"): (
        f"{{{META}, spec: {{selector: {{matchLabels: {{a: b}}}}, {TEMPLATE}}}}}",
        ["x", 0, 0, 0, 0, 0, "<none>", "3d4h", "c", "i", "a=b"],
    ),
    ("apps", "controllerrevisions"): (f"{{{META}, data: {{a: b}}, revision: 3}}", ["x", "<none>", 3, "3d4h"]),
    ("batch", "jobs"): (
        f"{{{META[:-1]}, uid: u1}}, spec: {{{JOB}, podFailurePolicy: {{rules: [{{action: Ignore, onPodConditions: "
        "[{type: DisruptionTarget}]}, {action: FailJob, onExitCodes: {operator: In, values: [1, 2]}}]}}}",
        ["x", "Running", "0/1", "", "3d4h", "c", "i", "batch.kubernetes.io/controller-uid=u1"],
    ),
    ("batch", "cronjobs"): (
        f"{{{META}, spec: {{schedule: '*/5 1-3 * jan,3 mon', timeZone: Europe/Zurich, jobTemplate: {{spec: {{{JOB}}}}}}}}}",
        ["x", "*/5 1-3 * jan,3 mon", "Europe/Zurich", "False", 0, "<none>", "3d4h", "c", "i", "<none>"],
    ),
    ("autoscaling", "horizontalpodautoscalers"): (
        f"{{{META}, spec: {{maxReplicas: 3, scaleTargetRef: {{kind: Deployment, name: d}}, behavior: {{scaleUp: {{}}}}, "
        "metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}, "
        "{type: Pods, pods: {metric: {name: m}, target: {type: AverageValue, averageValue: '5'}}}]}}",
        ["x", "Deployment/d", "cpu: <unknown>/50%, <unknown>/5", "1", "3", 0, "3d4h"],
    ),
    ("autoscaling", "horizontalpodautoscalers.v1"): (
        f"{{{META}, spec: {{maxReplicas: 3, scaleTargetRef: {{kind: Deployment, name: d}}}}}}",
        ["x", "Deployment/d", "cpu: <unknown>/80%", "1", "3", 0, "3d4h"],
    ),
    ("policy", "poddisruptionbudgets"): (
        f"{{{META}, spec: {{minAvailable: 50%, selector: {{matchLabels: {{a: b}}}}}}}}", ["x", "50%", "N/A", 0, "3d4h"],
    ),
    ("networking.k8s.io", "ingresses"): (
        f"{{{META}, spec: {{ingressClassName: c, tls: [{{hosts: [a.b], secretName: s}}], rules: [{{host: a.b, http: {{paths: "
        "[{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}}]}}",
        ["x", "c", "a.b", "", "80, 443", "3d4h"],
    ),
    ("networking.k8s.io", "ingressclasses"): (
        f"{{{GLOBAL}, spec: {{controller: a.b/c, parameters: {{kind: K, name: n, apiGroup: g}}}}}}",
        ["x", "a.b/c", "K.g/n", "3d4h"],
    ),
    ("networking.k8s.io", "networkpolicies"): (
        f"{{{META}, spec: {{podSelector: {{matchLabels: {{a: b}}}}, egress: [{{to: [{{ipBlock: {{cidr: 10.0.0.0/8, except: "
        "[10.1.0.0/16]}}, {podSelector: {}}], ports: [{port: 80, endPort: 90}]}]}}", ["x", "a=b", "3d4h"],
    ),
    ("networking.k8s.io", "servicecidrs"): (f"{{{GLOBAL}, spec: {{cidrs: [10.0.0.0/16]}}}}", ["x", "10.0.0.0/16", "3d4h"]),
    ("networking.k8s.io", "ipaddresses"): (
        f"{{{GLOBAL}, spec: {{parentRef: {{resource: services, namespace: n, name: s}}}}}}", ["x", "services/n/s"],
    ),
    ("storage.k8s.io", "storageclasses"): (
        f"{{{GLOBAL}, provisioner: a.b/c, allowedTopologies: [{{matchLabelExpressions: [{{key: k, values: [v]}}]}}]}}",
        ["x", "a.b/c", "Delete", "Immediate", False, "3d4h"],
    ),
    ("storage.k8s.io", "volumeattachments"): (
        f"{{{GLOBAL}, spec: {{attacher: a.b, nodeName: n, source: {{persistentVolumeName: v}}}}}}",
        ["x", "a.b", "v", "n", False, "3d4h"],
    ),
    ("storage.k8s.io", "csidrivers"): (
        f"{{{GLOBAL}, spec: {{tokenRequests: [{{audience: a, expirationSeconds: 600}}]}}}}",
        ["x", True, False, False, "a", False, "Persistent", "3d4h"],
    ),
    ("storage.k8s.io", "csinodes"): (
        f"{{{GLOBAL}, spec: {{drivers: [{{name: d, nodeID: n, topologyKeys: [k], allocatable: {{count: 1}}}}]}}}}",
        ["x", 1, "3d4h"],
    ),
    ("storage.k8s.io", "csistoragecapacities"): (f"{{{META}, storageClassName: c, capacity: 1Gi}}", ["x", "c", "1Gi"]),
    ("storage.k8s.io", "volumeattributesclasses"): (
        f"{{{GLOBAL}, driverName: d, parameters: {{a: b}}}}", ["x", "d", "3d4h"],
    ),
    ("node.k8s.io", "runtimeclasses"): (
        f"{{{GLOBAL}, handler: h, overhead: {{podFixed: {{cpu: 10m}}}}, scheduling: {{nodeSelector: {{a: b}}, "
        "tolerations: [{key: a, operator: Exists}]}}", ["x", "h", "3d4h"],
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        f"{{{GLOBAL}, spec: {{request: {REQUEST}, signerName: a.b/c, usages: [client auth], expirationSeconds: 3600}}}}",
        ["x", "3d4h", "a.b/c", "system:apiserver", "60m", "Pending"],
    ),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"): (
        f"{{{GLOBAL}, spec: {{priorityLevelConfiguration: {{name: l}}, distinguisherMethod: {{type: ByUser}}, rules: "
        "[{subjects: [{kind: User, user: {name: u}}], resourceRules: [{verbs: [get], apiGroups: [''], resources: [pods], "
        "namespaces: ['*']}], nonResourceRules: [{verbs: ['*'], nonResourceURLs: ['*']}]}]}}",
        ["x", "l", 1000, "ByUser", "3d4h", "?"],
    ),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"): (
        f"{{{GLOBAL}, spec: {{type: Limited, limited: {{limitResponse: {{type: Queue, queuing: {{}}}}}}}}}}",
        ["x", "Limited", 30, 64, 8, 50, "3d4h"],
    ),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): (
        f"{{{GLOBAL}, spec: {{validations: [{{expression: 'true'}}], matchConstraints: {{resourceRules: "
        "[{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]}}}",
        ["x", 1, "<unset>", "3d4h"],
    ),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): (
        f"{{{GLOBAL}, spec: {{policyName: p, validationActions: [Deny]}}}}",
        ["x", "p", "<unset>", "3d4h"],
    ),
}  # fmt: skip


def test_every_kind_has_a_minimal_object() -> None:
    missing = [key for key in CATALOG if key not in MINIMAL and key != ("", "pods")]
    assert not missing, f"write an object and its row of kubectl get into MINIMAL in {__file__} for {missing}"


@pytest.mark.parametrize("key", [k for k in CATALOG if k in MINIMAL])
def test_minimal_object(key: tuple[str, str]) -> None:
    text, row = MINIMAL[key]
    rules, obj = CATALOG[key], tree(text)
    status = obj.get("status")
    created(rules, obj)
    if status and key == ("", "nodes"):
        assert obj["status"]["conditions"] == status["conditions"]
    assert rules.validate(obj) == []
    assert rules.validate_update(obj, obj) == []
    assert rules.cells(obj, NOW) == row and len(row) == len(rules.columns)
    if rules.selectable_fields:
        assert set(rules.selectable_fields) <= set(rules.fields(rules.codec.stored(obj)))
        assert all(isinstance(v, str) for v in rules.fields(rules.codec.stored(obj)).values())


def deployment(**spec: object) -> dict[str, object]:
    obj = tree(MINIMAL["apps", "deployments"][0])
    obj["spec"] |= spec
    return obj


@pytest.mark.parametrize(
    "key, obj, expected",
    [
        (("apps", "deployments"), deployment(selector={"matchLabels": {"a": "z"}}),
         ['spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`']),
        (("apps", "deployments"), deployment(replicas=-1),
         ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (("apps", "deployments"), deployment(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
         ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"]),
        (("apps", "deployments"), tree("{metadata: {name: x}, spec: {template: {spec: {containers: []}}}}"),
         ["spec.selector: Required value", "spec.template.spec.containers: Required value"]),
        (("", "configmaps"), tree("{metadata: {name: x}, data: {'a/b': c}}"),
         ["data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
          "(e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"]),
        (("", "configmaps"), {"metadata": {"name": "x"}, "data": {"a": "x" * (1 << 20) + "x"}},
         ["[]: Too long: may not be more than 1048576 bytes"]),
        (("", "secrets"), tree("{metadata: {name: x}, type: kubernetes.io/tls}"),
         ["data[tls.crt]: Required value", "data[tls.key]: Required value"]),
        (("", "services"), tree("{metadata: {name: x}, spec: {}}"), ["spec.ports: Required value"]),
        (("", "services"), tree("{metadata: {name: x}, spec: {ports: [{port: 1}, {port: 1, name: b}]}}"),
         ["spec.ports[0].name: Required value", 'spec.ports[1]: Duplicate value: {"port":1,"protocol":"TCP"}']),
        (("", "services"), tree("{metadata: {name: x}, spec: {type: ExternalName}}"),
         ["spec.externalName: Required value"]),
        (("", "services"), tree("{metadata: {name: x}, spec: {ports: [{port: 1, nodePort: 30000}]}}"),
         ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]),
        (("rbac.authorization.k8s.io", "roles"), tree("{metadata: {name: x}, rules: [{apiGroups: ['']}]}"),
         ["rules[0].verbs: Required value: verbs must contain at least one value",
          "rules[0].resources: Required value: resource rules must supply at least one resource"]),
        (("", "endpoints"), tree("{metadata: {name: x}, subsets: [{addresses: [{ip: 127.0.0.1}]}]}"),
         ["subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range "
          "(127.0.0.0/8, ::1/128)"]),
        (("", "endpoints"), tree("{metadata: {name: x}, subsets: [{addresses: [{ip: '::ffff:127.0.0.1'}]}]}"),
         ["subsets[0].addresses[0].ip: Invalid value: \"::ffff:127.0.0.1\": may not be in the loopback range "
          "(127.0.0.0/8, ::1/128)"]),
        (("discovery.k8s.io", "endpointslices"),
         tree("{metadata: {name: x}, addressType: IPv6, endpoints: [{addresses: ['::ffff:169.254.1.1']}]}"),
         ["endpoints[0].addresses[0]: Invalid value: \"::ffff:169.254.1.1\": may not be in the link-local range "
          "(169.254.0.0/16, fe80::/10)"]),
        (("discovery.k8s.io", "endpointslices"),
         tree("{metadata: {name: x}, addressType: IPv6, endpoints: [{addresses: ['::ffff:10.1.1.1']}]}"),
         ["endpoints[0].addresses[0]: Invalid value: \"::ffff:10.1.1.1\": must be an IPv6 address"]),
        (("", "services"), tree("{metadata: {name: x}, spec: {ports: [{port: 1}], externalIPs: ['::ffff:0.0.0.0']}}"),
         ["spec.externalIPs[0]: Invalid value: \"::ffff:0.0.0.0\": may not be unspecified (::ffff:0.0.0.0)"]),
        (("", "services"), tree("{metadata: {name: x}, spec: {ports: [{port: 1}], externalIPs: ['ff02::1']}}"),
         ["spec.externalIPs[0]: Invalid value: \"ff02::1\": may not be in the link-local multicast range "
          "(224.0.0.0/24, ff02::/10)"]),
    ],
)  # fmt: skip
def test_refused(key: tuple[str, str], obj: dict[str, object], expected: list[str]) -> None:
    assert problems(CATALOG[key], obj) == expected


def update(resource: str, group: str, old: str, new: str) -> list[str]:
    rules = strategy(resource, group)
    before, after = created(rules, tree(old)), tree(new)
    rules.default(after)
    rules.prepare_update(CONTEXT, after, before)
    return [c.text() for c in rules.validate_update(after, before)]


def test_immutable_fields() -> None:
    text = MINIMAL["apps", "deployments"][0]
    changed = text.replace("a: b", "a: c")
    assert update("deployments", "apps", text, text) == []
    assert update("deployments", "apps", text, changed) == [
        'spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable'
    ]
    assert update("configmaps", "", "{metadata: {name: x}, immutable: true}", "{metadata: {name: x}, data: {a: b}}") == [
        "immutable: Forbidden: field is immutable when `immutable` is set",
        "data: Forbidden: field is immutable when `immutable` is set",
    ]
    assert update("secrets", "", "{metadata: {name: x}, type: a/b}", "{metadata: {name: x}, type: c/d}") == [
        'type: Invalid value: "c/d": field is immutable'
    ]
    binding = MINIMAL["rbac.authorization.k8s.io", "rolebindings"][0]
    assert update("rolebindings", "rbac.authorization.k8s.io", binding, binding.replace("name: r}", "name: q}"))[0] == (
        'roleRef: Invalid value: {"kind":"Role","name":"q","apiGroup":"rbac.authorization.k8s.io"}: cannot change roleRef'
    )


def test_deployment_defaults() -> None:
    spec = created(strategy("deployments", "apps"), deployment())["spec"]
    assert spec["replicas"] == 1 and spec["revisionHistoryLimit"] == 10 and spec["progressDeadlineSeconds"] == 600
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    assert "enableServiceLinks" not in spec["template"]["spec"]


def test_two_shapes_of_an_event() -> None:
    rules = strategy("events", "events.k8s.io")
    obj = created(rules, tree(MINIMAL["events.k8s.io", "events"][0]))
    stored = rules.codec.stored(obj)
    assert stored["apiVersion"] == "v1" and stored["involvedObject"]["name"] == "p" and stored["message"] == "m"
    assert rules.codec.served_tree(stored) == obj | {"apiVersion": "events.k8s.io/v1"}


def test_an_older_autoscaler_has_the_zeros_of_its_schema() -> None:
    rules = CATALOG["autoscaling", "horizontalpodautoscalers.v1"]
    served = rules.codec.served_tree({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {}})
    assert served["status"] == rules.zero_status() == {"currentReplicas": 0, "desiredReplicas": 0}
    assert served["apiVersion"] == "autoscaling/v1"
