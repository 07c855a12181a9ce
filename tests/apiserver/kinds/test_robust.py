"""Whatever a client leaves out or empties, the rules answer with causes, never with a crash."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.apiserver.kinds.support import CATALOG, CONTEXT, tree
from tests.apiserver.kinds.test_kinds import MINIMAL

PROBE = {"httpGet": {"path": "/", "port": "web", "httpHeaders": [{"name": "a", "value": "b"}]}, "periodSeconds": 3}
SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
TERM = {"labelSelector": SELECTOR, "topologyKey": "t", "namespaces": ["n"]}
REQUIRED, PREFERRED = (f"{w}DuringSchedulingIgnoredDuringExecution" for w in ("required", "preferred"))
NODE_TERM = {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}],
             "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}  # fmt: skip
SPEC: dict[str, Any] = {
    "containers": [{
        "name": "a", "image": "i", "ports": [{"containerPort": 1, "hostPort": 1, "name": "web"}],
        "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}},
                {"name": "G", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
        "envFrom": [{"configMapRef": {"name": "c"}}], "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}],
        "resources": {"limits": {"cpu": "1", "example.com/gpu": "1"}, "requests": {"cpu": "1", "example.com/gpu": "1"}},
        "livenessProbe": PROBE, "readinessProbe": {"grpc": {"port": 1}}, "startupProbe": {"exec": {"command": ["a"]}},
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}, "postStart": {"tcpSocket": {"port": 1}}},
        "securityContext": {"runAsUser": 1, "capabilities": {"add": ["SYS_ADMIN"]}, "seccompProfile": {"type": "Localhost"}},
    }],
    "initContainers": [{"name": "b", "image": "i", "restartPolicy": "Always"}],
    "volumes": [
        {"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "w", "hostPath": {"path": "/a", "type": "File"}},
        {"name": "x", "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}},
            {"downwardAPI": {"items": [{"path": "q", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"serviceAccountToken": {"path": "t", "expirationSeconds": 600}}]}},
        {"name": "y", "configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 1}]}},
    ],
    "affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [NODE_TERM]},
                                  PREFERRED: [{"weight": 1, "preference": NODE_TERM}]},
                 "podAffinity": {REQUIRED: [TERM], PREFERRED: [{"weight": 1, "podAffinityTerm": TERM}]}},
    "tolerations": [{"key": "a", "operator": "Exists"}], "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["a"]}],
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "t", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 1}],
    "securityContext": {"fsGroup": 1, "sysctls": [{"name": "a.b", "value": "c"}]}, "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "n"}]},
    "readinessGates": [{"conditionType": "a"}], "schedulingGates": [{"name": "a"}], "os": {"name": "linux"},
}  # fmt: skip
RICH = {key: tree(text) for key, (text, _) in MINIMAL.items()}
RICH["", "pods"] = {"metadata": {"name": "p"}, "spec": SPEC}
RICH["apps", "deployments"]["spec"]["template"]["spec"] = SPEC
RICH["", "services"]["spec"] |= {"type": "NodePort", "sessionAffinity": "ClientIP", "externalIPs": ["1.1.1.1"]}


# Fields whose values the schema has made quantities.
QUANTITIES = ("emptyDir", "capacity", "hard", "used", "podFixed", "max", "min", "default", "defaultRequest",
              "averageValue", "requests")  # fmt: skip


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside, but for what the generic code guarantees: the name, and well-formed quantities."""
    out: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        amounts = key in QUANTITIES or (key == "limits" and isinstance(inner, dict))
        if key != "metadata" and not (amounts and isinstance(inner, str)):
            out += [(value, key), *([] if amounts else spots(inner))]
    return out


@pytest.mark.parametrize("key", sorted(key for key in CATALOG if key in RICH))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_crash(key: tuple[str, str], data: st.DataObject) -> None:
    rules, obj = CATALOG[key], copy.deepcopy(RICH[key])
    for _ in range(data.draw(st.integers(0, 3))):
        found = spots(obj)
        if not found:
            break
        holder, at = found[data.draw(st.integers(0, len(found) - 1))]
        value = holder[at]
        empty = {dict: {}, list: [], str: "", int: -1, bool: False}[type(value)]
        if data.draw(st.booleans()) or isinstance(holder, list):
            holder[at] = empty
        else:
            del holder[at]
    rules.default(obj)
    rules.prepare_create(CONTEXT, obj)
    rules.default(obj)
    before = copy.deepcopy(obj)
    rules.default(obj)
    assert obj == before  # defaults settle at once
    for cause in rules.validate(obj):
        assert cause.reason.startswith("FieldValue") and cause.message
    rules.validate_update(obj, copy.deepcopy(RICH[key]))
    rules.prepare_update(CONTEXT, obj, before)
    rules.fields(rules.codec.stored(obj))
    assert len(rules.cells(obj, 0.0)) == len(rules.columns)
