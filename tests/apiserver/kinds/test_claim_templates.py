"""StatefulSets: a claim template is a volume of the pods, and is checked like a claim."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.kinds.support import created, problems, strategy, tree

SETS = strategy("statefulsets", "apps")


def stateful_set(mounts: str, volumes: str = "[]", claims: str = "[storage]", spec: str = "ok") -> dict[str, Any]:
    obj = tree(f"""
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: v, namespace: default}}
spec:
  serviceName: v
  selector: {{matchLabels: {{a: v}}}}
  template:
    metadata: {{labels: {{a: v}}}}
    spec: {{containers: [{{name: c, image: i, volumeMounts: {mounts}}}], volumes: {volumes}}}
  volumeClaimTemplates: {claims}
""")
    good = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    obj["spec"]["volumeClaimTemplates"] = [
        {"metadata": {"name": name}, "spec": dict(good) if spec == "ok" else {}}
        for name in obj["spec"]["volumeClaimTemplates"]
    ]
    return obj


@pytest.mark.parametrize(
    ("mounts", "volumes", "claims", "wrong"),
    [
        ("[{name: cfg, mountPath: /c}, {name: storage, mountPath: /d}]", "[{name: cfg, emptyDir: {}}]", "[storage]", []),
        ("[{name: storage, mountPath: /d}]", "[{name: storage, emptyDir: {}}]", "[storage]", []),
        ("[{name: storage, mountPath: /d}]", "[]", "[storage, storage]", []),
        ("[{name: a, mountPath: /a}, {name: b, mountPath: /b}]", "[]", "[a, b]", []),
        ("[{name: gone, mountPath: /d}]", "[]", "[storage]",
         ['spec.template.spec.containers[0].volumeMounts[0].name: Not found: "gone"']),
        ("[{name: a, mountPath: /d}, {name: b, mountPath: /d}]", "[]", "[a, b]",
         ['spec.template.spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/d": must be unique']),
        ("[]", "[{name: cfg, emptyDir: {}}, {name: cfg, emptyDir: {}}]", "[storage]",
         ['spec.template.spec.volumes[2].name: Duplicate value: "cfg"']),
    ],
)  # fmt: skip
def test_claims_are_volumes(mounts: str, volumes: str, claims: str, wrong: list[str]) -> None:
    assert problems(SETS, stateful_set(mounts, volumes, claims)) == wrong


def test_claims_are_checked() -> None:
    wrong = problems(SETS, stateful_set("[]", spec="empty"))
    at = "spec.volumeClaimTemplates[0].spec"
    assert wrong == [
        f"{at}.accessModes: Required value: at least 1 access mode is required",
        f"{at}.resources[storage]: Required value",
    ]


def test_what_was_wrong_may_stay() -> None:
    """Both checks are new in 1.34: an object of before can be changed elsewhere, and deleted."""
    for old in (stateful_set("[]", spec="empty"), stateful_set("[{name: gone, mountPath: /d}]")):
        created(SETS, old)
        new = {**old, "spec": {**old["spec"], "replicas": 3}}
        assert SETS.validate(new) and not SETS.validate_update(new, old)
    good = created(SETS, stateful_set("[]"))
    bad = created(SETS, stateful_set("[{name: gone, mountPath: /d}]"))
    assert SETS.validate_update(bad, good)
