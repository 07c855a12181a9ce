"""Counts in the status of workloads that contradict each other: refused with a path, whichever of them are there."""

from __future__ import annotations

import itertools

import pytest

from navarch.api.schema import INT32, INT64
from tests.apiserver.kinds.support import CATALOG

KINDS = [("apps", r) for r in ("deployments", "replicasets", "statefulsets", "daemonsets")]
KINDS += [("", "replicationcontrollers"), ("batch", "jobs"), ("policy", "poddisruptionbudgets")]


@pytest.mark.parametrize("key", KINDS)
def test_any_counts(key: tuple[str, str]) -> None:
    """Fuzz found it: {replicas: -1} of a ReplicaSet, without readyReplicas, was a 500."""
    rules = CATALOG[key]
    fields = [n for n, node in rules.schema.fields["status"].fields.items() if node.kind in (INT32, INT64)]
    assert len(fields) > 2
    old = {"metadata": {"name": "x", "generation": 1}, "spec": {}, "status": {}}
    for some in (*itertools.combinations(fields, 1), *itertools.combinations(fields, 2)):
        for values in itertools.product((-1, 0, 5), repeat=len(some)):
            status = dict(zip(some, values, strict=True))
            causes = rules.validate_status(old | {"status": status}, old)
            assert all(cause.field.startswith("status.") for cause in causes)
            counts = [v for k, v in status.items() if k not in ("collisionCount", "terminatingReplicas")]
            if key[1] not in ("poddisruptionbudgets", "jobs") and -1 in counts:
                assert causes, status
