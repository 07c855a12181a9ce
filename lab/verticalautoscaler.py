"""The objects of `up --vpa`: the kinds of the VerticalPodAutoscaler, the rights of who serves them, and its webhook.

The schemas have the fields that controllers/verticalautoscaler acts upon; others are unknown to the API server.
"""

from __future__ import annotations

import base64
from typing import Any

from lab.apiclient import Api
from lab.components import VPA_USER
from lab.gatewayapi import AGE, CRDS, Schema, array, column, definition, number, struct, text
from lab.paths import LabError

GROUP, RBAC, WEBHOOK = "autoscaling.k8s.io", "rbac.authorization.k8s.io", "navarch-vpa"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
AMOUNT: Schema = {
    "x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": "^[0-9]*[.]?[0-9]+([.]|[KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
}  # fmt: skip
AMOUNTS: Schema = {"type": "object", "additionalProperties": AMOUNT}
TIME: Schema = {"type": "string", "format": "date-time"}
READ = ["get", "list", "watch"]


def autoscaler() -> tuple[Schema, Schema]:
    target = struct("apiVersion", "kind", "name", apiVersion=text(), kind=text(), name=text())
    policy = struct(
        containerName=text(), mode=text("Auto", "Off"), minAllowed=AMOUNTS, maxAllowed=AMOUNTS,
        controlledResources=array(text("cpu", "memory")), controlledValues=text("RequestsAndLimits", "RequestsOnly"),
    )  # fmt: skip
    update = struct(
        updateMode=text("Off", "Initial", "Recreate", "InPlaceOrRecreate", "Auto"), minReplicas=number(1, 2**31 - 1)
    )
    spec = struct(
        "targetRef", targetRef=target, updatePolicy=update, resourcePolicy=struct(containerPolicies=array(policy, 100))
    )
    one = struct("containerName", "target", containerName=text(), target=AMOUNTS, lowerBound=AMOUNTS, upperBound=AMOUNTS,
                 uncappedTarget=AMOUNTS)  # fmt: skip
    condition = struct("type", "status", type=text(), status=text("True", "False", "Unknown"), lastTransitionTime=TIME,
                       reason=text(longest=1024), message=text(longest=32768))  # fmt: skip
    return spec, struct(conditions=array(condition, keys="type"),
                        recommendation=struct(containerRecommendations=array(one, 100)))  # fmt: skip


def checkpoint() -> tuple[Schema, Schema]:
    weights: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    histogram = struct(referenceTimestamp=TIME, bucketWeights=weights, totalWeight={"type": "number"})
    status = struct(
        version=text(), lastUpdateTime=TIME, cpuHistogram=histogram, memoryHistogram=histogram, firstSampleStart=TIME,
        lastSampleStart=TIME, totalSamplesCount=number(0, 2**31 - 1),
    )  # fmt: skip
    return struct(vpaObjectName=text(), containerName=text()), status


def definitions() -> list[dict[str, Any]]:
    first = ".status.recommendation.containerRecommendations[0].target"
    columns = [
        column("Mode", ".spec.updatePolicy.updateMode"), column("CPU", f"{first}.cpu"), column("Mem", f"{first}.memory"),
        column("Provided", '.status.conditions[?(@.type=="RecommendationProvided")].status'), AGE,
    ]  # fmt: skip
    return [
        definition("VerticalPodAutoscaler", "verticalpodautoscalers", ["vpa"], autoscaler(), columns, group=GROUP),
        definition("VerticalPodAutoscalerCheckpoint", "verticalpodautoscalercheckpoints", ["vpacheckpoint"], checkpoint(),
                   [AGE], group=GROUP),
    ]  # fmt: skip


def rights() -> list[tuple[str, dict[str, Any]]]:
    checkpoints = [f"verticalpodautoscalercheckpoints{part}" for part in ("", "/status")]
    rules = [
        {"apiGroups": [""], "resources": ["pods", "replicationcontrollers"], "verbs": READ},
        {"apiGroups": [""], "resources": ["pods/resize"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
        {"apiGroups": ["apps"], "resources": ["daemonsets", "deployments", "replicasets", "statefulsets"], "verbs": READ},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": READ},
        {"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["get"]},
        {"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [GROUP], "resources": ["verticalpodautoscalers"], "verbs": READ},
        {"apiGroups": [GROUP], "resources": ["verticalpodautoscalers/status"], "verbs": ["patch", "update"]},
        {"apiGroups": [GROUP], "resources": checkpoints, "verbs": [*READ, "create", "patch", "update"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    ]
    head: dict[str, Any] = {"apiVersion": f"{RBAC}/v1", "metadata": {"name": VPA_USER}}
    role = {"apiGroup": RBAC, "kind": "ClusterRole", "name": VPA_USER}
    subject = {"kind": "User", "apiGroup": RBAC, "name": VPA_USER}
    path = f"/apis/{RBAC}/v1/clusterrole"
    return [
        (f"{path}s", head | {"kind": "ClusterRole", "rules": rules}),
        (f"{path}bindings", head | {"kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]}),
    ]


def webhook(port: int, authority: bytes) -> dict[str, Any]:
    """Asks the autoscaler about new pods; without an answer they are created as they are. ``authority``: a CA in PEM."""
    client = {"url": f"https://127.0.0.1:{port}/mutate", "caBundle": base64.b64encode(authority).decode()}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}
    hook = {
        "name": "vpa.navarch.dev", "clientConfig": client, "rules": [rule], "failurePolicy": "Ignore", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 2,
    }  # fmt: skip
    head = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration"}
    return {**head, "metadata": {"name": WEBHOOK}, "webhooks": [hook]}


def objects(port: int, authority: bytes) -> list[tuple[str, dict[str, Any]]]:
    """(path of the collection, object) pairs."""
    return [*((CRDS, one) for one in definitions()), *rights(), (WEBHOOKS, webhook(port, authority))]


def forget_webhook(api: Api, port: int) -> None:
    """Deletes the webhook if it leads to another port, so that it is made anew."""
    status, body = api.call("GET", f"{WEBHOOKS}/{WEBHOOK}")
    url = webhook(port, b"")["webhooks"][0]["clientConfig"]["url"]
    if status == 200 and url not in body.decode(errors="replace"):
        api.call("DELETE", f"{WEBHOOKS}/{WEBHOOK}")


def remove(api: Api) -> None:
    """Deletes what `up --vpa` made, with all autoscalers."""
    for path, obj in reversed(objects(0, b"")):
        status, body = api.call("DELETE", f"{path}/{obj['metadata']['name']}")
        if status not in (200, 202, 404):
            raise LabError(f"could not delete {obj['kind']}: {body.decode(errors='replace')[:300]}")
