"""Admission webhooks, really called: an HTTPS server beside the API server answers reviews."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from apiserver.config import Config
from apiserver.kinds.admissionregistration.mutatingwebhookconfigurations import MutatingWebhookConfigurationStrategy
from apiserver.tls import make_certificates
from navarch.world import RealWorld
from tests.apiserver.crd.support import PATH, Caller, crontab, crontabs, serving

Tree = dict[str, Any]
HOOKS = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
Answerer = Callable[[Tree], Tree]


class Backend:
    """A webhook server; ``answer`` is asked for each request, ``seen`` are the requests."""

    def __init__(self, port: int, bundle: str) -> None:
        self.port, self.bundle = port, bundle
        self.seen: list[Tree] = []
        self.answer: Answerer = lambda request: {"allowed": True}

    def client(self, path: str = "/") -> Tree:
        return {"url": f"https://127.0.0.1:{self.port}{path}", "caBundle": self.bundle}

    def hook(self, name: str, **more: Any) -> Tree:
        rule = {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        return {
            "name": f"{name}.example.com",
            "clientConfig": self.client(f"/{name}"),
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        } | more

    async def handle(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.seen.append(review["request"] | {"path": request.path, "query": request.query_string})
        response = {"uid": review["request"]["uid"]} | self.answer(self.seen[-1])
        return web.json_response({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})


@asynccontextmanager
async def backend(home: Path) -> AsyncIterator[Backend]:
    names = ("127.0.0.1", "hook.default.svc")
    config = make_certificates(RealWorld(), Config(cert_dir=str(home), bind_addresses=names))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.tls_cert_file, config.tls_private_key_file)
    application = web.Application()
    runner = web.AppRunner(application, access_log=None)
    bundle = base64.b64encode((home / "ca.crt").read_bytes()).decode()
    made = Backend(0, bundle)
    application.router.add_post("/{tail:.*}", made.handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


def config(kind: str, *hooks: Tree, name: str = "c") -> Tree:
    kind = f"{kind}WebhookConfiguration"
    return {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": list(hooks)}


async def configure(call: Caller, kind: str, *hooks: Tree, name: str = "c") -> None:
    await call.ok("POST", f"{HOOKS}/{kind.lower()}webhookconfigurations", config(kind, *hooks, name=name))
    plugin = next(p for p in call.server.admission.plugins if p.name == f"{kind}AdmissionWebhook")
    while not any(h.configuration == name for h in plugin.hooks):  # type: ignore[attr-defined]
        await call.server.world.sleep(0.005)


def patch(*operations: Tree) -> Tree:
    data = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": data}


def config_map(name: str = "m", **labels: str) -> Tree:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"k": "v"}}


def told_of(call: Caller) -> dict[str, float]:
    """The metrics of webhooks."""
    start = "apiserver_admission_webhook_"
    lines = (line.rpartition(" ") for line in call.server.metrics.text().splitlines() if line.startswith(start))
    return {name.removeprefix(start): float(value) for name, _, value in lines}


def test_mutating(tmp_path: Path) -> None:
    async def test(call: Caller) -> None:
        async with backend(tmp_path) as hooks:
            first = hooks.hook("first", reinvocationPolicy="IfNeeded", objectSelector={"matchLabels": {"a": "b"}})
            second = hooks.hook("second", matchConditions=[{"name": "x", "expression": "object.metadata.name != 'skip'"}])
            await configure(call, "Mutating", first, second)

            def answer(request: Tree) -> Tree:
                key = request["path"].strip("/")
                count = str(sum(r["path"] == request["path"] for r in hooks.seen))
                return patch({"op": "add", "path": f"/data/{key}", "value": count}) | {"warnings": ["careful"]}

            hooks.answer = answer
            made = await call("POST", MAPS, config_map(a="b"))
            assert made.tree["data"] == {"first": "2", "k": "v", "second": "1"}  # the first again, after the second
            assert made.headers["warning"] == '299 - "careful"'
            request = hooks.seen[0]
            assert request["operation"] == "CREATE" and request["resource"]["resource"] == "configmaps"
            assert request["namespace"] == "default" and request["userInfo"]["username"] == "system:apiserver"
            assert request["query"] == "timeout=10s" and request["object"]["metadata"]["labels"] == {"a": "b"}
            hooks.seen.clear()
            await call.ok("POST", MAPS, config_map("other"))
            assert [r["path"] for r in hooks.seen] == ["/second"]
            hooks.seen.clear()
            await call.ok("POST", MAPS, config_map("skip"))
            await call.ok("GET", f"{MAPS}/skip")
            await call.ok("DELETE", f"{MAPS}/skip")
            assert hooks.seen == []
            dry = await call("POST", MAPS, config_map("dry"), dryRun="All")
            assert dry.code == 201 and hooks.seen[0]["dryRun"] is True

    serving(test)


async def test_validating(call: Caller, tmp_path: Path) -> None:
    async with backend(tmp_path) as hooks:
        await configure(call, "Validating", hooks.hook("a"), hooks.hook("b"))
        hooks.answer = lambda request: {"allowed": request["path"] != "/b", "status": {"message": "not that", "code": 403}}
        refused = await call("POST", MAPS, config_map())
        assert refused.code == 403
        assert refused.message == 'admission webhook "b.example.com" denied the request: not that'
        hooks.answer = lambda request: {"allowed": False}
        refused = await call("POST", MAPS, config_map())
        assert refused.code == 400 and refused.message.endswith("denied the request without explanation")
        hooks.answer = lambda request: {"allowed": True}
        await call.ok("POST", MAPS, config_map())
        hooks.answer = lambda request: {"allowed": True, "uid": "another"}
        refused = await call("POST", MAPS, config_map("n"))
        assert refused.code == 500 and "received invalid webhook response: expected response.uid=" in refused.message
        told, end = told_of(call), 'operation="CREATE",rejected="false",type="validating"}'
        assert told['admission_duration_seconds_count{name="a.example.com",' + end] == 2
        for why, code in (("no_error", 403), ("calling_webhook_error", 0)):
            start = f'rejection_count{{error_type="{why}",name="b.example.com",'
            assert told[f'{start}operation="CREATE",rejection_code="{code}",type="validating"}}'] == 1
        # The configurations themselves are never judged by webhooks.
        await call.ok("DELETE", f"{HOOKS}/validatingwebhookconfigurations/c")


async def test_failures(call: Caller, tmp_path: Path) -> None:
    async with backend(tmp_path) as hooks:
        gone = {"url": "https://127.0.0.1:1/gone"}
        await configure(call, "Validating", hooks.hook("ignored", clientConfig=gone, failurePolicy="Ignore"), name="i")
        await call.ok("POST", MAPS, config_map())
        assert told_of(call)['fail_open_count{name="ignored.example.com",type="validating"}'] == 1
        strangers = hooks.client() | {"caBundle": ""}
        await configure(call, "Validating", hooks.hook("fails", clientConfig=strangers), name="f")
        refused = await call("POST", MAPS, config_map("n"))
        assert refused.code == 500
        start = 'Internal error occurred: failed calling webhook "fails.example.com": failed to call webhook: Post '
        assert refused.message.startswith(start + f'"https://127.0.0.1:{hooks.port}/?timeout=10s"'), refused.message


async def test_by_service_on_custom_resources(call: Caller, tmp_path: Path) -> None:
    async with backend(tmp_path) as hooks:
        await call.define(crontabs())
        service = {"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443, "targetPort": 1}]}}
        await call.ok("POST", "/api/v1/namespaces/default/services", service)
        part = {
            "metadata": {"name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "ports": [{"port": hooks.port, "name": "", "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"]}],
        }
        slices = call.server.resources["discovery.k8s.io", "endpointslices"]
        slices.strategy.validate = lambda obj: []  # type: ignore[method-assign]  # loopback is refused there
        await call.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", part)
        client = {"service": {"name": "hook", "namespace": "default", "path": "/ct"}, "caBundle": hooks.bundle}
        rule = {"operations": ["*"], "apiGroups": ["stable.example.com"], "apiVersions": ["*"], "resources": ["*/*"]}
        await configure(call, "Mutating", hooks.hook("ct", clientConfig=client, rules=[rule]))
        hooks.answer = lambda request: (
            patch({"op": "add", "path": "/spec/color", "value": "red"}, {"op": "add", "path": "/spec/nope", "value": 1})
            if request["operation"] == "CREATE"
            else {"allowed": True}
        )
        made = await call.ok("POST", PATH, crontab())
        assert made["spec"] == {"cronSpec": "* * 5", "color": "red", "replicas": 1}
        await call.ok("PATCH", f"{PATH}/a/status", {"status": {"phase": "x"}}, "application/merge-patch+json")
        await call.ok("DELETE", f"{PATH}/a")
        # A delete that loses a race with the cache asks again.
        assert list(dict.fromkeys((r["operation"], r.get("subResource")) for r in hooks.seen)) == [
            ("CREATE", None),
            ("UPDATE", "status"),
            ("DELETE", None),
        ]
        assert hooks.seen[-1]["object"] is None and hooks.seen[-1]["oldObject"]["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "a"}, "should be a domain with at least three segments separated by dots"),
        ({"sideEffects": "Some"}, 'Unsupported value: "Some"'),
        ({"timeoutSeconds": 31}, "the timeout value must be between 1 and 30 seconds"),
        ({"admissionReviewVersions": ["v2"]}, "must include at least one of v1, v1beta1"),
        ({"clientConfig": {"url": "http://a/"}}, "'https' is the only allowed URL scheme; desired format: https://host[/path]"),
        ({"clientConfig": {}}, "exactly one of url or service is required"),
        ({"rules": [{"operations": ["READ"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "scope": "*"}]},
         'webhooks[0].rules[0].operations[0]: Unsupported value: "READ"'),
        ({"matchConditions": [{"name": "x", "expression": "object."}]}, "compilation failed: ERROR"),
    ],
)  # fmt: skip
def test_configurations(change: Tree, words: str) -> None:
    strategy = MutatingWebhookConfigurationStrategy()
    good = config("Mutating", Backend(1, "").hook("good"))
    strategy.default(good)
    assert strategy.validate(good) == []
    good["webhooks"][0] |= change
    found = [c.text() for c in strategy.validate(good)]
    assert any(words in text for text in found), found


async def test_the_chain_runs_again_after_a_change(call: Caller, tmp_path: Path) -> None:
    """What a webhook puts into a pod gets what the server's own plugins give."""

    async with backend(tmp_path) as hooks:
        limit = {"type": "Container", "default": {"cpu": "1"}}
        space = "/api/v1/namespaces/default"
        await call.ok("POST", f"{space}/limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
        await call.ok("POST", f"{space}/serviceaccounts", {"metadata": {"name": "default"}})
        rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        await configure(call, "Mutating", hooks.hook("inject", rules=[rule]))
        sidecar = {"name": "sidecar", "image": "proxy"}
        hooks.answer = lambda request: patch({"op": "add", "path": "/spec/containers/-", "value": sidecar})
        await call.server.cache.current()
        pods = "/api/v1/namespaces/default/pods"
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}}
        made = await call.ok("POST", pods, pod)
        assert [c["name"] for c in made["spec"]["containers"]] == ["a", "sidecar"]
        injected = made["spec"]["containers"][1]
        assert injected["resources"]["limits"] == {"cpu": "1"} and injected["terminationMessagePolicy"] == "File"
        assert any(m["mountPath"].endswith("serviceaccount") for m in injected["volumeMounts"])
        assert len(hooks.seen) == 1


async def test_audit_annotations(call: Caller, tmp_path: Path) -> None:
    async with backend(tmp_path) as hooks:
        gone = {"url": "https://127.0.0.1:1/gone"}
        ignored = hooks.hook("ignored", clientConfig=gone, failurePolicy="Ignore")
        await configure(call, "Mutating", hooks.hook("m"), ignored)
        await configure(call, "Validating", hooks.hook("v"), ignored)
        hooks.answer = lambda request: (
            patch({"op": "add", "path": "/data/x", "value": "y"}) if request["path"] == "/m" else {"allowed": True}
        ) | {"auditAnnotations": {"seen": request["path"]}}
        told: dict[str, str] = {}
        validate = call.server.admission.validate

        async def spy(attributes: Any) -> None:
            await validate(attributes)
            told.update(attributes.context.audit_annotations)

        call.server.admission.validate = spy  # type: ignore[method-assign]
        await call.ok("POST", MAPS, config_map())
        assert told["m.example.com/seen"] == "/m" and told["v.example.com/seen"] == "/v"
        first = {"configuration": "c", "webhook": "m.example.com"}
        assert json.loads(told["mutation.webhook.admission.k8s.io/round_0_index_0"]) == first | {"mutated": True}
        operations = [{"op": "add", "path": "/data/x", "value": "y"}]
        shown = first | {"patch": operations, "patchType": "JSONPatch"}
        assert json.loads(told["patch.webhook.admission.k8s.io/round_0_index_0"]) == shown
        assert told["failed-open.mutation.webhook.admission.k8s.io/round_0_index_1"] == "ignored.example.com"
        assert told["failed-open.validating.webhook.admission.k8s.io/round_0_index_1"] == "ignored.example.com"


async def test_subresources_and_conditions(call: Caller, tmp_path: Path) -> None:
    async with backend(tmp_path) as hooks:
        rule = {"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments/scale"]}
        condition = {"name": "c", "expression": "!authorizer.requestResource.check('breakglass').allowed() || true"}
        await configure(call, "Mutating", hooks.hook("scale", rules=[rule], matchConditions=[condition]))
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "i"}]}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        path = "/apis/apps/v1/namespaces/default/deployments"
        await call.ok("POST", path, {"metadata": {"name": "d"}, "spec": spec})
        hooks.answer = lambda request: patch({"op": "replace", "path": "/spec/replicas", "value": 7})
        changed = await call.ok("PATCH", f"{path}/d/scale", {"spec": {"replicas": 3}}, "application/merge-patch+json")
        seen = hooks.seen[0]
        assert seen["kind"]["kind"] == "Scale" and seen["subResource"] == "scale"
        assert seen["object"]["spec"]["replicas"] == 3
        assert seen["resource"] == {"group": "apps", "version": "v1", "resource": "deployments"}
        assert changed["kind"] == "Scale" and changed["spec"]["replicas"] == 7
        assert (await call.ok("GET", f"{path}/d"))["spec"]["replicas"] == 7
        broken = [{"name": "x", "expression": "object.nope == 1"}]
        await configure(call, "Validating", hooks.hook("b", matchConditions=broken))
        refused = await call("POST", MAPS, config_map())
        assert refused.code == 403
        why = "expression 'object.nope == 1' resulted in error: no such key: nope"
        assert refused.message == f'configmaps "m" is forbidden: {why}'


async def test_other_versions(call: Caller, tmp_path: Path) -> None:
    """A webhook that asks for another version of the object sees it, and its patch counts, in that version."""

    async with backend(tmp_path) as hooks:
        resources = ["horizontalpodautoscalers"]
        rule = {"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": resources}
        await configure(call, "Mutating", hooks.hook("v2", rules=[rule]))
        exact = hooks.hook("exact", rules=[rule], matchPolicy="Exact")
        await configure(call, "Validating", exact)
        target = "/spec/metrics/0/resource/target/averageUtilization"
        hooks.answer = lambda request: patch({"op": "replace", "path": target, "value": 70})
        scaled = {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}
        spec = {"maxReplicas": 3, "scaleTargetRef": scaled, "targetCPUUtilizationPercentage": 50}
        path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers"
        made = await call.ok("POST", path, {"metadata": {"name": "h"}, "spec": spec})
        assert made["apiVersion"] == "autoscaling/v1" and made["spec"]["targetCPUUtilizationPercentage"] == 70
        assert [r["path"] for r in hooks.seen] == ["/v2"]
        seen = hooks.seen[0]
        assert seen["kind"]["version"] == seen["resource"]["version"] == "v2" == seen["object"]["apiVersion"].split("/")[1]
        assert seen["requestKind"]["version"] == seen["requestResource"]["version"] == "v1"


async def test_names_are_generated_after_mutation(call: Caller, tmp_path: Path) -> None:
    async with backend(tmp_path) as hooks:
        await configure(call, "Mutating", hooks.hook("m"))
        await configure(call, "Validating", hooks.hook("v"))
        unnamed = {"metadata": {"generateName": "g-"}, "data": {}}
        made = await call.ok("POST", MAPS, unnamed)
        name = made["metadata"]["name"]
        assert name.startswith("g-") and len(name) == 7
        before, after = hooks.seen
        assert before["name"] == "" and "name" not in before["object"]["metadata"]
        assert after["name"] == after["object"]["metadata"]["name"] == name
        named = patch({"op": "add", "path": "/metadata/name", "value": "mine"})
        hooks.answer = lambda request: named if request["path"] == "/m" else {"allowed": True}
        assert (await call.ok("POST", MAPS, unnamed))["metadata"]["name"] == "mine"
