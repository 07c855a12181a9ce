"""The kinds' endpoints and admission as a client meets them: one server in process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import yaml

from apiserver.request import User
from navarch.world import RealWorld
from tests.apiserver.kinds.served import Asker, served

JANE = User("jane", ("system:authenticated",))
N1 = User("system:node:n1", ("system:nodes", "system:authenticated"))
SCHEDULER = User("system:kube-scheduler", ("system:authenticated",))
CLUSTER_SCOPED = ("Namespace", "Node", "PriorityClass", "ClusterRole", "ClusterRoleBinding")
NS = "/api/v1/namespaces/default"
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}}


def on_server(body: Callable[[Asker], Awaitable[None]]) -> None:
    async def main() -> None:
        async with served() as ask:
            await body(ask)

    RealWorld().run(main)


async def create(ask: Asker, text: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
    obj = yaml.safe_load(text)
    group, _, version = obj["apiVersion"].rpartition("/")
    resource = {"PriorityClass": "priorityclasses"}.get(obj["kind"], obj["kind"].lower() + "s")
    prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
    scope = "" if obj["kind"] in CLUSTER_SCOPED else f"/namespaces/{namespace}"
    return await ask("POST", f"{prefix}{scope}/{resource}", obj, **more)


async def account(ask: Asker) -> None:
    await create(ask, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default}}")


def binding(node: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}}


async def test_pod_is_admitted_bound_and_evicted(ask: Asker) -> None:
    await account(ask)
    spec = (await ask("POST", f"{NS}/pods", POD))["spec"]
    assert spec["serviceAccountName"] == "default" and spec["priority"] == 0
    assert spec["volumes"][0]["name"] == spec["containers"][0]["volumeMounts"][0]["name"]
    assert spec["volumes"][0]["name"].startswith("kube-api-access-")
    assert [t["key"] for t in spec["tolerations"]] == ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    stale = binding("n1")
    stale["metadata"]["resourceVersion"] = "1"
    refused = await ask("POST", f"{NS}/pods/p/binding", stale, user=SCHEDULER, code=409)
    assert "Precondition failed: ResourceVersion in precondition: 1" in refused["message"]
    await ask("POST", f"{NS}/pods/p/binding", binding("n1"), user=SCHEDULER)
    again = await ask("POST", f"{NS}/pods/p/binding", binding("n2"), user=SCHEDULER, code=409)
    assert 'pod p is already assigned to node "n1"' in again["message"]
    pod = await ask("GET", f"{NS}/pods/p")
    assert pod["spec"]["nodeName"] == "n1" and pod["status"]["conditions"][0]["type"] == "PodScheduled"
    moved = await ask("PATCH", f"{NS}/pods/p", {"spec": {"nodeName": "n2"}}, code=422)
    assert moved["message"].startswith('Pod "p" is invalid: spec: Forbidden: pod updates may not change fields')
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    assert (await ask("POST", f"{NS}/pods/p/eviction", eviction))["status"] == "Success"
    assert (await ask("GET", f"{NS}/pods/p"))["metadata"]["deletionGracePeriodSeconds"] == 30


async def test_tokens_and_reviews(ask: Asker) -> None:
    await account(ask)
    await ask("POST", f"{NS}/pods", POD)
    await ask("POST", f"{NS}/pods/p/binding", binding("n1"))
    uid = (await ask("GET", f"{NS}/pods/p"))["metadata"]["uid"]
    request: dict[str, Any] = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}}  # fmt: skip
    path = f"{NS}/serviceaccounts/default/token"
    token = (await ask("POST", path, request, user=N1))["status"]["token"]
    n2 = User("system:node:n2", N1.groups)
    assert "no relationship found" in (await ask("POST", path, request, user=n2, code=403))["message"]
    unbound = request | {"spec": {}}
    assert "node requested token not bound to a pod" in (await ask("POST", path, unbound, user=N1, code=403))["message"]
    short = request | {"spec": {"expirationSeconds": 5}}
    assert "may not specify a duration less than 10 minutes" in (await ask("POST", path, short, code=422))["message"]
    bearer = ((b"authorization", b"Bearer " + token.encode()),)
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found = await ask(
        "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review, user=None, headers=bearer
    )
    assert found["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"
    refused = await ask("GET", f"{NS}/secrets", user=None, headers=bearer, code=403)
    assert refused["message"] == (
        'secrets is forbidden: User "system:serviceaccount:default:default" cannot list resource "secrets" '
        'in API group "" in the namespace "default"'
    )
    await ask("DELETE", f"{NS}/pods/p", {"gracePeriodSeconds": 0})
    await ask("GET", f"{NS}/pods/p", code=404)  # waits until the cache knows
    await ask("GET", f"{NS}/pods", user=None, headers=bearer, code=401)
    access = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
        "user": "a", "groups": ["system:masters"], "resourceAttributes": {"verb": "*", "resource": "*"}}}  # fmt: skip
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert (await ask("POST", path, access))["status"] == {"allowed": True}


async def test_namespace_goes_when_its_controller_lets_it(ask: Asker) -> None:
    await create(ask, "{apiVersion: v1, kind: Namespace, metadata: {name: t}}")
    assert "may not be deleted" in (await ask("DELETE", "/api/v1/namespaces/default", code=403))["message"]
    await ask("DELETE", "/api/v1/namespaces/t")
    config = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}"
    late = await create(ask, config, "t", code=403)
    assert late["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    namespace = await ask("GET", "/api/v1/namespaces/t")
    assert namespace["status"]["phase"] == "Terminating"
    namespace["spec"] = {}
    await ask("PUT", "/api/v1/namespaces/t/finalize", namespace)
    await ask("GET", "/api/v1/namespaces/t", code=404)
    assert (await create(ask, config, "t", code=404))["message"] == 'namespaces "t" not found'


async def test_priority(ask: Asker) -> None:
    await account(ask)
    high = "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 9, globalDefault: true}"
    await create(ask, high)
    more = await create(ask, high.replace("high", "higher"), code=403)
    assert "PriorityClass high is already marked as default. Only one default can exist" in more["message"]
    await ask("GET", "/apis/scheduling.k8s.io/v1/priorityclasses/high")  # waits until the cache knows
    assert (await ask("POST", f"{NS}/pods", POD))["spec"]["priority"] == 9
    spec = POD["spec"] | {"priorityClassName": "none"}  # type: ignore[operator]
    bad = await ask("POST", f"{NS}/pods", POD | {"metadata": {"name": "q"}, "spec": spec}, code=403)
    assert bad["message"] == 'pods "q" is forbidden: no PriorityClass with name none was found'


async def test_what_nodes_may_do(ask: Asker) -> None:
    node = "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {kubernetes.io/hostname: n1}}}"
    made = await create(ask, node, user=N1)
    assert made["spec"]["taints"] == [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]
    other = await create(ask, node.replace("n1", "n2"), user=N1, code=403)
    assert other["message"] == 'nodes "n2" is forbidden: node "n1" is not allowed to modify node "n2"'
    label = {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}}
    refused = await ask("PATCH", "/api/v1/nodes/n1", label, user=N1, code=403)
    assert "is not allowed to modify labels" in refused["message"]
    await ask("PATCH", "/api/v1/nodes/n1", {"spec": {"taints": []}}, user=N1, code=403)
    lease = "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: n1}, spec: {holderIdentity: n1}}"
    await create(ask, lease, "kube-node-lease", user=N1)
    await create(ask, lease.replace("n1", "n2"), "kube-node-lease", user=N1, code=403)


async def test_events_in_both_shapes(ask: Asker) -> None:
    event = """{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: e}, reason: R, note: hello, type: Normal,
          regarding: {kind: Pod, name: p, namespace: default}, action: A, reportingController: c, reportingInstance: i,
          eventTime: "2024-01-04T03:59:00.000000Z"}"""
    await create(ask, event)
    core = await ask("GET", f"{NS}/events", query="fieldSelector=involvedObject.name%3Dp,reportingComponent%3Dc")
    assert core["items"][0]["message"] == "hello"
    new = await ask("GET", "/apis/events.k8s.io/v1/namespaces/default/events", query="fieldSelector=regarding.name%3Dp")
    assert new["items"][0]["note"] == "hello" and new["items"][0]["apiVersion"] == "events.k8s.io/v1"


async def test_services_at_once_and_the_one_for_the_api(ask: Asker) -> None:
    service = "{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {type: NodePort, ports: [{port: 80}]}}"
    made = await asyncio.gather(*[create(ask, service % f"s{i}") for i in range(30)])
    assert len({s["spec"]["clusterIP"] for s in made}) == 30
    assert len({s["spec"]["ports"][0]["nodePort"] for s in made}) == 30
    await asyncio.gather(*[ask("DELETE", f"{NS}/services/s{i}") for i in range(30)])
    left = await ask.server.store.list("/registry/allocations/")
    assert [i.key for i in left.items] == ["/registry/allocations/clusterips/10.96.0.1"]
    api = await ask("GET", f"{NS}/services/kubernetes")
    assert api["spec"]["clusterIP"] == "10.96.0.1"
    endpoints = await ask("GET", f"{NS}/endpoints/kubernetes")
    assert endpoints["subsets"][0]["addresses"] == [{"ip": "10.0.0.1"}]
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
    assert (await ask("GET", path))["endpoints"][0]["addresses"] == ["10.0.0.1"]


async def test_nobody_grants_more_than_they_hold(ask: Asker) -> None:
    rbac = "apiVersion: rbac.authorization.k8s.io/v1"
    bind = f"{{{rbac}, kind: RoleBinding, metadata: {{name: %s}}, roleRef: {{kind: ClusterRole, name: %s}}, subjects: [{{kind: User, name: jane}}]}}"  # noqa: E501
    await create(ask, bind % ("jane", "admin"))
    await ask("GET", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings")  # waits for the cache
    role = f"{{{rbac}, kind: Role, metadata: {{name: r}}, rules: [{{apiGroups: [''], resources: [%s], verbs: [get]}}]}}"
    await create(ask, role % "pods", user=JANE)
    more = await create(ask, role.replace("name: r}", "name: q}") % "nodes", user=JANE, code=403)
    assert more["message"] == (
        'roles.rbac.authorization.k8s.io "q" is forbidden: user "jane" (groups=["system:authenticated"]) is attempting '
        'to grant RBAC permissions not currently held:\n{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}'
    )
    await create(ask, bind % ("a", "view"), user=JANE)
    await create(ask, bind % ("b", "cluster-admin"), user=JANE, code=403)
    rules: list[dict[str, Any]] = []
    while not any("configmaps" in r["resources"] for r in rules):  # aggregated in the background
        view = await ask("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/view")
        rules = view.get("rules") or []


async def test_keys_are_published(ask: Asker) -> None:
    found = await ask("GET", "/.well-known/openid-configuration")
    assert found["jwks_uri"].endswith("/openid/v1/jwks") and (await ask("GET", "/openid/v1/jwks"))["keys"]
    await ask("GET", "/openid/v1/jwks", user=JANE, code=403)


async def test_a_status_always_has_what_go_writes(ask: Asker) -> None:
    """On creation, and when somebody takes all of it away."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": POD["spec"]}
    workload = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    daemons = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
    budget = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")
    target = {"scaleTargetRef": {"kind": "Deployment", "name": "x"}, "maxReplicas": 2}
    apps, scaling = "/apis/apps/v1/namespaces/default", "/namespaces/default/horizontalpodautoscalers"
    table: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (f"{apps}/replicasets", workload, {"replicas": 0}),
        (f"{apps}/daemonsets", workload, dict.fromkeys(daemons, 0)),
        (f"{apps}/statefulsets", workload | {"serviceName": "s"}, {"replicas": 0, "availableReplicas": 0}),
        (f"{apps}/deployments", workload, {}),
        ("/apis/policy/v1/namespaces/default/poddisruptionbudgets", {}, dict.fromkeys(budget, 0)),
        (f"/apis/autoscaling/v2{scaling}", target, {"desiredReplicas": 0}),
        (f"{NS}/services", {"ports": [{"port": 1}]}, {"loadBalancer": {}}),
    ]

    for path, spec, zeros in table:
        made = await ask("POST", path, {"metadata": {"name": "x"}, "spec": spec})
        assert made["status"] == zeros, path
        emptied = await ask("PATCH", f"{path}/x/status", {"status": None})
        assert emptied["status"] == zeros, path
