"""What is remembered of pods that were right must not let in one that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver.kinds.core.pods.validation import TOKEN_VOLUME, validate_pod_spec
from navarch.api import qos
from navarch.api.types import core_v1
from tests.apiserver.kinds.served import Asker
from tests.apiserver.kinds.test_served import NS, account


def spec(volume: str, mount: str) -> dict[str, Any]:
    container = {"name": "c", "image": "i", "volumeMounts": [{"name": mount, "mountPath": "/t"}]}
    settled = {"imagePullPolicy": "Always", "terminationMessagePolicy": "File"}
    volumes = [{"name": volume, "emptyDir": {}}]
    return {"containers": [container | settled], "volumes": volumes, "restartPolicy": "Always", "dnsPolicy": "Default"}


def test_a_form_is_right_with_every_name_of_its_token_volume() -> None:
    one, two = TOKEN_VOLUME + "abcde", TOKEN_VOLUME + "fghij"
    assert validate_pod_spec(spec(one, one), "spec") == []
    assert validate_pod_spec(spec(two, two), "spec") == []


@pytest.mark.parametrize(
    ("volume", "mount"),
    [
        (TOKEN_VOLUME + "abcde", TOKEN_VOLUME + "fghij"),
        (TOKEN_VOLUME + "abcde", "\0"),
        (TOKEN_VOLUME + "abcde", "\\u0000"),
        (TOKEN_VOLUME + "ab_de", TOKEN_VOLUME + "ab_de"),
        (TOKEN_VOLUME + "abcd-", TOKEN_VOLUME + "abcd-"),
    ],
)
def test_a_spec_that_looks_like_a_right_one_is_refused(volume: str, mount: str) -> None:
    right = TOKEN_VOLUME + "abcde"
    assert validate_pod_spec(spec(right, right), "spec") == []
    for _ in range(2):
        assert validate_pod_spec(spec(volume, mount), "spec")


async def test_a_patch_that_only_looks_like_no_change_is_checked(ask: Asker) -> None:
    """In Python true equals 1; on the wire it is another type."""

    await account(ask)
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], "priority": 0,
           "terminationGracePeriodSeconds": 1}}  # fmt: skip
    await ask("POST", f"{NS}/pods", pod)
    await ask("GET", f"{NS}/pods/p")
    await ask("PATCH", f"{NS}/pods/p", {"spec": {"terminationGracePeriodSeconds": True}}, code=422)
    done = await ask("PATCH", f"{NS}/pods/p", {"metadata": {"labels": {"a": "b"}}, "what": 1, "status": None})
    assert "what" not in done and done["status"]["phase"] == "Pending"
    assert done["spec"]["terminationGracePeriodSeconds"] == 1


@pytest.mark.parametrize(
    "found",
    [
        {"containers": [{"name": "a"}]},
        {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]},
        {"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]},
        {"containers": [{"name": "a"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
        {
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
            "initContainers": [{"name": "b"}],
        },
    ],
)
def test_quality_of_service_is_the_same_of_tree_and_struct(found: dict[str, Any]) -> None:
    import msgspec

    assert qos.qos_of_tree(found) == qos.qos_class(msgspec.convert(found, core_v1.PodSpec))
