"""What a server must refuse: each bad input gets Kubernetes' error with its field path, and nothing is lost by it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.conftest import IMAGE, Kubectl
from tests.e2e.harness import Lab, wait_for

DNS1123 = "must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric"
LONG = "a" * 254
POD = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: x}]}}"
DEPLOYMENT = (
    "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 0, selector: {matchLabels: {a: b}}, "
    "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}}}"
)


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Iterator[Kubectl]:
    """A namespace with something in it, for all cases: in the end it must be whole."""
    lab.kubectl("create", "namespace", "bad-input")
    kubectl = Kubectl(lab, "bad-input")
    wait_for(lambda: kubectl.get("serviceaccounts", "default"), "the service account")
    apply = [DEPLOYMENT, config("plain", a="b"), config("fixed", a="b").replace(", data:", ", immutable: true, data:"),
             "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}",
             "{apiVersion: v1, kind: Secret, metadata: {name: s}, type: example.com/x, data: {a: YQ==}}"]  # fmt: skip
    kubectl("apply", "-f", "-", stdin="---\n" + "\n---\n".join(apply))
    before = {i["metadata"]["uid"]: i for i in kubectl.get("cm,deploy,svc,secret")["items"]}
    yield kubectl
    after = {i["metadata"]["uid"]: i for i in kubectl.get("cm,deploy,svc,secret")["items"]}
    assert [uid for uid in before if uid not in after] == []
    assert [i["metadata"]["name"] for uid, i in after.items() if uid not in before] == []
    for uid, one in before.items():
        assert {k: v for k, v in one.items() if k in ("data", "spec")} == {
            k: v for k, v in after[uid].items() if k in ("data", "spec")
        }
    assert lab.kubectl("get", "--raw", "/readyz") == "ok"
    assert all(p["restarts"] == 0 for p in lab.status()["processes"])
    lab.kubectl("delete", "namespace", "bad-input", "--wait=false")


def config(name: str, **data: str) -> str:
    return f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {json.dumps(name)}}}, data: {json.dumps(data)}}}"


def pod(container: str = "{name: c, image: x}", **spec: Any) -> str:
    rest = "".join(f", {k}: {json.dumps(v)}" for k, v in spec.items())
    return f"{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{container}]{rest}}}}}"


def deployment(old: str, new: str) -> str:
    return DEPLOYMENT.replace(old, new)


def wrong(kind: str, version: str, why: str) -> str:
    version = version.partition("/")[2] or version
    return (
        f'Error from server (BadRequest): error when creating "STDIN": {kind} in version "{version}" cannot be handled as a '
        f"{kind}: {why}"
    )


JSON = "json: cannot unmarshal "
DEPLOYMENT_SPEC = "into Go struct field DeploymentSpec.spec"
CREATED = {
    # the text itself
    "no yaml": (
        "a: [1",
        "error: error parsing STDIN: error converting YAML to JSON: yaml: line 2: did not find expected ',' or ']'",
    ),
    "no kind": (
        "apiVersion: v1",
        'error: error validating "STDIN": error validating data: kind not set; '
        "if you choose to ignore these errors, turn validation off with --validate=false",
    ),
    "unknown kind": (
        "{apiVersion: v1, kind: Pods, metadata: {name: x}}",
        'error: resource mapping not found for name: "x" namespace: "" from "STDIN": no matches for kind "Pods" in version '
        '"v1"\n'
        "ensure CRDs are installed first",
    ),
    # fields
    "unknown fields": (
        pod("{name: c, image: x, foo: 1, imagee: y}", bar=2),
        wrong("Pod", "v1", 'strict decoding error: unknown field "spec.bar", unknown field "spec.containers[0].foo", '
              'unknown field "spec.containers[0].imagee"'),
    ),
    "number for text": (
        pod("{name: c, image: 3}"),
        wrong("Pod", "v1", JSON + "number into Go struct field Container.spec.containers.image of type string"),
    ),
    "number for an environment variable": (
        pod("{name: c, image: x, env: [{name: A, value: 1}]}"),
        wrong("Pod", "v1", JSON + "number into Go struct field EnvVar.spec.containers.env.value of type string"),
    ),
    "object for list": (
        POD.replace("[{name: c, image: x}]", "{name: c}"),
        wrong("Pod", "v1", JSON + "object into Go struct field PodSpec.spec.containers of type []v1.Container"),
    ),
    "text for number": (
        deployment("replicas: 0", 'replicas: "3"'),
        wrong("Deployment", "apps/v1", JSON + f"string {DEPLOYMENT_SPEC}.replicas of type int32"),
    ),
    "number out of range": (
        deployment("replicas: 0", "replicas: 3000000000"),
        wrong("Deployment", "apps/v1", JSON + f"number 3000000000 {DEPLOYMENT_SPEC}.replicas of type int32"),
    ),
    "no quantity": (
        pod("{name: c, image: x, resources: {limits: {cpu: lots}}}"),
        wrong("Pod", "v1", "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
    ),
    "no base64": (
        '{apiVersion: v1, kind: Secret, metadata: {name: t}, data: {a: "###"}}',
        wrong("Secret", "v1", "illegal base64 data at input byte 0"),
    ),
    # names
    "name too long": (
        config(LONG),
        f'The ConfigMap "{LONG}" is invalid: metadata.name: Invalid value: "{LONG}": must be no more than 253 bytes',
    ),
    "bad name": (
        config("Bad_Name"),
        'The ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain '
        f"{DNS1123} character (e.g. 'example.com', regex used for validation is "
        r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    ),
    "no name": (config(""), 'The ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'),
    "service name": (
        "{apiVersion: v1, kind: Service, metadata: {name: 9a}, spec: {ports: [{port: 80}]}}",
        'The Service "9a" is invalid: metadata.name: Invalid value: "9a": a DNS-1035 label must consist of lower case '
        "alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. "
        "'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    ),
    # what must be there, and what must fit together
    "no containers": (POD.replace("[{name: c, image: x}]", "[]"), 'The Pod "p" is invalid: spec.containers: Required value'),
    "no selector": (
        deployment("selector: {matchLabels: {a: b}}, ", ""), 'The Deployment "d" is invalid: spec.selector: Required value',
    ),
    "selector that does not match": (
        deployment("matchLabels: {a: b}", "matchLabels: {a: c}").replace("name: d", "name: e"),
        'The Deployment "e" is invalid: spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match '
        "template `labels`",
    ),
    "negative number": (
        deployment("replicas: 0", "replicas: -1"),
        'The Deployment "d" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0',
    ),
    "the same name twice": (
        pod("{name: c, image: x}, {name: c, image: x}"),
        'The Pod "p" is invalid: spec.containers[1].name: Duplicate value: "c"',
    ),
    "everything at once": (
        pod("{name: c, image: '', ports: [{containerPort: 70000}], volumeMounts: [{name: v, mountPath: /x}]}",
            restartPolicy="Sometimes"),
        'The Pod "p" is invalid: \n'
        "* spec.containers[0].image: Required value\n"
        "* spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive\n"
        '* spec.containers[0].volumeMounts[0].name: Not found: "v"\n'
        '* spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"',
    ),
    "service without ports": (
        "{apiVersion: v1, kind: Service, metadata: {name: t}, spec: {}}",
        'The Service "t" is invalid: spec.ports: Required value',
    ),
    "key of a config map": (
        '{apiVersion: v1, kind: ConfigMap, metadata: {name: t}, data: {"a/b": c}}',
        'The ConfigMap "t" is invalid: data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric '
        "characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
        "'[-._a-zA-Z0-9]+')",
    ),
    "already there": (
        config("plain"), 'Error from server (AlreadyExists): error when creating "STDIN": configmaps "plain" already exists',
    ),
    # size
    "too much data": (
        config("t", a="x" * (1 << 20), b="x"), 'The ConfigMap "t" is invalid: []: Too long: may not be more than 1048576 bytes',
    ),
    "too long annotations": (
        config("t").replace("metadata: {", 'metadata: {annotations: {a: "' + "x" * (256 << 10) + '"}, '),
        'The ConfigMap "t" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes',
    ),
    "too large for the store": (
        pod("{name: c, image: x, env: [{name: A, value: '" + "x" * 1_700_000 + "'}]}"),
        'Error from server: error when creating "STDIN": etcdserver: request is too large',
    ),
    "too large for the server": (
        config("t", a="x" * (3 << 20)),
        'Error from server (RequestEntityTooLarge): error when creating "STDIN": Request entity too large: limit is 3145728',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CREATED)
def test_create(shared: Kubectl, case: str) -> None:
    text, error = CREATED[case]
    assert shared.fails("create", "-f", "-", stdin=f"---\n{text}\n") == error


PATCHED = {
    "wrong type": (
        ["cm", "plain", "-p", '{"data":{"a":1}}'],
        'The request is invalid: patch: Invalid value: "map[data:map[a:1]]": cannot convert int64 to string',
    ),
    "wrong type of a number": (
        ["deploy", "d", "-p", '{"spec":{"replicas":"x"}}'],
        'The request is invalid: patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32',
    ),
    "list for map": (
        ["cm", "plain", "-p", '{"data":["a"]}'],
        'The request is invalid: patch: Invalid value: "map[data:[a]]": cannot restore map from slice',
    ),
    "malformed": (
        ["cm", "plain", "-p", "{bad"],
        "Error from server (BadRequest): invalid character 'b' looking for beginning of object key string",
    ),
    "absent object": (["cm", "nope", "-p", "{}"], 'Error from server (NotFound): configmaps "nope" not found'),
    "another name": (
        ["cm", "plain", "-p", '{"metadata":{"name":"other"}}'],
        "Error from server (BadRequest): the name of the object (other) does not match the name on the URL (plain)",
    ),
    "stale": (
        ["cm", "plain", "-p", '{"metadata":{"resourceVersion":"1"},"data":{"a":"c"}}'],
        'Error from server (Conflict): Operation cannot be fulfilled on configmaps "plain": the object has been modified; '
        "please apply your changes to the latest version and try again",
    ),
    "immutable data": (
        ["cm", "fixed", "-p", '{"data":{"a":"c"}}'],
        'The ConfigMap "fixed" is invalid: data: Forbidden: field is immutable when `immutable` is set',
    ),
    "immutable type": (
        ["secret", "s", "-p", '{"type":"example.com/y"}'],
        'The Secret "s" is invalid: type: Invalid value: "example.com/y": field is immutable',
    ),
    "immutable selector": (
        ["deploy", "d", "-p", '{"spec":{"selector":{"matchLabels":{"a":"c"}},"template":{"metadata":{"labels":{"a":"c"}}}}}'],
        'The Deployment "d" is invalid: spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable',
    ),
    "cluster IP": (
        ["svc", "s", "-p", '{"spec":{"clusterIP":"None"}}'],
        'The Service "s" is invalid: spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PATCHED)
def test_patch(shared: Kubectl, case: str) -> None:
    words, error = PATCHED[case]
    assert shared.fails("patch", *words) == error


def test_replace(shared: Kubectl) -> None:
    stale = config("plain").replace("metadata: {", 'metadata: {resourceVersion: "1", ')
    assert shared.fails("replace", "-f", "-", stdin=f"---\n{stale}\n") == (
        'Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on configmaps "plain": '
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    assert shared.fails("replace", "-f", "-", stdin=f"---\n{config('nope')}\n") == (
        'Error from server (NotFound): error when replacing "STDIN": configmaps "nope" not found'
    )


def test_missing_namespace(lab: Lab) -> None:
    assert Kubectl(lab, "nowhere").fails("create", "cm", "x") == (
        'error: failed to create configmap: namespaces "nowhere" not found'
    )
    assert lab.kubectl("-n", "nowhere", "get", "pods") == ""


def test_field_validation(shared: Kubectl) -> None:
    text = "---\n" + pod("{name: c, image: x, foo: 1}", bar=2) + "\n"
    warned = shared.run("create", "--validate=warn", "--dry-run=server", "-f", "-", stdin=text)
    assert warned.stdout == "pod/p created (server dry run)\n"
    assert warned.stderr == 'Warning: unknown field "spec.bar"\nWarning: unknown field "spec.containers[0].foo"\n'
    ignored = shared.run("create", "--validate=ignore", "--dry-run=server", "-f", "-", stdin=text)
    assert (ignored.stdout, ignored.stderr) == ("pod/p created (server dry run)\n", "")
    # Duplicates never leave kubectl, so they are sent by hand.
    path = f"/api/v1/namespaces/{shared.namespace}/configmaps?dryRun=All&fieldValidation="
    body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"t"},"data":{"a":"b","a":"c"}}'
    refused = shared.fails("create", "--raw", path + "Strict", "-f", "-", stdin=body)
    assert 'strict decoding error: duplicate field "data.a"' in refused
    assert json.loads(shared("create", "--raw", path + "Ignore", "-f", "-", stdin=body))["data"] == {"a": "c"}


def test_bodies_that_are_no_json(shared: Kubectl) -> None:
    path = f"/api/v1/namespaces/{shared.namespace}/configmaps"
    before = "Error from server (BadRequest): couldn't get version/kind; json parse error: "
    for body, error in (
        ('{"a":', "unexpected end of JSON input"),
        ("hello", "invalid character 'h' looking for beginning of value"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    ):
        assert shared.fails("create", "--raw", path, "-f", "-", stdin=body) == before + error
    assert "exceeded max depth" in shared.fails("create", "--raw", path, "-f", "-", stdin='{"a":' * 100_000)


def test_queries(lab: Lab) -> None:
    for query, error in (
        ("limit=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("resourceVersion=x", 'strconv.ParseUint: parsing "x": invalid syntax'),
        ("continue=%21", "continue key is not valid: illegal base64 data at input byte 0"),
        ("fieldSelector=foo=bar", "field label not supported: foo"),
        ("labelSelector=a+in+(b", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("resourceVersionMatch=Exact", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
    ):
        assert error in lab.fails("get", "--raw", f"/api/v1/pods?{query}"), query


def test_created_in_full_whatever_the_client_adds(kubectl: Kubectl) -> None:
    text = POD.replace("{name: p}", "{name: p, creationTimestamp: null, uid: '1', generation: 7}").replace(
        "image: x", f"image: {IMAGE}"
    )
    kubectl("apply", "-f", "-", stdin="---\n" + text[:-1] + ", status: {phase: Failed}}\n")
    found = kubectl.get("pod", "p")
    assert found["metadata"]["creationTimestamp"] and len(found["metadata"]["uid"]) == 36
    assert found["metadata"]["generation"] < 7 and found["status"]["phase"] != "Failed"


def test_missing_image(kubectl: Kubectl) -> None:
    kubectl("run", "gone", "--image=registry.invalid/nope:1")

    def waiting() -> dict[str, str]:
        statuses = kubectl.get("pod", "gone")["status"].get("containerStatuses") or [{}]
        return statuses[0].get("state", {}).get("waiting", {})

    wait_for(lambda: waiting().get("reason") == "ErrImagePull", "the pull fails")
    wait_for(lambda: waiting().get("reason") == "ImagePullBackOff", "it waits to try again")
    assert waiting()["message"].startswith('Back-off pulling image "registry.invalid/nope:1"')
    assert kubectl.fails("logs", "gone") == (
        'Error from server (BadRequest): container "gone" in pod "gone" is waiting to start: '
        "trying and failing to pull image"
    )
    described = kubectl("describe", "pod", "gone")
    for reason, message in (
        ("Pulling", 'Pulling image "registry.invalid/nope:1"'),
        ("Failed", 'Failed to pull image "registry.invalid/nope:1": '),
        ("Failed", "Error: ErrImagePull"),
        ("BackOff", 'Back-off pulling image "registry.invalid/nope:1"'),
        ("Failed", "Error: ImagePullBackOff"),
    ):
        assert re.search(rf"{reason} .* kubelet +{re.escape(message)}", described), message
    kubectl("run", "never", "--image=localhost/nope:1", "--image-pull-policy=Never")
    never = lambda: kubectl("get", "pod", "never", "-o", "jsonpath={..waiting.reason}")  # noqa: E731
    wait_for(lambda: never() == "ErrImageNeverPull", "an image that must not be pulled")
    kubectl("patch", "pod", "gone", "-p", json.dumps({"spec": {"containers": [{"name": "gone", "image": IMAGE}]}}))
    assert kubectl.get("pod", "gone")["spec"]["containers"][0]["image"] == IMAGE
