"""Every pod warning of upstream: what brings it, what does not, and that its words and path are upstream's."""

from __future__ import annotations

import re
from typing import Any

import pytest

from apiserver.kinds.core.pods.warnings import LABELS, VOLUMES, claim_warnings, pod_warnings, template_warnings
from navarch.api.schema import schema_of
from navarch.api.types import core_v1
from tests.apiserver.kinds.served import Asker
from tests.apiserver.kinds.support import CATALOG, pod, problems, strategy
from tests.apiserver.kinds.test_served import NS, create, on_server

Tree = dict[str, Any]


def one(**fields: Any) -> Tree:
    return {"containers": [{"name": "a", **fields}]}


def projected(*sources: Tree) -> Tree:
    return {"volumes": [{"name": "v", "projected": {"sources": list(sources)}}]}


def env(*values: Tree) -> Tree:
    return one(env=[{"name": "A", **v} for v in values])


HIDES = 'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'
FRACTION = 'fractional byte value "{}" is invalid, must be an integer'
TERM = {"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "In", "values": ["a b"]}]}
NOT_A_VALUE = "a valid label must be an empty string or consist of alphanumeric characters"
SPEC: list[tuple[Tree, list[str]]] = [
    ({"nodeSelector": {"beta.kubernetes.io/arch": "x", "kubernetes.io/arch": "x"}},
     ['spec.nodeSelector[beta.kubernetes.io/arch]: deprecated since v1.14; use "kubernetes.io/arch" instead']),
    ({"topologySpreadConstraints": [{"topologyKey": "failure-domain.beta.kubernetes.io/zone", "labelSelector": {}}]},
     ['spec.topologySpreadConstraints[0].topologyKey: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use '
      '"topology.kubernetes.io/zone" instead']),
    ({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}}},
     ['spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: '
      'beta.kubernetes.io/os is deprecated since v1.14; use "kubernetes.io/os" instead']),
    ({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}, {"ip": "1.1.1.1"}]},
     ['spec.hostAliases[2].ip: duplicate ip "1.1.1.1"']),
    ({"overhead": {"memory": "0.5", "cpu": "0.5", "ephemeral-storage": "1.5"}},
     [f"spec.overhead[memory]: {FRACTION.format('500m')}", f"spec.overhead[ephemeral-storage]: {FRACTION.format('1500m')}"]),
    (one(resources={"limits": {"memory": "1Ki", "cpu": "1m"}, "requests": {"memory": "1024m", "ephemeral-storage": 0.25}}),
     [f"spec.containers[0].resources.requests[memory]: {FRACTION.format('1024m')}",
      f"spec.containers[0].resources.requests[ephemeral-storage]: {FRACTION.format('250m')}"]),
    ({"initContainers": [{"name": "i", "resources": {"limits": {"memory": "1.1"}}}]},
     [f"spec.initContainers[0].resources.limits[memory]: {FRACTION.format('1100m')}"]),
    (env({"value": "1"}, {"value": "2"}), [HIDES]),
    (env({"value": "1"}, {"value": "$(A)2"}), []),
    (env({"value": "1"}, {"value": "$(A)"}), [HIDES]),
    (env({"value": "1"}, {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}), [HIDES]),
    (one(ports=[{"containerPort": 80, "protocol": "TCP", "hostIP": "1.1.1.1"}]),
     ["spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP "
      "HostIP:1.1.1.1}"]),
    ({"containers": [{"ports": [{"name": "h", "containerPort": 1}]}, {"ports": [{"name": "h", "containerPort": 2}]}]},
     ['spec.containers[1].ports[0]: duplicate port name "h" with spec.containers[0].ports[0], services and probes that '
      "select ports by name will use spec.containers[0].ports[0]"]),
    ({"initContainers": [{"ports": [{"name": "h", "containerPort": 1}]}],
      "containers": [{"ports": [{"name": "h", "containerPort": 2}]}]}, []),
    ({"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"path": "a"}, {"path": "a/b"}, {"path": "ab"}]}}]},
     ['volume "v" (ConfigMap "c"): overlapping paths: "a/b" with "a"']),
    ({"volumes": [{"name": "v", "secret": {"secretName": "s", "items": [{"path": "a/"}, {"path": "a"}]}}]},
     ['volume "v" (Secret "s"): overlapping paths: "a" with "a"']),
    ({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "a"}, {"path": "b"}]}}]}, []),
    (projected({"serviceAccountToken": {"path": "token"}}, {"secret": {"name": "s", "items": [{"path": "token"}]}}),
     ['volume "v" (Projected): overlapping paths: "token" (Secret "s") with "token" (ServiceAccountToken)']),
    (projected({"configMap": {"name": "c"}}, {"secret": {"name": "s"}}), []),
    (projected({}), ['volume "v" (Projected) has no sources provided']),
    (projected({"clusterTrustBundle": {"signerName": "x", "path": "p"}}, {"downwardAPI": {"items": [{"path": "p/q"}]}}),
     ['volume "v" (Projected): overlapping paths: "p/q" (DownwardAPI) with "p" (ClusterTrustBundle "x")']),
    ({"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {
        "storage": "1.5"}}}}}}]},
     [f"spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: {FRACTION.format('1500m')}"]),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), SPEC)
def test_specs(spec: Tree, expected: list[str]) -> None:
    assert pod_warnings({"spec": spec}) == expected
    # A template says the same, below its path; texts about a volume name no path.
    below = [re.sub(r"(^| )spec\.", r"\1spec.template.spec.", text) for text in expected]
    assert template_warnings({"spec": spec}, None, "spec.template") == below
    assert template_warnings({"spec": spec}, {"spec": spec}, "spec.template") == []


def test_values_of_preferences() -> None:
    field = "preferredDuringSchedulingIgnoredDuringExecution"
    found = pod_warnings({"spec": {"affinity": {"nodeAffinity": {field: [{"weight": 1, "preference": TERM}]}}}})
    at = f"spec.affinity.nodeAffinity.{field}[0].preference.matchExpressions[0]"
    assert [text[: text.index(" is ")] for text in found] == [f"{at}.key: beta.kubernetes.io/os", f"{at}.values[0]: a b"]
    assert f"a b is invalid, {NOT_A_VALUE}" in found[1]


@pytest.mark.parametrize("kind", VOLUMES)
def test_old_volumes(kind: str) -> None:
    assert kind in schema_of(core_v1.Volume).fields  # it is a field, and not a word of ours
    shown = {"storageos": "storageOS"}.get(kind, kind)
    assert pod_warnings({"spec": {"volumes": [{"name": "v"}, {"name": "w", kind: {}}]}}) == [
        f"spec.volumes[1].{shown}: {VOLUMES[kind]}"
    ]


@pytest.mark.parametrize("label", LABELS)
def test_old_labels(label: str) -> None:
    assert pod_warnings({"spec": {"nodeSelector": {label: ""}}}) == [f"spec.nodeSelector[{label}]: {LABELS[label]}"]


SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}
NOTES = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "seccomp.security.alpha.kubernetes.io/pod": 'non-functional in v1.27+; use the "seccompProfile" field instead',
    "container.seccomp.security.alpha.kubernetes.io/a": 'non-functional in v1.27+; use the "seccompProfile" field instead',
}


@pytest.mark.parametrize("note", NOTES)
def test_old_annotations(note: str) -> None:
    notes = {note: "x", "container.seccomp.security.alpha.kubernetes.io/z": "x"}  # there is no container of this name
    tree: Tree = {"metadata": {"annotations": notes}, "spec": one()}
    assert pod_warnings(tree) == [f"metadata.annotations[{note}]: {NOTES[note]}"]
    assert pod_warnings(tree, "spec.template") == [f"spec.template.metadata.annotations[{note}]: {NOTES[note]}"]
    tree["spec"] = {**one(securityContext=SECCOMP), "securityContext": SECCOMP}
    assert bool(pod_warnings(tree)) is ("seccomp" not in note)


def test_apparmor_annotations_of_templates_only() -> None:
    key = "container.apparmor.security.beta.kubernetes.io/a"
    tree: Tree = {"metadata": {"annotations": {key: "x"}}, "spec": one()}
    text = f'template.metadata.annotations[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead'
    assert pod_warnings(tree) == [] and pod_warnings(tree, "template") == [text]
    for spec in (one(securityContext={"appArmorProfile": {"type": "Unconfined"}}),
                 {**one(), "securityContext": {"appArmorProfile": {"type": "Unconfined"}}}):  # fmt: skip
        assert pod_warnings(tree | {"spec": spec}, "template") == []


def test_claims() -> None:
    key = "volume.beta.kubernetes.io/storage-class"
    claim = {"metadata": {"annotations": {key: "x"}}, "spec": {"resources": {"requests": {"storage": "100m"}}}}
    assert claim_warnings(claim) == [
        f'metadata.annotations[{key}]: deprecated since v1.8; use "storageClassName" attribute instead',
        f"spec.resources.requests[storage]: {FRACTION.format('100m')}",
    ]
    assert claim_warnings({"metadata": {}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}) == []


TEMPLATES = {
    ("apps", "deployments"): "spec.template", ("apps", "replicasets"): "spec.template",
    ("apps", "daemonsets"): "spec.template", ("apps", "statefulsets"): "spec.template",
    ("", "replicationcontrollers"): "spec.template", ("batch", "jobs"): "spec.template",
    ("batch", "cronjobs"): "spec.jobTemplate.spec.template", ("", "podtemplates"): "template",
}  # fmt: skip


@pytest.mark.parametrize("key", TEMPLATES)
def test_every_kind_with_a_template_tells_who_creates_and_changes_it(key: tuple[str, str]) -> None:
    path = TEMPLATES[key]
    obj: Tree = {"metadata": {"name": "x"}}
    holder = obj
    for step in path.split(".")[:-1]:
        holder = holder.setdefault(step, {})
    holder["template"] = {"spec": one(resources={"limits": {"memory": "100m"}})}
    told = [f"{path}.spec.containers[0].resources.limits[memory]: {FRACTION.format('100m')}"]
    rules = CATALOG[key]
    assert rules.warnings(obj, None) == told
    assert rules.warnings(obj, obj) == []
    assert rules.warnings(obj, {"metadata": {"name": "x"}}) == told


def test_who_creates_a_pod_is_told() -> None:
    wrong = pod(hostAliases=[{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}])
    assert not problems(strategy("pods"), wrong)

    async def body(ask: Asker) -> None:
        await create(ask, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")
        made = await ask("POST", f"{NS}/pods", pod(hostAliases=[{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]))
        assert ask.warnings == [r'299 - "spec.hostAliases[1].ip: duplicate ip \"1.1.1.1\""']
        made["metadata"]["labels"] = {"a": "b"}  # who changes one is not
        await ask("PUT", f"{NS}/pods/p", made)
        assert ask.warnings == []

    on_server(body)
