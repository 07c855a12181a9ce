"""Leaves of random objects: what a field's name and type suggest, and what nobody would write.

A field gets a plausible value most of the time (else hardly an object would pass validation), and one from the edge of
its type now and then.
"""

from __future__ import annotations

from random import Random
from typing import Any

from navarch.api import schema as s
from navarch.api.schema import Node

NAMES = ("a", "b", "c", "web", "db", "x1")
"""Names that objects give each other: few, so that they meet."""

ENUMS: dict[str, tuple[str, ...]] = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "dnsPolicy": ("ClusterFirst", "Default", "None", "ClusterFirstWithHostNet"),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "preemptionPolicy": ("Never", "PreemptLowerPriority"),
    "protocol": ("TCP", "UDP", "SCTP"),
    "operator": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Equal"),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "whenUnsatisfiable": ("DoNotSchedule", "ScheduleAnyway"),
    "nodeAffinityPolicy": ("Honor", "Ignore"),
    "nodeTaintsPolicy": ("Honor", "Ignore"),
    "scheme": ("HTTP", "HTTPS"),
    "medium": ("", "Memory", "HugePages"),
    "mountPropagation": ("None", "HostToContainer", "Bidirectional"),
    "recursiveReadOnly": ("Disabled", "IfPossible", "Enabled"),
    "concurrencyPolicy": ("Allow", "Forbid", "Replace"),
    "completionMode": ("NonIndexed", "Indexed"),
    "podReplacementPolicy": ("TerminatingOrFailed", "Failed"),
    "podManagementPolicy": ("OrderedReady", "Parallel"),
    "whenDeleted": ("Retain", "Delete"),
    "whenScaled": ("Retain", "Delete"),
    "sessionAffinity": ("None", "ClientIP"),
    "externalTrafficPolicy": ("Cluster", "Local"),
    "internalTrafficPolicy": ("Cluster", "Local"),
    "ipFamilyPolicy": ("SingleStack", "PreferDualStack", "RequireDualStack"),
    "addressType": ("IPv4", "IPv6", "FQDN"),
    "accessModes": ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"),
    "volumeMode": ("Filesystem", "Block"),
    "persistentVolumeReclaimPolicy": ("Retain", "Delete", "Recycle"),
    "reclaimPolicy": ("Retain", "Delete"),
    "volumeBindingMode": ("Immediate", "WaitForFirstConsumer"),
    "policyTypes": ("Ingress", "Egress"),
    "pathType": ("Exact", "Prefix", "ImplementationSpecific"),
    "failurePolicy": ("Ignore", "Fail"),
    "matchPolicy": ("Exact", "Equivalent"),
    "sideEffects": ("None", "NoneOnDryRun"),
    "reinvocationPolicy": ("Never", "IfNeeded"),
    "scope": ("Namespaced", "Cluster", "*"),
    "verbs": ("get", "list", "create", "*"),
    "operations": ("CREATE", "UPDATE", "DELETE", "CONNECT", "*"),
    "scopes": ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort"),
    "resourceName": ("memory", "cpu", "example.com/x"),
    "resource": ("limits.cpu", "requests.memory", "pods", "services"),
    "fieldPath": ("metadata.name", "status.podIP", "metadata.labels['a']", "spec.nodeName"),
    "topologyKey": ("kubernetes.io/hostname", "topology.kubernetes.io/zone", "a"),
    "unhealthyPodEvictionPolicy": ("IfHealthyBudget", "AlwaysAllow"),
    "supplementalGroupsPolicy": ("Merge", "Strict"),
    "fsGroupChangePolicy": ("OnRootMismatch", "Always"),
    "procMount": ("Default", "Unmasked"),
    "resizePolicy": ("NotRequired", "RestartContainer"),
    "status": ("True", "False", "Unknown"),
    "phase": ("Pending", "Running", "Succeeded", "Failed", "Active", "Bound"),
    "namespace": ("default", "a", ""),
    "subdomain": ("a",),
    "hostname": ("a", "b"),
    "mountPath": ("/a", "/b/c", "/etc/hosts"),
    "path": ("/a", "/", "x/y"),
    "subPath": ("x", "x/y"),
    "image": ("localhost/a", "nginx", "registry.example/a/b:1@sha256:" + "0" * 64),
    "schedule": ("* * * * *", "@daily", "*/5 0 1 1 1"),
    "timeZone": ("UTC", "Europe/Berlin"),
    "apiVersion": ("v1", "apps/v1", "example.com/v1"),
    "kind": ("Pod", "ConfigMap", "Deployment", "Node", "Widget", "Event"),
    "apiGroup": ("", "apps", "rbac.authorization.k8s.io"),
    "apiGroups": ("", "apps", "*"),
    "apiVersions": ("v1", "*"),
    "resources": ("pods", "configmaps", "*"),
    "cidr": ("10.0.0.0/8", "::/0"),
    "ip": ("10.1.2.3", "fd00::1"),
    "key": ("a", "example.com/k", "kubernetes.io/hostname"),
    "expression": ("true", "object.metadata.name == 'a'", "1/0 == 1"),
}  # fmt: skip
"""By the name of the field, in whichever struct."""

TYPES = (
    "RollingUpdate", "Recreate", "OnDelete", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "Container", "Pod",
    "Resource", "Pods", "Utilization", "AverageValue", "Value", "RuntimeDefault", "Unconfined", "Localhost", "Opaque",
    "kubernetes.io/tls", "Ready", "Normal", "Warning", "Limited", "Exempt", "Queue", "Reject", "ByUser", "User", "Group",
    "Directory", "File", "DirectoryOrCreate", "",
)  # fmt: skip
"""``type`` means something else in each struct."""

TEXTS = (
    "", " ", "a", "A b", "-", "a.b", "a/b", "../x", "/", "None", "null", "true", "0", "1", "80", "65536", "100%", "-1", "1Gi",
    "1e9", "*", "10.0.0.1", "::1", "2001:db8::1", "::ffff:127.0.0.1", "10.0.0.0/16", "https://127.0.0.1:1/x", "metadata.name",
    "a=b", "$(A)", "{{a}}", "\u00e4\u00f6", "\u2028", "\U0001f600", "\0", "a\nb", "x" * 63, "y" * 64, "z" * 254, "'; --",
)  # fmt: skip
KEYS = (
    "a",
    "b",
    "app",
    "example.com/k",
    "kubernetes.io/hostname",
    "cpu",
    "memory",
    "pods",
    "",
    "A b",
    "x" * 64,
    "tls.crt",
)
AMOUNTS = (
    "0", "1", "2", "100m", "1Gi", "64Mi", "0.5", "1500m", "-1", "1n", "1e3", "100Ei", "9223372036854775807", "1e30",
)  # fmt: skip
INTEGERS = (0, 1, 2, 3, 5, 10, 80, 600, 1000)
ODD = (-1, 65535, 65536, 2**31 - 1, -(2**31), 511, 512)
HUGE = (2**63 - 1, -(2**63), 2**53 + 1, 10**18)
TIMES = (
    "2024-01-01T00:00:00Z",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "2038-01-19T03:14:08Z",
)
DATA = ("", "YQ==", "AAECAw==", "/////w==")


def json(random: Random, depth: int = 3) -> Any:
    """Any JSON value."""
    pick = random.randrange(10 if depth else 6)
    if pick < 6:
        return random.choice((None, True, False, 0, 1, -1.5, 2**53, "", "a", random.choice(TEXTS)))
    if pick < 8:
        return [json(random, depth - 1) for _ in range(random.randrange(3))]
    return {random.choice(KEYS): json(random, depth - 1) for _ in range(random.randrange(3))}


def leaf(random: Random, node: Node, field: str, odd: float) -> Any:
    """A value of the node's type for a field of this name; ``odd`` is the chance (0 to 1) of one from the edge."""
    strange = random.random() < odd
    match node.kind:
        case s.STRING:
            return random.choice(TEXTS) if strange else _text(random, field)
        case s.BOOL:
            return random.random() < 0.5
        case s.INT32:
            return random.choice(ODD if strange else INTEGERS)
        case s.INT64 | s.INTEGER:
            return random.choice((*ODD, *HUGE) if strange else INTEGERS)
        case s.NUMBER:
            return random.choice((0.5, -1.0, 1e300, 3) if strange else (1, 2, 0.5))
        case s.QUANTITY:
            return random.choice(AMOUNTS) if strange else random.choice(AMOUNTS[:8])
        case s.INT_OR_STRING:
            return random.choice((*ODD, *TEXTS) if strange else (1, 80, "50%", "a", "25%"))
        case s.TIME:
            return random.choice(TIMES)
        case s.MICRO_TIME:
            return random.choice(TIMES).replace("Z", ".123456Z")
        case s.BYTES:
            return random.choice(DATA)
    found = json(random)
    return found if node.kind == s.ANY or isinstance(found, dict) else {"a": found}


def _text(random: Random, field: str) -> str:
    if field == "type":
        return random.choice(TYPES)
    return random.choice(ENUMS.get(field) or NAMES)
