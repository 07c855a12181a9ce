from __future__ import annotations

import pytest

from tests.apiserver.kinds.support import created, pod, problems, strategy, tree

PODS = strategy("pods")


def test_defaults() -> None:
    obj = created(PODS, pod(containers=[{
        "name": "a", "image": "nginx:1.25", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}},
        "livenessProbe": {"httpGet": {"port": 80}},
        "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    }], volumes=[{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}], serviceAccountName="sa"))  # fmt: skip
    spec = obj["spec"]
    container = spec["containers"][0]
    assert spec["restartPolicy"] == "Always" and spec["dnsPolicy"] == "ClusterFirst"
    assert spec["terminationGracePeriodSeconds"] == 30 and spec["enableServiceLinks"] is True
    assert spec["serviceAccount"] == "sa" and spec["securityContext"] == {}
    assert container["imagePullPolicy"] == "IfNotPresent" and container["resources"]["requests"] == {"cpu": "1"}
    assert container["livenessProbe"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}
    assert container["livenessProbe"]["failureThreshold"] == 3
    assert container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert spec["volumes"][0]["emptyDir"] == {} and spec["volumes"][1]["configMap"]["defaultMode"] == 420
    assert obj["status"] == {"phase": "Pending", "qosClass": "Burstable"}
    assert PODS.validate(obj) == []


@pytest.mark.parametrize(
    "image, policy",
    [("a", "Always"), ("a:latest", "Always"), ("h:5000/a", "Always"), ("a:1", "IfNotPresent"),
     ("a@sha256:" + "0" * 64, "IfNotPresent")],
)  # fmt: skip
def test_pull_policy(image: str, policy: str) -> None:
    assert (
        created(PODS, pod(containers=[{"name": "a", "image": image}]))["spec"]["containers"][0]["imagePullPolicy"]
        == policy
    )


def c(**more: object) -> dict[str, object]:
    return {"containers": [{"name": "a", "image": "i"} | more]}


@pytest.mark.parametrize(
    "spec, expected",
    [
        ({"containers": []}, ["spec.containers: Required value"]),
        ({"containers": [{"image": "i"}]}, ["spec.containers[0].name: Required value"]),
        (c(image=""), ["spec.containers[0].image: Required value"]),
        (
            {"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]},
            ['spec.containers[1].name: Duplicate value: "a"'],
        ),
        (c(ports=[{"containerPort": 70000}]),
         ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]),
        (c(volumeMounts=[{"name": "x", "mountPath": "/x"}]), ['spec.containers[0].volumeMounts[0].name: Not found: "x"']),
        (c(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
         ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1']),
        (c(env=[{"name": "E", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
         ['spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty']),
        (c(imagePullPolicy="Perhaps"),
         ['spec.containers[0].imagePullPolicy: Unsupported value: "Perhaps": supported values: '
          '"Always", "IfNotPresent", "Never"']),
        (c(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2}),
         ["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"]),
        (c() | {"restartPolicy": "Sometimes"},
         ['spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"']),
        (c() | {"tolerations": [{"operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3}]},
         ["spec.tolerations[0].effect: Invalid value: \"NoSchedule\": "
          "effect must be 'NoExecute' when `tolerationSeconds` is set"]),
        (c() | {"volumes": [{"name": "v", "hostPath": {"path": "/a", "type": "Odd"}}]},
         ['spec.volumes[0].hostPath.type: Unsupported value: "Odd": supported values: "", "BlockDevice", "CharDevice", '
          '"Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"']),
        (c() | {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}]},
         ["spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type"]),
        (c(name="Bad") | {"nodeName": "n", "activeDeadlineSeconds": 0},
         ["spec.containers[0].name: Invalid value: \"Bad\": a lowercase RFC 1123 label must consist of lower case "
          "alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
          "'123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
          "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]),
        (c(securityContext={"privileged": True, "allowPrivilegeEscalation": False})
         | {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}},
         ['spec.containers[0].securityContext: Invalid value: {"privileged":true,"allowPrivilegeEscalation":false}: '
          "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
          "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: "
          "must have at least one node selector term"]),
    ],
)  # fmt: skip
def test_all_that_is_wrong(spec: dict[str, object], expected: list[str]) -> None:
    assert problems(PODS, pod(**spec)) == expected


def test_updates() -> None:
    def change(**spec: object) -> list[str]:
        old, new = created(PODS, pod()), created(PODS, pod(**spec))
        return [x.text() for x in PODS.validate_update(new, old)]

    assert change() == []
    assert change(containers=[{"name": "a", "image": "other"}]) == []
    assert change(tolerations=[{"operator": "Exists"}], activeDeadlineSeconds=5) == []
    assert change(nodeSelector={"a": "b"})[0].startswith(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    )
    assert change(containers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]) == [
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    ]


RUNNING = {"running": {"startedAt": "2024-01-01T00:00:00Z"}}
NOW = 1_704_067_300.0


def row(status: dict[str, object], **spec: object) -> list[object]:
    obj = created(PODS, pod(**spec))
    obj["status"] = status
    obj["metadata"]["creationTimestamp"] = "2024-01-01T00:00:00Z"
    return PODS.cells(obj, NOW)


@pytest.mark.parametrize(
    "status, expected",
    [
        ({"phase": "Pending"}, ["p", "0/1", "Pending", "0", "100s"]),
        ({"phase": "Running", "containerStatuses": [{"name": "a", "ready": True, "restartCount": 0, "state": RUNNING}]},
         ["p", "1/1", "Running", "0", "100s"]),
        ({"phase": "Running", "containerStatuses": [
            {"name": "a", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"finishedAt": "2024-01-01T00:01:00Z"}}}]},
         ["p", "0/1", "CrashLoopBackOff", "4 (40s ago)", "100s"]),
        ({"phase": "Succeeded", "containerStatuses": [
            {"name": "a", "restartCount": 0, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]},
         ["p", "0/1", "Completed", "0", "100s"]),
        ({"phase": "Failed", "reason": "Evicted"}, ["p", "0/1", "Evicted", "0", "100s"]),
    ],
)  # fmt: skip
def test_columns(status: dict[str, object], expected: list[object]) -> None:
    cells = row(status)
    assert cells[:5] == expected and len(cells) == len(PODS.columns)


def test_columns_while_initialising() -> None:
    init = [{"name": "i", "image": "i"}, {"name": "j", "image": "i"}]
    statuses = [{"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}},
                {"name": "j", "restartCount": 0, "state": RUNNING}]  # fmt: skip
    assert row({"phase": "Pending", "initContainerStatuses": statuses}, initContainers=init)[2] == "Init:1/2"
    statuses[1]["state"] = {"terminated": {"exitCode": 1, "reason": "Error"}}
    assert row({"phase": "Pending", "initContainerStatuses": statuses}, initContainers=init)[2] == "Init:Error"


def test_grace_and_fields() -> None:
    obj = created(PODS, pod(nodeName="n", hostNetwork=True))
    assert PODS.graceful_seconds(obj, None) == 30 and PODS.graceful_seconds(obj, 5) == 5
    assert PODS.graceful_seconds(obj, 0) == 0
    assert PODS.graceful_seconds(created(PODS, pod()), 5) == 0
    assert set(PODS.fields(obj)) == set(PODS.selectable_fields)
    assert PODS.fields(obj)["spec.hostNetwork"] == "true"


def test_host_network_ports_match() -> None:
    obj = tree("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {hostNetwork: true, containers: ["
               "{name: a, image: i, ports: [{containerPort: 80}]}]}}")  # fmt: skip
    assert problems(PODS, obj) == []
    assert obj["spec"]["containers"][0]["ports"][0]["hostPort"] == 80
