"""The smaller plugins, the flags that choose them, and the order in which they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver import config as configuration
from apiserver.admission.configuration import chosen, plugin_options
from apiserver.admission.plugins.runtimeclass import covers, merged
from apiserver.request import User
from tests.apiserver.admission.support import CONTAINER, Server, Tree, namespace, running

CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"
PODS = "/api/v1/namespaces/n/pods"


def pod(name: str = "p", **spec: Any) -> Tree:
    return {"metadata": {"name": name}, "spec": {"containers": [CONTAINER]} | spec}


async def test_runtime_class(server: Server) -> None:
    await namespace(server, "n", {})
    toleration = {"key": "vm", "operator": "Exists", "effect": "NoSchedule"}
    vm = {
        "metadata": {"name": "vm"},
        "handler": "kata",
        "overhead": {"podFixed": {"cpu": "250m", "memory": "120Mi"}},
        "scheduling": {"nodeSelector": {"runtime": "vm"}, "tolerations": [toleration]},
    }
    await server.ok("POST", CLASSES, vm)
    await server.ok("POST", CLASSES, {"metadata": {"name": "plain"}, "handler": "runc"})
    await server.server.cache.current()
    made = await server.ok("POST", PODS, pod(runtimeClassName="vm", nodeSelector={"disk": "ssd"}))
    assert made["spec"]["overhead"] == {"cpu": "250m", "memory": "120Mi"}
    assert made["spec"]["nodeSelector"] == {"disk": "ssd", "runtime": "vm"}
    assert toleration in made["spec"]["tolerations"]
    for spec, why in (
        ({"runtimeClassName": "gone"}, 'pod rejected: RuntimeClass "gone" not found'),
        (
            {"runtimeClassName": "vm", "nodeSelector": {"runtime": "runc"}},
            "conflict: runtimeClass.scheduling.nodeSelector[runtime] = vm; pod.spec.nodeSelector[runtime] = runc",
        ),
        (
            {"runtimeClassName": "vm", "overhead": {"cpu": "1"}},
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            {"overhead": {"cpu": "1"}},
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            {"runtimeClassName": "plain", "overhead": {"cpu": "1"}},
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
    ):
        refused = await server("POST", PODS, pod("q", **spec))
        assert (refused.code, refused.message) == (403, f'pods "q" is forbidden: {why}')


TOLERATIONS = st.fixed_dictionaries(
    {},
    optional={
        "key": st.sampled_from(["a", "b"]),
        "operator": st.sampled_from(["Exists", "Equal"]),
        "value": st.sampled_from(["", "x"]),
        "effect": st.sampled_from(["NoSchedule", "NoExecute"]),
        "tolerationSeconds": st.integers(0, 2),
    },
)


@given(st.lists(TOLERATIONS, max_size=4), st.lists(TOLERATIONS, max_size=4))
def test_merging_tolerations_loses_nothing(first: list[Tree], second: list[Tree]) -> None:
    out = merged(first, second)
    assert all(any(covers(wide, one) for wide in out) for one in [*first, *second])
    assert all(one in first or one in second for one in out)


async def test_storage_objects(server: Server) -> None:
    await namespace(server, "n", {})
    claims = "/api/v1/namespaces/n/persistentvolumeclaims"
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "s",
    }
    made = await server.ok("POST", claims, {"metadata": {"name": "c"}, "spec": spec})
    assert made["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    bigger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    refused = await server("PATCH", f"{claims}/c", bigger)
    assert refused.code in (403, 422)
    await server.ok("PATCH", f"{claims}/c/status", {"status": {"phase": "Bound"}})
    await server.ok(
        "POST", "/apis/storage.k8s.io/v1/storageclasses", {"metadata": {"name": "s"}, "provisioner": "p"}
    )
    refused = await server("PATCH", f"{claims}/c", bigger)
    assert refused.code == 403 and "the storageclass that provisions the pvc must support resize" in refused.message
    await server.ok("PATCH", "/apis/storage.k8s.io/v1/storageclasses/s", {"allowVolumeExpansion": True})
    await server.server.cache.current()
    await server.ok("PATCH", f"{claims}/c", bigger)


def test_owner_references() -> None:
    async def test(server: Server) -> None:
        await namespace(server, "n", {})
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "update", "patch", "get"]}]
        role = {"metadata": {"name": "r"}, "rules": rules}
        rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/n"
        await server.ok("POST", f"{rbac}/roles", role)
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
        subject = {"kind": "User", "name": "eve", "apiGroup": "rbac.authorization.k8s.io"}
        await server.ok(
            "POST", f"{rbac}/rolebindings", {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [subject]}
        )
        await server.server.cache.current()
        eve = User("eve", ("system:authenticated",))
        maps = "/api/v1/namespaces/n/configmaps"
        await server.ok("POST", maps, {"metadata": {"name": "m"}}, user=eve)
        owner = {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "u"}
        owned = {"metadata": {"ownerReferences": [owner]}}
        refused = await server("PATCH", f"{maps}/m", owned, user=eve)
        assert refused.code == 403 and "cannot set an ownerRef on a resource you can't delete" in refused.message
        made = await server("POST", maps, {"metadata": {"name": "o", "ownerReferences": [owner]}}, user=eve)
        assert made.code == 201
        blocking = {"metadata": {"name": "q", "ownerReferences": [owner | {"blockOwnerDeletion": True}]}}
        refused = await server("POST", maps, blocking, user=eve)
        assert refused.code == 403 and "a resource you can't set finalizers on" in refused.message
        unknown = {"metadata": {"name": "q", "ownerReferences": [owner | {"kind": "X", "blockOwnerDeletion": True}]}}
        assert (
            "cannot find RESTMapping for APIVersion v1 Kind X"
            in (await server("POST", maps, unknown, user=eve)).message
        )
        await server.ok("PATCH", f"{maps}/m", owned)

    running(test, enable_admission_plugins=("OwnerReferencesPermissionEnforcement",))


def test_optional_plugins() -> None:
    async def test(server: Server) -> None:
        notes = {
            "scheduler.alpha.kubernetes.io/node-selector": "env=test",
            "scheduler.alpha.kubernetes.io/defaultTolerations": '[{"key": "t", "operator": "Exists"}]',
        }
        await namespace(server, "n", {})
        await server.ok("PATCH", "/api/v1/namespaces/n", {"metadata": {"annotations": notes}})
        await server.server.cache.current()
        made = await server.ok("POST", PODS, pod())
        assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"
        assert made["spec"]["nodeSelector"] == {"env": "test"}
        assert {"key": "t", "operator": "Exists"} in made["spec"]["tolerations"]
        refused = await server("POST", PODS, pod("q", nodeSelector={"env": "prod"}))
        assert refused.message == (
            'pods "q" is forbidden: pod node label selector conflicts with its namespace node label selector'
        )
        service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}], "externalIPs": ["1.2.3.4"]}}
        refused = await server("POST", "/api/v1/namespaces/n/services", service)
        assert refused.message == 'services "s" is forbidden: Use of external IPs is denied by admission control.'

    plugins = ("AlwaysPullImages", "PodNodeSelector", "PodTolerationRestriction", "DenyServiceExternalIPs")
    running(test, enable_admission_plugins=plugins)


def test_namespaces_made_on_the_way() -> None:
    async def test(server: Server) -> None:
        await server.ok("POST", "/api/v1/namespaces/new/configmaps", {"metadata": {"name": "m"}})
        await server.ok("GET", "/api/v1/namespaces/new")

    running(test, enable_admission_plugins=("NamespaceAutoProvision",))


async def test_order(server: Server) -> None:
    names = [p.name for p in server.server.admission.plugins]
    assert names == [
        "RBACEscalation", "NamespaceLifecycle", "LimitRanger", "ServiceAccount", "NodeRestriction",
        "TaintNodesByCondition", "PodSecurity", "Priority", "DefaultTolerationSeconds", "DefaultStorageClass",
        "StorageObjectInUseProtection", "PersistentVolumeClaimResize", "RuntimeClass", "CertificateApproval",
        "CertificateSigning", "CertificateSubjectRestriction", "DefaultIngressClass", "MutatingAdmissionWebhook",
        "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook", "ResourceQuota",
    ]  # fmt: skip


def test_choice() -> None:
    known = ("A", "B", "C")
    assert chosen(known, ("A", "B"), ("C",), ("A",)) == ["B", "C"]
    with pytest.raises(ValueError, match='enable-admission-plugins plugin "D" is unknown'):
        chosen(known, (), ("D",), ())
    with pytest.raises(ValueError, match=r"\[A\] in enable-admission-plugins and disable-admission-plugins overlapped"):
        chosen(known, (), ("A",), ("A",))
    told = configuration.parse(["--enable-admission-plugins", "A,B", "--set", "disable-admission-plugins=C,D"])
    assert told.enable_admission_plugins == ("A", "B") and told.disable_admission_plugins == ("C", "D")


def test_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    (tmp_path / "b.yaml").write_text("x: 1")
    head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"
    file.write_text(head + "- {name: A, path: b.yaml}\n- {name: B, configuration: {y: 2}}")
    assert plugin_options(str(file)) == {"A": {"x": 1}, "B": {"y": 2}}
    for text in ("[]", "kind: X", head + "- {path: b.yaml}", head + "- {name: A, more: 1}", "a: ["):
        file.write_text(text)
        with pytest.raises(ValueError):
            plugin_options(str(file))
