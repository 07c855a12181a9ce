"""ValidatingAdmissionPolicy: what is stored, what is refused, and what expressions see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apiserver.request import User
from tests.apiserver.admission.support import CONTAINER, STRATEGIC, Server, Tree, namespace, running
from tests.apiserver.crd.support import crontab, crontabs

GROUP = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{GROUP}/validatingadmissionpolicies", f"{GROUP}/validatingadmissionpolicybindings"
MAPS = "/api/v1/namespaces/n/configmaps"


def rule(resources: str = "configmaps", group: str = "", operations: str = "CREATE UPDATE", **more: Any) -> Tree:
    return {
        "apiGroups": [group], "apiVersions": ["*"], "operations": operations.split(), "resources": resources.split(), **more,
    }  # fmt: skip


def policy(*validations: Tree | str, name: str = "p", rules: list[Tree] | None = None, **spec: Any) -> Tree:
    listed = [{"expression": v} if isinstance(v, str) else v for v in validations]
    constraints = {"resourceRules": rules or [rule()]} | spec.pop("constraints", {})
    return {"metadata": {"name": name}, "spec": {"matchConstraints": constraints, "validations": listed} | spec}


def binding(name: str = "b", of: str = "p", actions: str = "Deny", **spec: Any) -> Tree:
    return {"metadata": {"name": name}, "spec": {"policyName": of, "validationActions": actions.split()} | spec}


async def bound(server: Server, made: Tree, *bindings: Tree) -> None:
    """Stores them and waits until the plugin has compiled them."""
    await server.ok("POST", POLICIES, made)
    for one in bindings or (binding(),):
        await server.ok("POST", BINDINGS, one)
    plugin: Any = next(p for p in server.server.admission.plugins if p.name == "ValidatingAdmissionPolicy")
    name, count = made["metadata"]["name"], len(bindings or (1,))

    async def known() -> bool:
        return any(p.name == name and len(p.bindings) == count for p in plugin.policies)

    await server.until(known)


def config_map(name: str = "m", **data: str) -> Tree:
    return {"metadata": {"name": name, "labels": {"a": "b"}}, "data": data}


async def test_deny_and_warn(server: Server) -> None:
    await namespace(server, "n", {})
    told = {
        "expression": "object.data.size() < 2", "messageExpression": "'has ' + string(object.data.size())",
        "message": "too many", "reason": "Forbidden",
    }  # fmt: skip
    await bound(server, policy(told, "!has(object.data) || !('x' in object.data)"))
    await server.ok("POST", MAPS, config_map(a="1"))
    refused = await server("POST", MAPS, config_map("q", a="1", b="2"))
    why = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: has 2"
    assert (refused.code, refused.tree["reason"], refused.message) == (
        403, "Forbidden", f'configmaps "q" is forbidden: {why}',
    )  # fmt: skip
    assert refused.tree["details"] == {"name": "q", "kind": "configmaps", "causes": [{"message": why}]}
    refused = await server("POST", MAPS, config_map("q", x="1"))
    assert (refused.code, refused.tree["reason"]) == (422, "Invalid")
    assert refused.message.endswith("denied request: failed expression: !has(object.data) || !('x' in object.data)")
    # An error in evaluation is a refusal, unless failures are to be ignored.
    refused = await server("POST", MAPS, {"metadata": {"name": "q"}})
    assert "expression 'object.data.size() < 2' resulted in error: no such key: data" in refused.message
    await server.ok("DELETE", f"{BINDINGS}/b")
    await bound(server, policy("false", name="w"), binding("w", "w", "Warn Audit"))
    made = await server("POST", MAPS, config_map("w"))
    assert made.code == 201
    assert made.warnings == [
        "Validation failed for ValidatingAdmissionPolicy 'w' with binding 'w': failed expression: false"
    ]


async def test_what_expressions_see(server: Server) -> None:
    await namespace(server, "n", {"team": "red"})
    checks = [
        "request.operation != 'UPDATE' || oldObject.metadata.uid == object.metadata.uid",
        "request.operation != 'CREATE' || oldObject == null",
        "request.kind.kind == 'ConfigMap' && request.resource.resource == 'configmaps' && request.namespace == 'n'",
        "request.userInfo.username in ['system:apiserver', 'eve']",
        "namespaceObject.metadata.labels['team'] == 'red' && namespaceObject.status.phase == 'Active'",
        "authorizer.group('').resource('configmaps').namespace('n').check('create').allowed()",
        "authorizer.requestResource.check('update').allowed()",
        "authorizer.path('/healthz').check('get').allowed()",
        "!authorizer.serviceAccount('n', 'default').group('').resource('pods').check('create').allowed()",
        "variables.doubled == 4 && variables.names.exists(x, x == 'm')",
        # Lazy: a variable that fails does not matter to who does not need it.
        "true || variables.broken == 1",
    ]
    variables = [
        {"name": "two", "expression": "1 + 1"},
        {"name": "doubled", "expression": "variables.two * 2"},
        {"name": "names", "expression": "[object.metadata.name]"},
        {"name": "broken", "expression": "object.nope.x"},
    ]
    await bound(server, policy(*checks, variables=variables))
    await server.ok("POST", MAPS, config_map())
    await server.ok("PATCH", f"{MAPS}/m", {"data": {"a": "1"}})
    eve, mallory = (User(name, ("system:masters",)) for name in ("eve", "mallory"))
    assert (
        await server("POST", MAPS, config_map("e"), user=eve)
    ).code == 422  # another name than variables.names has
    refused = await server("PATCH", f"{MAPS}/m", {"data": {"a": "2"}}, user=mallory)
    assert "failed expression: request.userInfo.username in" in refused.message

    await server.ok("DELETE", f"{BINDINGS}/b")
    await bound(server, policy("variables.broken == 1", name="q", variables=variables[3:]), binding("q", "q"))
    refused = await server("POST", MAPS, config_map("z"))
    assert 'composited variable "broken" fails to evaluate: no such key: nope' in refused.message


async def test_authorizer_asks_for_the_user(server: Server) -> None:
    await namespace(server, "n", {})
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/n"
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"]}]
    await server.ok("POST", f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subjects = [{"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}]
    await server.ok(
        "POST", f"{rbac}/rolebindings", {"metadata": {"name": "b"}, "roleRef": reference, "subjects": subjects}
    )
    await bound(server, policy("authorizer.requestResource.check('privileged').allowed()"))
    eve = User("eve", ("system:authenticated",))
    assert (await server("POST", MAPS, config_map(), user=eve)).code == 422
    await server.ok("POST", MAPS, config_map())


async def test_matching(server: Server) -> None:
    for name, labels in (("n", {"env": "prod"}), ("o", {"env": "test"})):
        await namespace(server, name, labels)
    constraints = {
        "namespaceSelector": {"matchLabels": {"env": "prod"}},
        "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
        "excludeResourceRules": [rule(resourceNames=["spared"])],
    }
    conditions = [{"name": "not-ok", "expression": "object.metadata.name != 'ok'"}]
    await bound(server, policy("false", constraints=constraints, matchConditions=conditions))
    assert (await server("POST", MAPS, config_map("m"))).code == 422
    assert (await server("POST", "/api/v1/namespaces/o/configmaps", config_map("m"))).code == 201
    assert (await server("POST", MAPS, config_map("spared"))).code == 201
    assert (await server("POST", MAPS, config_map("ok"))).code == 201
    assert (await server("POST", MAPS, {"metadata": {"name": "s", "labels": {"skip": ""}}})).code == 201
    assert (await server("POST", "/api/v1/namespaces/n/secrets", {"metadata": {"name": "s"}})).code == 201
    assert (await server("DELETE", f"{MAPS}/ok")).code == 200


async def test_bindings_choose_what_they_match(server: Server) -> None:
    for name in ("n", "o"):
        await namespace(server, name, {"name": name})
    only = {"namespaceSelector": {"matchLabels": {"name": "o"}}}
    await bound(server, policy("false"), binding(matchResources=only))
    assert (await server("POST", MAPS, config_map())).code == 201
    assert (await server("POST", "/api/v1/namespaces/o/configmaps", config_map())).code == 422


async def test_params(server: Server) -> None:
    await namespace(server, "n", {})
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    secrets = [rule("secrets")]
    await bound(
        server,
        policy("int(params.data.most) > object.metadata.name.size()", rules=secrets, paramKind=kind),
        binding(paramRef={"name": "limits", "parameterNotFoundAction": "Deny"}),
    )
    path = "/api/v1/namespaces/n/secrets"
    refused = await server("POST", path, {"metadata": {"name": "abc"}})
    assert refused.message.endswith(
        "with binding 'b' denied request: failed to configure binding: no params found for policy binding with `Deny` "
        "parameterNotFoundAction"
    )
    await server.ok("POST", MAPS, config_map("limits", most="3"))
    assert (await server("POST", path, {"metadata": {"name": "abc"}})).code == 422
    assert (await server("POST", path, {"metadata": {"name": "ab"}})).code == 201
    await bound(
        server,
        policy(
            "params == null || params.data.word != object.metadata.name", name="q", rules=secrets, paramKind=kind
        ),
        binding("q", "q", paramRef={"selector": {"matchLabels": {"a": "b"}}, "parameterNotFoundAction": "Allow"}),
    )
    await server.ok("DELETE", f"{BINDINGS}/b")
    await server.ok("PATCH", f"{MAPS}/limits", {"metadata": {"labels": None}})
    await server.ok("POST", MAPS, config_map("one", word="uno"))
    await server.ok("POST", MAPS, config_map("two", word="due"))
    await server.server.cache.current()
    await server.until(lambda: _allowed(server, path, "long-one"))
    assert (await server("POST", path, {"metadata": {"name": "due"}})).code == 422
    assert (await server("POST", path, {"metadata": {"name": "tre"}})).code == 201


async def _allowed(server: Server, path: str, name: str) -> bool:
    return (await server("POST", path, {"metadata": {"name": name}}, query="dryRun=All")).code == 201


async def test_custom_resources_as_params(server: Server) -> None:
    await namespace(server, "n", {})
    await server.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crontabs())
    path = "/apis/stable.example.com/v1/namespaces/n/crontabs"

    async def served() -> bool:
        return (await server("GET", path)).code == 200

    await server.until(served)
    tab = crontab() | {"metadata": {"name": "limits"}}
    await server.ok("POST", path, tab)
    kind = {"apiVersion": "stable.example.com/v1", "kind": "CronTab"}
    await bound(
        server,
        policy("object.data.size() <= params.spec.replicas", paramKind=kind),
        binding(paramRef={"name": "limits", "namespace": "n", "parameterNotFoundAction": "Deny"}),
    )
    assert (await server("POST", MAPS, config_map("m", a="1"))).code == 201
    assert (await server("POST", MAPS, config_map("q", a="1", b="1"))).code == 422


async def test_objects_are_judged_in_the_version_of_the_rule(server: Server) -> None:
    """Asked for in one version, judged in another: the same object."""
    await namespace(server, "n", {})
    scaler = {
        "metadata": {"name": "h"},
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"},
            "targetCPUUtilizationPercentage": 50,
        },
    }
    two = rule("horizontalpodautoscalers", "autoscaling") | {"apiVersions": ["v2"]}
    check = "object.apiVersion == 'autoscaling/v2' && object.spec.metrics[0].resource.target.averageUtilization > 60"
    await bound(server, policy(check, name="v2", rules=[two]), binding("v2", "v2"))
    v1 = "/apis/autoscaling/v1/namespaces/n/horizontalpodautoscalers"
    refused = await server("POST", v1, scaler)
    assert refused.code == 422 and "failed expression" in refused.message
    scaler["spec"]["targetCPUUtilizationPercentage"] = 70  # type: ignore[index]
    await server.ok("POST", v1, scaler)


async def test_subresources(server: Server) -> None:
    await namespace(server, "n", {})
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [CONTAINER]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
    apps = "/apis/apps/v1/namespaces/n/deployments"
    await server.ok("POST", apps, {"metadata": {"name": "d"}, "spec": spec})
    await server.ok(
        "POST", "/api/v1/namespaces/n/pods", {"metadata": {"name": "p"}, "spec": {"containers": [CONTAINER]}}
    )
    check = "object.kind == 'Scale' && request.kind.kind == 'Scale' && object.spec.replicas <= 3"
    await bound(server, policy(check, rules=[rule("deployments/scale", "apps")]))
    assert (await server("PATCH", f"{apps}/d/scale", {"spec": {"replicas": 2}})).code == 200
    assert (await server("PATCH", f"{apps}/d/scale", {"spec": {"replicas": 4}})).code == 422
    exec_ = "request.operation == 'CONNECT' && object.kind == 'PodExecOptions' && object.command[0] != 'sh'"
    await bound(server, policy(exec_, name="x", rules=[rule("pods/exec", operations="CONNECT")]), binding("x", "x"))
    refused = await server("POST", "/api/v1/namespaces/n/pods/p/exec", query="command=sh&stdout=true")
    assert refused.code == 422 and "ValidatingAdmissionPolicy 'x'" in refused.message
    evict = "object.kind == 'Eviction' && object.metadata.name != 'p'"
    await bound(
        server, policy(evict, name="e", rules=[rule("pods/eviction", operations="CREATE")]), binding("e", "e")
    )
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert (await server("POST", "/api/v1/namespaces/n/pods/p/eviction", body)).code == 422
    bind = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p"},
        "target": {"kind": "Node", "name": "x"},
    }
    only = "object.target.name == 'y'"
    await bound(
        server, policy(only, name="t", rules=[rule("pods/binding", operations="CREATE")]), binding("t", "t")
    )
    assert (await server("POST", "/api/v1/namespaces/n/pods/p/binding", bind)).code == 422
    bind["target"]["name"] = "y"  # type: ignore[index]
    assert (await server("POST", "/api/v1/namespaces/n/pods/p/binding", bind)).code == 201


async def test_endless_loops_end(server: Server) -> None:
    await namespace(server, "n", {})
    names = "object.metadata.labels"
    loop = f"{names}.all(a, {names}.all(b, {names}.all(c, {names}.all(d, a + b + c + d != ''))))"
    await bound(server, policy(loop))
    labels = {f"l{i}": "x" for i in range(40)}
    refused = await server("POST", MAPS, {"metadata": {"name": "m", "labels": labels}})
    assert refused.code == 422 and "cost limit exceeded" in refused.message


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (policy("1"), 'spec.validations[0].expression: Invalid value: "1": must evaluate to bool but got int'),
        (
            policy("params.x == 1"),
            'spec.validations[0].expression: Invalid value: "params.x == 1": compilation failed: ERROR: <input>:1:1: '
            "undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^",
        ),
        (
            policy("request.nope == ''"),
            "spec.validations[0].expression: Invalid value: \"request.nope == ''\": compilation failed: ERROR: "
            "<input>:1:8: undefined field 'nope'\n | request.nope == ''\n | .......^",
        ),
        (policy("true", failurePolicy="No"), 'spec.failurePolicy: Unsupported value: "No": supported values: "Fail", "Ignore"'),
        (policy(), "spec.validations: Required value: validations or auditAnnotations must contain at least one item"),
        (policy("variables.a"), "undeclared reference to 'variables'"),
        (policy("true", variables=[{"name": "in", "expression": "1"}]), "name is not a valid CEL identifier"),
        (
            policy("true", variables=[{"name": "a", "expression": "1"}, {"name": "c", "expression": "variables.b"}]),
            "undefined field 'b'",
        ),
        (
            policy({"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}),
            "undeclared reference to 'authorizer'",
        ),
        (policy({"expression": "true", "reason": "Nope"}), "spec.validations[0].reason: Unsupported value"),
        (
            policy(auditAnnotations=[{"key": "k", "valueExpression": "1"}]),
            "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but",
        ),
        (policy("true", matchConditions=[{"name": "x", "expression": "'a'"}]), "must evaluate to bool but got string"),
        (policy("true", paramKind={"apiVersion": "a/b/c", "kind": "x"}), "unexpected GroupVersion string: a/b/c"),
        (policy("true", rules=[rule("a b/* b/c")]), "if 'b/*' is present, must not specify b/c"),
    ],
)  # fmt: skip
async def test_wrong_policies(server: Server, made: Tree, expected: str) -> None:
    refused = await server("POST", POLICIES, made)
    assert refused.code == 422 and expected in refused.message, refused.message


async def test_wrong_bindings(server: Server) -> None:
    for made, expected in (
        (binding(actions="Deny Warn"), "must not contain both Deny and Warn"),
        (binding(actions=""), "at least one validation action is required"),
        (binding(paramRef={"parameterNotFoundAction": "Deny"}), "one of name or selector must be specified"),
        (binding(paramRef={"name": "x"}), "spec.paramRef.parameterNotFoundAction: Required value"),
        (binding(of=""), "spec.policyName: Required value"),
    ):
        refused = await server("POST", BINDINGS, made)
        assert refused.code == 422 and expected in refused.message, refused.message


def test_type_checking() -> None:
    async def test(server: Server) -> None:
        told = {"expression": "object.spec.replicas > 1", "messageExpression": "string(object.metadata.nam)"}
        deployments = rule("deployments", "apps") | {"apiVersions": ["v1"]}
        made = policy("object.spec.replicaz > 1", told, rules=[deployments])
        await server.ok("POST", POLICIES, made)

        async def checked() -> Tree | None:
            status: Tree = (await server.ok("GET", f"{POLICIES}/p")).get("status") or {}
            return status if status.get("observedGeneration") == 1 else None

        status = await server.until(checked)
        assert status["typeChecking"]["expressionWarnings"] == [
            {
                "fieldRef": "spec.validations[0].expression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'replicaz'\n"
                " | object.spec.replicaz > 1\n | ...........^",
            },
            {
                "fieldRef": "spec.validations[1].messageExpression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:23: undefined field 'nam'\n"
                " | string(object.metadata.nam)\n | ......................^",
            },
        ]

    running(test)


def test_type_checking_knows_the_types_of_fields() -> None:
    async def test(server: Server) -> None:
        await server.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crontabs())

        async def served() -> bool:
            return (await server("GET", "/apis/stable.example.com/v1/crontabs")).code == 200

        await server.until(served)
        checks = [
            {"expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas"},
            "has(object.spec.replicas) && object.spec.replicas > 1 && object.metadata.labels['a'].startsWith('b')",
        ]
        deployments = rule("deployments", "apps") | {"apiVersions": ["v1"]}
        tabs = rule("crontabs", "stable.example.com") | {"apiVersions": ["v1"]}
        await server.ok("POST", POLICIES, policy(*checks, rules=[deployments, tabs]))

        async def checked() -> Tree | None:
            status: Tree = (await server.ok("GET", f"{POLICIES}/p")).get("status") or {}
            return status if status.get("observedGeneration") == 1 else None

        found = (await server.until(checked))["typeChecking"]["expressionWarnings"]
        assert [w["fieldRef"] for w in found] == ["spec.validations[0].expression", "spec.validations[0].messageExpression"]
        text = (
            "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n"
            " | object.spec.replicas > '1'\n | .....................^"
        )
        kinds = ("apps/v1, Kind=Deployment", "stable.example.com/v1, Kind=CronTab")
        assert found[0]["warning"] == "\n".join(f"{kind}: {text}" for kind in kinds)
        assert "found no matching overload for '_+_' applied to '(string, int)'" in found[1]["warning"]

    running(test)


async def test_audit_annotations(server: Server) -> None:
    seen: list[dict[str, str]] = []

    await namespace(server, "n", {})
    annotations = [
        {"key": "size", "valueExpression": "string(object.data.size())"}, {"key": "none", "valueExpression": "null"},
    ]  # fmt: skip
    await bound(server, policy("object.data.size() > 5", auditAnnotations=annotations), binding(actions="Audit"))
    chain = server.server.admission
    validate = chain.validate

    async def spy(attributes: Any) -> None:
        await validate(attributes)
        seen.append(dict(attributes.context.audit_annotations))

    chain.validate = spy  # type: ignore[method-assign]
    await server.ok("POST", MAPS, config_map(a="1"))
    assert seen[0]["p/size"] == "1" and "p/none" not in seen[0]
    assert json.loads(seen[0]["validation.policy.admission.k8s.io/validation_failure"]) == [
        {
            "message": "failed expression: object.data.size() > 5", "policy": "p", "binding": "b",
            "expressionIndex": 0, "validationActions": ["Audit"],
        }
    ]  # fmt: skip


async def test_tables(server: Server) -> None:
    made = policy("true", "params == null", paramKind={"apiVersion": "v1", "kind": "ConfigMap"})
    await server.ok("POST", POLICIES, made)
    await server.ok(
        "POST", BINDINGS, binding(paramRef={"name": "x", "namespace": "y", "parameterNotFoundAction": "Deny"})
    )
    strategies = server.server.resources["admissionregistration.k8s.io", "validatingadmissionpolicies"].strategy
    tree = await server.ok("GET", f"{POLICIES}/p")
    assert strategies.cells(tree, 0)[:3] == ["p", 2, "v1/ConfigMap"]
    other = server.server.resources["admissionregistration.k8s.io", "validatingadmissionpolicybindings"].strategy
    assert other.cells(await server.ok("GET", f"{BINDINGS}/b"), 0)[:3] == ["b", "p", "y/x"]
    changed = {"spec": {"validations": [{"expression": "false"}]}}
    tree = await server.ok("PATCH", f"{POLICIES}/p", changed, type_=STRATEGIC)
    assert tree["metadata"]["generation"] == 2


async def test_evictions_are_judged_as_evictions(server: Server) -> None:
    """Who forbids to DELETE pods is not asked about an eviction; who forbids to CREATE pods/eviction is."""
    await namespace(server, "n", {})
    pods = "/api/v1/namespaces/n/pods"
    for name in ("a", "b"):
        await server.ok("POST", pods, {"metadata": {"name": name}, "spec": {"containers": [CONTAINER]}})
    await bound(server, policy("false", rules=[rule("pods", operations="DELETE")]))
    assert (await server("DELETE", f"{pods}/a")).code == 422
    assert (await server("POST", f"{pods}/a/eviction", {"metadata": {"name": "a"}})).code == 201
    assert (await server("GET", f"{pods}/a")).code == 404
    await bound(server, policy("false", name="e", rules=[rule("pods/eviction", operations="CREATE")]), binding("e", "e"))
    assert (await server("POST", f"{pods}/b/eviction", {"metadata": {"name": "b"}})).code == 422
