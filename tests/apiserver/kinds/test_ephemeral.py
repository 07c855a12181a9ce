"""pods/ephemeralcontainers, and who may open a pod's streams."""

from __future__ import annotations

import asyncio

from apiserver.request import User
from tests.apiserver.kinds.served import Asker
from tests.apiserver.kinds.test_served import NS, POD, account, create

VIEWER = User("vera", ("system:authenticated",))


async def test_ephemeral_containers_come_and_stay(ask: Asker) -> None:
    await account(ask)
    pod = await ask("POST", NS + "/pods", POD)
    part = NS + "/pods/p/ephemeralcontainers"
    debug = {"name": "debug", "image": "busybox", "targetContainerName": "a", "stdin": True, "tty": True}
    # Anything else in the body is left alone.
    wanted = {"spec": {"ephemeralContainers": [debug], "nodeName": "n"}, "metadata": {"labels": {"x": "y"}}}
    changed = await ask("PATCH", part, wanted)
    (container,) = changed["spec"]["ephemeralContainers"]
    assert container["imagePullPolicy"] == "Always" and container["targetContainerName"] == "a"
    assert "nodeName" not in changed["spec"] and "labels" not in changed["metadata"]
    assert changed["metadata"]["generation"] == pod["metadata"]["generation"] + 1
    assert changed["metadata"]["managedFields"][-1]["subresource"] == "ephemeralcontainers"
    assert (await ask("GET", part))["spec"]["ephemeralContainers"] == [container]
    for containers, said in (
        ([], 'existing ephemeral containers "debug" may not be removed'),
        ([container | {"image": "other"}], 'existing ephemeral containers "debug" may not be changed'),
        ([container, {"name": "a", "image": "i"}], 'spec.ephemeralContainers[1].name: Duplicate value: "a"'),
        (
            [container, {"name": "b", "image": "i", "targetContainerName": "z"}],
            'spec.ephemeralContainers[1].targetContainerName: Not found: "z"',
        ),
        (
            [container, {"name": "b", "image": "i", "ports": [{"containerPort": 1}]}],
            "spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
    ):
        refused = await ask("PATCH", part, {"spec": {"ephemeralContainers": containers}}, code=422)
        assert said in refused["message"], refused["message"]
    # The pod itself may not be given any.
    spec = {"ephemeralContainers": [container, {"name": "b", "image": "i"}]}
    assert "may not change fields" in (await ask("PATCH", NS + "/pods/p", {"spec": spec}, code=422))["message"]
    found = await ask("GET", "/api/v1")
    (about,) = [r for r in found["resources"] if r["name"] == "pods/ephemeralcontainers"]
    assert about["kind"] == "Pod" and about["verbs"] == ["get", "patch", "update"]


ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: some}
rules:
- {apiGroups: [""], resources: [pods/exec], verbs: [create]}
- {apiGroups: [""], resources: [pods/portforward, services/proxy], verbs: [get]}
"""
BINDING = """
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: some}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: some}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: vera}]
"""


async def test_each_stream_needs_its_own_right(ask: Asker) -> None:
    await account(ask)
    await ask("POST", NS + "/pods", POD)
    await create(ask, ROLE)
    await create(ask, BINDING)

    async def may(method: str, path: str) -> bool:
        """What is allowed fails all the same, later: no node has the pod."""
        try:
            await ask(method, NS + path, user=VIEWER, code=403)
            return False
        except AssertionError as error:
            assert "Forbidden" not in str(error)
            return True

    async with asyncio.timeout(5):
        while not await may("POST", "/pods/p/exec"):  # until the authorizer has seen the binding
            await asyncio.sleep(0.01)
    assert not await may("GET", "/pods/p/exec")
    assert await may("GET", "/pods/p/portforward") and not await may("POST", "/pods/p/portforward")
    assert not await may("POST", "/pods/p/attach")
    assert await may("GET", "/services/s:80/proxy/a/b") and not await may("PUT", "/services/s:80/proxy/a/b")
    assert not await may("PATCH", "/pods/p/ephemeralcontainers")
