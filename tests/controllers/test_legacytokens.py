"""Old tokens in Secrets: which are marked, which are deleted, and that it happens."""

from __future__ import annotations

import pytest

from controllers.tokens.legacy import verdict
from navarch.api import wellknown
from navarch.api.times import parse_time
from navarch.api.types import core_v1, meta_v1
from tests.controllers.cluster import Cluster, run_cluster
from tests.controllers.test_persistentvolumes import make

NOW, YEAR = parse_time("2026-12-01T12:00:00Z"), 365 * 86400.0
MARK, USED = wellknown.LEGACY_TOKEN_INVALID_SINCE, wellknown.LEGACY_TOKEN_LAST_USED


@pytest.mark.parametrize(
    ("born", "labels", "decision"),
    [
        ("2026-01-01", {}, ""),
        ("2025-01-01", {}, "mark"),
        ("2020-01-01", {USED: "2026-06-01"}, ""),
        ("2020-01-01", {USED: "2025-06-01"}, "mark"),
        ("2020-01-01", {MARK: "2026-06-01"}, ""),
        ("2020-01-01", {MARK: "2025-06-01"}, "delete"),
        ("2020-01-01", {MARK: "2025-06-01", USED: "2026-06-01"}, ""),
        ("2020-01-01", {MARK: "no day"}, "mark"),
    ],
)
def test_what_becomes_of_an_old_token(born: str, labels: dict[str, str], decision: str) -> None:
    meta = meta_v1.ObjectMeta(creation_timestamp=f"{born}T00:00:00Z", labels=labels)
    assert verdict(core_v1.Secret(metadata=meta), NOW, YEAR) == decision


def test_only_tokens_that_an_account_names_go() -> None:
    async def body(cluster: Cluster) -> None:
        secrets, accounts = cluster.client[core_v1.Secret], cluster.client[core_v1.ServiceAccount]
        account = await accounts.get("default", "default")
        kind = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token"}
        notes = {wellknown.SERVICE_ACCOUNT_NAME: "default", "kubernetes.io/service-account.uid": account.metadata.uid}
        names = ("generated", "by-hand", "mounted")
        for name in names:
            await make(cluster, {**kind, "metadata": {"name": name, "namespace": "default", "annotations": notes}})
        await accounts.patch("default", "default", {"secrets": [{"name": "generated"}, {"name": "mounted"}]})
        volumes = [{"name": "v", "secret": {"secretName": "mounted"}}]
        pod = {"containers": [{"name": "a", "image": "i"}], "volumes": volumes}
        await make(cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": pod})
        await cluster.world.sleep(5)
        for name in names:  # a change brings it to the controller, which else looks once a day
            await secrets.patch(name, "default", {"metadata": {"annotations": {"x": "y"}}})

        async def remaining() -> list[core_v1.Secret]:
            return [s for s in (await secrets.list("default")).items if s.type == kind["type"]]

        async def is_gone() -> bool:  # marked, and deleted at once: a mark tells the day only, and the world began at midnight
            return [s.metadata.name for s in await remaining()] == ["by-hand", "mounted"]

        await cluster.until(is_gone)
        await cluster.world.sleep(5)
        assert await is_gone() and not any(s.metadata.labels for s in await remaining())

    run_cluster(body, "legacy-service-account-token-clean-up-period=3s")
