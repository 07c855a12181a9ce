"""What is remembered of the specs of pods changes no answer: two servers, one that remembers nothing, asked the same."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

import pytest

from apiserver.registry.templates import Templates
from navarch.world import RealWorld
from tests.apiserver.kinds.served import Asker, served

Tree = dict[str, Any]
PODS = "/api/v1/namespaces/default/pods"
RANDOM = re.compile(
    r'"(uid|creationTimestamp|time|resourceVersion)": ?"[^"]*"|kube-api-access-\w{5}|(?<=made-)\w{5}'
)
CONTAINERS: list[Tree] = [
    {"name": "c", "image": "i"},
    {"name": "c", "image": "i:1", "resources": {"limits": {"cpu": "1000m", "memory": "1Gi"}}},
    {"name": "c", "image": "i", "resources": {"limits": {"cpu": 2}}, "ports": [{"containerPort": 80}, {"containerPort": 80}]},
    {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
    {"name": "c", "image": "i", "env": [{"name": "A", "value": None}], "command": []},
    {"name": "c", "image": "i", "unknown": 1},
    {"name": "c", "image": 7},
    {"name": "C!", "image": "i"},
    {"image": "i"},
    {"name": "c", "image": "i", "volumeMounts": [{"name": "kube-api-access-abcde", "mountPath": "/x"}]},
    {"name": "c", "image": "i", "readinessProbe": {"httpGet": {"port": 80}}},
]  # fmt: skip
SPECS: list[Tree] = [
    {},
    {"volumes": [{"name": "v"}, {"name": "w", "hostPath": {"path": "/"}}]},
    {"volumes": [{"name": "kube-api-access-abcde", "emptyDir": {}}]},
    {"terminationGracePeriodSeconds": -1},
    {"hostNetwork": True},
    {"ephemeralContainers": [{"name": "e", "image": "i"}]},
    {"restartPolicy": "Sometimes"},
    {"automountServiceAccountToken": False, "nodeName": "n"},
    {"imagePullSecrets": [{"name": ""}]},
    {"serviceAccountName": "nobody"},
    {"tolerations": [{"key": "a", "operator": "Exists"}]},
]
METADATA: list[Tree] = [
    {}, {"labels": {"a": "b"}}, {"labels": {"!": "b"}}, {"annotations": {}}, {"unknown": True}, {"uid": "x", "generation": 7},
    {"generateName": "made-"}, {"namespace": "other"}, {"finalizers": ["x"]},
]  # fmt: skip
AROUND: list[Tree] = [{}, {"status": {"phase": "Running"}}, {"extra": 1}, {"apiVersion": "v2"}]
LIMITS: Tree = {"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "default": {"cpu": "5"}}]}}


def bodies(seed: int) -> list[Tree]:
    """Requests in which pods of one spec come again, beside the odd ones."""
    choice = random.Random(seed).choice
    out: list[Tree] = []
    specs = [{**copy.deepcopy(choice(SPECS)), "containers": [copy.deepcopy(choice(CONTAINERS))]} for _ in range(12)]
    for n in range(60):
        metadata = dict(choice(METADATA)) if n % 3 == 0 else {}
        if "generateName" not in metadata:
            metadata["name"] = f"p{n}"
        around = choice(AROUND) if n % 7 == 0 else {}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": choice(specs), **around}
        keys = list(pod)
        if n % 5 == 0:
            keys.reverse()
        out.append({key: pod[key] for key in keys})
    return out


async def answers(ask: Asker, seed: int) -> list[str]:
    out = []
    await ask("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    for n, body in enumerate(bodies(seed)):
        if n == 30:  # the same pods are admitted with other limits from now on
            await ask("POST", "/api/v1/namespaces/default/limitranges", LIMITS)
        query = ("", "fieldValidation=Strict", "dryRun=All", "fieldManager=m")[n % 4]
        status, tree = await raw(ask, body, query)
        out.append(f"{status} {RANDOM.sub('?', json.dumps(tree))} {ask.warnings}")
    return out


async def raw(ask: Asker, body: Tree, query: str) -> tuple[int, Tree]:
    try:
        return 201, await ask("POST", PODS, body, query=query, code=201)
    except AssertionError as error:
        status, tree = error.args[0]
        return status, tree


@pytest.mark.parametrize("seed", range(3))
def test_no_answer_changes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used = {"ready": 0, "right": 0}
    for name in used:
        asked = getattr(Templates, name)

        def count(self: Templates, what: Any, asked: Any = asked, name: str = name) -> Any:
            found = asked(self, what)
            used[name] += bool(found)
            return found

        monkeypatch.setattr(Templates, name, count)

    async def main() -> None:
        async with served() as one, served() as other:
            other.server.resources["", "pods"].strategy.forms = False
            short = await answers(one, seed)
            assert used["ready"] > 5 and used["right"] > 5
            seen = dict(used)
            assert short == await answers(other, seed)
            assert used == seen

    RealWorld().run(main)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apiserver.registry.templates.MAX_SPECS", 4)
    monkeypatch.setattr("apiserver.registry.templates.MAX_FORMS", 4)

    async def main() -> None:
        async with served() as ask:
            await ask("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
            for n in range(20):
                spec = {"containers": [{"name": "c", "image": f"i:{n}"}]}
                await ask("POST", PODS, {"metadata": {"name": f"p{n}"}, "spec": spec})
            large = {"containers": [{"name": "c", "image": "i", "args": ["x" * 20_000]}]}
            await ask("POST", PODS, {"metadata": {"name": "large"}, "spec": large})
            templates = ask.server.resources["", "pods"].templates
            assert 1 <= len(templates._ready) <= 4 and 1 <= len(templates._right) <= 4
            assert all(len(spec) < 1000 for spec in templates._ready)

    RealWorld().run(main)
