"""Reviews and requests for tokens, as clients send them to a whole server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.request import LOOPBACK, User
from apiserver.storage.memory import MemoryStore
from navarch.api.errors import BadRequest, Invalid
from navarch.client.client import Client
from navarch.client.transport import InProcessTransport
from navarch.virtual import SimulatedWorld
from tests.within import Within

Tree = dict[str, Any]
Ask = Callable[..., Awaitable[Tree]]


def serving(test: Callable[[Ask], Awaitable[None]], config: Config | None = None) -> None:
    world = SimulatedWorld(0)

    async def main() -> None:
        server = assemble(world, MemoryStore(), config or Config())
        ready = asyncio.Event()

        async def ask(path: str, body: Tree, user: User = LOOPBACK) -> Tree:
            client = Client(InProcessTransport(server.app, user), world, "test")
            answer = await client.request("POST", path, body=msgspec.json.encode(body))
            found: Tree = msgspec.json.decode(answer.body) | {"warnings": answer.headers.get("warning", "")}
            return found

        async with world.task_group() as group:
            group.start(server.run(lambda bound: ready.set(), listen=False))
            await ready.wait()
            await test(ask)
            group.cancel()

    world.run(main)


@pytest.fixture
def ask() -> Within:
    return Within(serving)


ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def test_selectors_of_access_reviews() -> None:
    async def test(ask: Ask) -> None:
        root = {"groups": ["system:masters"], "user": "root"}

        async def review(selector: Tree, field: str = "fieldSelector", user: Tree = root) -> Tree:
            attributes = {"verb": "list", "resource": "pods", field: selector}
            head = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
            return await ask(ACCESS, head | {"spec": user | {"resourceAttributes": attributes}})

        good = {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]}
        answer = await review(good)
        assert answer["status"]["allowed"] and answer["spec"]["resourceAttributes"]["fieldSelector"] == good
        assert (await review({"rawSelector": "a=b"}, "labelSelector"))["status"]["allowed"]
        agent = {"groups": ["system:nodes"], "user": "system:node:n"}
        for selector, allowed in (
            (good, True), ({"rawSelector": "spec.nodeName=n,status.phase!=Failed"}, True),
            ({"requirements": [good["requirements"][0] | {"operator": "NotIn"}]}, False),
            ({"requirements": [good["requirements"][0] | {"values": ["n", "m"]}]}, False),
            ({"requirements": [good["requirements"][0] | {"values": ["m,spec.nodeName=n"]}]}, False),
        ):  # fmt: skip
            assert (await review(selector, user=agent))["status"]["allowed"] is allowed
        at = "spec.resourceAttributes.fieldSelector"
        for selector, field in (
            ({}, at), ({"rawSelector": "a=b"} | good, f"{at}.rawSelector"),
            ({"requirements": [{"operator": "Exists"}]}, f"{at}.requirements[0].key"),
            ({"requirements": [{"key": "a", "operator": "In"}]}, f"{at}.requirements[0].values"),
            ({"requirements": [{"key": "a", "operator": "Exists", "values": ["b"]}]}, f"{at}.requirements[0].values"),
            ({"requirements": [{"key": "a", "operator": "Like"}]}, f"{at}.requirements[0].operator"),
        ):  # fmt: skip
            with pytest.raises(Invalid) as error:
                await review(selector)
            assert [c["field"] for c in error.value.details["causes"]] == [field]

    serving(test)


def test_token_requests() -> None:
    async def test(ask: Ask) -> None:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}}
        await ask("/api/v1/namespaces/default/serviceaccounts", account)
        path = "/api/v1/namespaces/default/serviceaccounts/a/token"

        async def token(metadata: Tree | None = None, **spec: Any) -> Tree:
            head = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": metadata or {}}
            return await ask(path, head | {"spec": {"audiences": []} | spec})

        long = await token(expirationSeconds=100_000)
        assert long["spec"]["expirationSeconds"] == 7200
        assert "requested expiration of 100000 seconds shortened to 7200 seconds" in str(long["warnings"])
        with pytest.raises(Invalid, match="may not specify a duration less than 10 minutes"):
            await token(expirationSeconds=599)
        with pytest.raises(BadRequest, match="does not match the name on the URL"):
            await token({"name": "b"})
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        for audiences, good in (([], True), (["vault"], False)):
            asked = {"spec": {"token": long["status"]["token"], "audiences": audiences}}
            status = (await ask("/apis/authentication.k8s.io/v1/tokenreviews", review | asked))["status"]
            assert status.get("authenticated", False) is good, status
            assert good or status["error"].startswith("[invalid bearer token, token audiences")
            assert not good or status["user"]["username"] == "system:serviceaccount:default:a"

    serving(test, Config(service_account_max_token_expiration="2h"))


async def test_rules_of_nodes_are_not_all(ask: Ask) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}}
    node = User("system:node:n", ("system:nodes", "system:authenticated"))
    assert (await ask(path, body, node))["status"]["incomplete"]
    admin = (await ask(path, body))["status"]
    assert not admin["incomplete"] and admin["resourceRules"][0]["verbs"] == ["*"]
