"""PodSecurity on a whole server: namespaces' labels, pods, workloads, exemptions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.apiserver.admission.support import CONTAINER, STRATEGIC, Server, namespace, running
from tests.apiserver.kinds.served import Tree

ENFORCE = "pod-security.kubernetes.io/enforce"


def pod(name: str = "p", **spec: Any) -> Tree:
    return {"metadata": {"name": name}, "spec": {"containers": [CONTAINER]} | spec}


async def test_enforce_and_warn(server: Server) -> None:
    await namespace(server, "strict", {ENFORCE: "baseline", "pod-security.kubernetes.io/warn": "restricted"})
    pods = "/api/v1/namespaces/strict/pods"
    refused = await server("POST", pods, pod(hostNetwork=True))
    assert refused.code == 403
    assert refused.message == (
        'pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)'
    )
    assert not refused.warnings
    made = await server("POST", pods, pod())
    assert made.code == 201
    assert made.warnings[0].startswith(
        'would violate PodSecurity "restricted:latest": allowPrivilegeEscalation != false'
    )
    # What makes pods is told and not refused; enforcement alone does not concern it.
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [CONTAINER], "hostNetwork": True}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    apps = "/apis/apps/v1/namespaces/strict/deployments"
    made = await server("POST", apps, {"metadata": {"name": "d"}, "spec": spec})
    assert made.code == 201 and "host namespaces (hostNetwork=true)" in made.warnings[0]
    await namespace(server, "free", {})
    made = await server("POST", "/api/v1/namespaces/free/pods", pod(hostNetwork=True))
    assert made.code == 201 and not made.warnings


async def test_updates(server: Server) -> None:
    """A pod that was there before the label lives on; new images and ephemeral containers are judged."""

    await namespace(server, "n", {})
    pods = "/api/v1/namespaces/n/pods"
    await server.ok("POST", pods, pod(hostNetwork=True))
    await server.ok("POST", pods, pod("q", hostNetwork=True))
    changed = await server("PATCH", "/api/v1/namespaces/n", {"metadata": {"labels": {ENFORCE: "baseline"}}})
    assert changed.warnings == [
        'existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest"',
        "p (and 1 other pod): host namespaces",
    ]
    await server.server.cache.current()
    await server.ok("PATCH", f"{pods}/p", {"metadata": {"labels": {"x": "y"}}})
    refused = await server(
        "PATCH", f"{pods}/p", {"spec": {"containers": [CONTAINER | {"image": "x"}]}}, type_=STRATEGIC
    )
    assert refused.code == 403 and "violates PodSecurity" in refused.message
    debugger = {"name": "e", "image": "i", "securityContext": {"privileged": True}}
    refused = await server(
        "PATCH", f"{pods}/p/ephemeralcontainers", {"spec": {"ephemeralContainers": [debugger]}}, type_=STRATEGIC
    )
    assert refused.code == 403
    relaxed = await server("PATCH", "/api/v1/namespaces/n", {"metadata": {"labels": {ENFORCE: "privileged"}}})
    assert not relaxed.warnings


async def test_wrong_labels(server: Server) -> None:
    refused = await server("POST", "/api/v1/namespaces", {"metadata": {"name": "n", "labels": {ENFORCE: "strict"}}})
    assert refused.code == 422
    assert refused.message == (
        f'Namespace "n" is invalid: metadata.labels[{ENFORCE}]: Invalid value: "strict": '
        "must be one of privileged, baseline, restricted"
    )
    await namespace(server, "n", {})
    refused = await server("PATCH", "/api/v1/namespaces/n", {"metadata": {"labels": {f"{ENFORCE}-version": "1.3"}}})
    assert refused.code == 422 and 'must be "latest" or "v1.x"' in refused.message


def test_configuration(tmp_path: Path) -> None:
    file = tmp_path / "admission.yaml"
    file.write_text("""
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline, enforce-version: latest}
    exemptions: {namespaces: [free], usernames: [root], runtimeClasses: [vm]}
""")

    async def test(server: Server) -> None:
        for name in ("n", "free"):
            await namespace(server, name, {})
        await server.ok("POST", "/apis/node.k8s.io/v1/runtimeclasses", {"metadata": {"name": "vm"}, "handler": "vm"})
        pods = "/api/v1/namespaces/n/pods"
        assert (await server("POST", pods, pod(hostNetwork=True))).code == 403
        assert (await server("POST", pods, pod("a", hostNetwork=True, runtimeClassName="vm"))).code == 201
        assert (await server("POST", pods, pod("b", hostNetwork=True), user="root")).code == 201
        assert (await server("POST", "/api/v1/namespaces/free/pods", pod(hostNetwork=True))).code == 201
        told = await server("PATCH", "/api/v1/namespaces/free", {"metadata": {"labels": {ENFORCE: "restricted"}}})
        assert told.warnings == [
            'namespace "free" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored'
        ]

    running(test, admission_control_config_file=str(file))


async def test_many_pods_do_not_hold_the_server(server: Server) -> None:
    await namespace(server, "n", {})
    for i in range(120):
        await server.ok("POST", "/api/v1/namespaces/n/pods", pod(f"p{i}", hostNetwork=True))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    before = turns
    changed = await server("PATCH", "/api/v1/namespaces/n", {"metadata": {"labels": {ENFORCE: "baseline"}}})
    task.cancel()
    assert changed.warnings[1] == "p0 (and 119 other pods): host namespaces"
    assert turns > before + 1
