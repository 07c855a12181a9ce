"""The Pod Security Standards' checks: their words, and how they changed from version to version."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.admission.podsecurity.checks import NEWEST, check
from apiserver.admission.podsecurity.levels import BASELINE, LATEST, LEVELS, RESTRICTED, Policy, Standard, policy_of

Tree = dict[str, Any]
GOOD = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {"name": "a", "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    ],
}


def container(name: str = "a", **more: Any) -> Tree:
    return {"name": name, **more}


def details(level: str, spec: Tree, metadata: Tree | None = None, minor: int = LATEST) -> str:
    return check(Standard(level, minor), metadata or {}, spec).details


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"hostNetwork": True, "hostPID": True}, "host namespaces (hostNetwork=true, hostPID=true)"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "v")'),
        (
            {"containers": [container(ports=[{"hostPort": 80}, {"hostPort": 8080}]), container("b", ports=[{"hostPort": 1}])]},
            'hostPort (containers "a", "b" use hostPorts 1, 80, 8080)',
        ),
        (
            {"initContainers": [container("i", securityContext={"privileged": True})], "containers": [container()]},
            'privileged (container "i" must not set securityContext.privileged=true)',
        ),
        (
            {"containers": [container(securityContext={"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})]},
            'non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add)',
        ),
        (
            {"containers": [container(livenessProbe={"httpGet": {"host": "1.2.3.4"}})]},
            'probe or lifecycle host (container "a" uses probe or lifecycle host "1.2.3.4")',
        ),
        (
            {"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}},
            'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "x"; user may not be set)',
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        ({"securityContext": {"sysctls": [{"name": "a.b"}]}}, "forbidden sysctls (a.b)"),
        (
            {"containers": [container(securityContext={"procMount": "Unmasked"})]},
            'procMount (container "a" must not set securityContext.procMount to "Unmasked")',
        ),
        (
            {"securityContext": {"windowsOptions": {"hostProcess": True}}},
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}},
            'forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")',
        ),
        ({"ephemeralContainers": [container("e", securityContext={"privileged": True})]},
         'privileged (container "e" must not set securityContext.privileged=true)'),
    ],
)  # fmt: skip
def test_baseline(spec: Tree, expected: str) -> None:
    assert details(BASELINE, spec) == expected
    assert details(BASELINE, GOOD) == ""


def test_restricted() -> None:
    assert details(RESTRICTED, GOOD) == ""
    assert details(RESTRICTED, {"containers": [container("nginx")]}) == (
        'allowPrivilegeEscalation != false (container "nginx" must set securityContext.allowPrivilegeEscalation=false), '
        'unrestricted capabilities (container "nginx" must set securityContext.capabilities.drop=["ALL"]), '
        'runAsNonRoot != true (pod or container "nginx" must set securityContext.runAsNonRoot=true), '
        'seccompProfile (pod or container "nginx" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")'
    )
    spec = GOOD | {"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}, {"name": "ok", "emptyDir": {}}]}
    assert details(RESTRICTED, spec) == (
        'restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")'
    )
    root = GOOD | {"securityContext": GOOD["securityContext"] | {"runAsUser": 0}}  # type: ignore[operator]
    assert details(RESTRICTED, root) == "runAsUser=0 (pod must not set runAsUser=0)"


def test_versions() -> None:
    """A check holds from the version on in which it came."""
    probe = {"containers": [container(livenessProbe={"httpGet": {"host": "h"}})]}
    assert details(BASELINE, probe, minor=33) == "" != details(BASELINE, probe, minor=34)
    sysctl = {"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}
    assert details(BASELINE, sysctl, minor=31) != "" == details(BASELINE, sysctl, minor=32)
    windows = GOOD | {"os": {"name": "windows"}, "containers": [container()]}
    assert details(RESTRICTED, windows, minor=24) != "" == details(RESTRICTED, windows, minor=25)
    old = {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}
    assert details(BASELINE, {}, old, minor=18).startswith("seccompProfile (forbidden annotation ")
    assert details(BASELINE, {}, old) == ""
    assert details(RESTRICTED, {"containers": [container()]}, minor=7) == (
        'runAsNonRoot != true (pod or container "a" must set securityContext.runAsNonRoot=true)'
    )


@given(minor=st.integers(0, NEWEST + 5), privileged=st.booleans(), network=st.booleans(), add=st.sets(st.sampled_from(
    ["CHOWN", "NET_ADMIN", "NET_BIND_SERVICE"])), kind=st.sampled_from(["", "Unconfined", "Localhost"]))  # fmt: skip
def test_restricted_refuses_what_baseline_refuses(
    minor: int, privileged: bool, network: bool, add: set[str], kind: str
) -> None:
    context: Tree = {"privileged": privileged, "capabilities": {"add": sorted(add)}}
    if kind:
        context["seccompProfile"] = {"type": kind}
    spec = {"hostNetwork": network, "containers": [container(securityContext=context)]}
    if check(Standard(BASELINE, minor), {}, spec):
        assert check(Standard(RESTRICTED, minor), {}, spec)


@given(st.dictionaries(
    st.sampled_from([f"pod-security.kubernetes.io/{m}{v}" for m in ("enforce", "audit", "warn") for v in ("", "-version")]),
    st.sampled_from([*LEVELS, "latest", "v1.20", "v1.020", "", "x"]),
))  # fmt: skip
def test_labels_always_give_a_policy(labels: dict[str, str]) -> None:
    policy, causes = policy_of(labels, Policy())
    wrong = {
        label for label, value in labels.items()
        if (value not in ("latest", "v1.20") if label.endswith("-version") else value not in LEVELS)
    }  # fmt: skip
    assert {c.field for c in causes} == {f"metadata.labels[{label}]" for label in wrong}
    if "pod-security.kubernetes.io/enforce" in wrong:
        assert policy.enforce.level == RESTRICTED
