"""The audit policy's rules, and the log file that is turned over."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver.audit import log as audit_log
from apiserver.audit.audit import Audited
from apiserver.audit.log import AuditLog
from apiserver.audit.policy import Level, load, parse
from apiserver.config import Config
from apiserver.lifecycle import Lifecycle
from apiserver.request import RequestInfo, User
from navarch.world import RealWorld
from tests.apiserver.auth.support import World

JANE = User("jane", ("dev",))


def level(rule: dict[str, Any], info: RequestInfo, user: User = JANE) -> Level:
    policy, problems = parse(policy_of({"level": "Metadata"} | rule))
    assert not problems
    return policy.verdict(user, info).level


def policy_of(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more}


def info(
    resource: str, subresource: str = "", group: str = "", namespace: str = "ns", name: str = "", verb: str = "get"
) -> RequestInfo:
    return RequestInfo(verb, "/", True, group, "v1", resource, subresource, namespace, name)


@pytest.mark.parametrize(
    ("rule", "yes", "no"),
    [
        ({}, info("pods"), None),
        ({"users": ["jane"]}, info("pods"), None),
        ({"users": ["joe"]}, None, info("pods")),
        ({"userGroups": ["dev", "ops"]}, info("pods"), None),
        ({"verbs": ["get"]}, info("pods"), info("pods", verb="list")),
        ({"namespaces": ["ns"]}, info("pods"), info("pods", namespace="other")),
        ({"namespaces": [""]}, info("nodes", namespace=""), info("pods")),
        ({"resources": [{"group": ""}]}, info("pods"), info("deployments", group="apps")),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, info("pods"), info("pods", "log")),
        ({"resources": [{"group": "", "resources": ["pods/log"]}]}, info("pods", "log"), info("pods")),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, info("pods", "log"), info("services")),
        ({"resources": [{"group": "", "resources": ["*/status"]}]}, info("pods", "status"), info("pods", "log")),
        ({"resources": [{"group": "", "resources": ["*"]}]}, info("pods", "status"), info("jobs", group="batch")),
        (
            {"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["a"]}]},
            info("pods", name="a"),
            info("pods"),
        ),
        ({"resources": [{"group": ""}]}, None, RequestInfo("get", "/healthz")),
        ({"nonResourceURLs": ["/healthz*"]}, RequestInfo("get", "/healthz/ping"), RequestInfo("get", "/livez")),
        ({"nonResourceURLs": ["*"]}, RequestInfo("get", "/x"), info("pods")),
    ],
)
def test_rules(rule: dict[str, Any], yes: RequestInfo | None, no: RequestInfo | None) -> None:
    assert yes is None or level(rule, yes) == Level.METADATA
    assert no is None or level(rule, no) == Level.NONE


def test_the_first_rule_decides() -> None:
    rules = (
        {"level": "None", "users": ["jane"]},
        {"level": "Request", "omitStages": ["Panic"], "omitManagedFields": False},
    )
    policy, problems = parse(policy_of(*rules, omitStages=["RequestReceived"], omitManagedFields=True))
    assert not problems and policy.verdict(JANE, info("pods")).level == Level.NONE
    verdict = policy.verdict(User("joe"), info("pods"))
    assert verdict.level == Level.REQUEST and verdict.omit_stages == ("RequestReceived", "Panic")
    assert not verdict.omit_managed_fields


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({}, "apiVersion and kind must be"),
        (policy_of(), "rules: Required value"),
        (policy_of({"level": "All"}), "rules[0].level: Unsupported value: 'All'"),
        (policy_of({"level": "None", "omitStages": ["Later"]}), "rules[0].omitStages: Unsupported value"),
        (policy_of({"level": "None", "nonResourceURLs": ["/a*b"]}), "a '*' only at its end"),
        (policy_of({"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["n"]}), "not for both"),
        (policy_of({"level": "None", "resources": [{"group": "", "resourceNames": ["a"]}]}), "at least one resource"),
        (policy_of({"level": "None", "resources": [{"group": "apps/v1"}]}), "a group without its version"),
        (policy_of({"level": "None", "colour": "red"}), 'unknown field "rules[0].colour"'),
    ],
)
def test_policies_are_checked(tree: dict[str, Any], text: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ValueError) as error:
        load(str(file))
    assert text in str(error.value)


def test_a_log_without_a_policy_is_refused() -> None:
    from apiserver.audit.setup import audit_log as configured_log

    with pytest.raises(ValueError, match="needs an audit-policy-file"):
        configured_log(World(), Config(audit_log_path="x"), Lifecycle())


def test_events_survive_a_cancellation_before_the_thread_starts(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def main() -> None:
        log = AuditLog(World(), str(path))
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1)
        loop.set_default_executor(pool)
        may_go = threading.Event()
        pool.submit(may_go.wait)  # the pool's only thread is busy: the log's job waits behind it
        running = asyncio.ensure_future(log.run())
        log.add(b"1")
        while log._some.is_set() or not pool._work_queue.qsize():
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        may_go.set()

    asyncio.run(main())
    assert path.read_bytes() == b"1\n"


def test_the_log_is_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MEGABYTE", 1000)
    world, path = World(), tmp_path / "logs" / "audit.log"
    (tmp_path / "logs").mkdir()
    old = path.with_name("audit-2020-01-01T00-00-00.000.log")
    old.write_text("")
    os.utime(old, (0, 0))

    async def main() -> None:
        log = AuditLog(world, str(path), age=30, backups=2, size=1)
        async with world.task_group() as group:
            running = group.start(log.run())
            for number in range(100):
                log.add(json.dumps({"number": number, "text": "x" * 80}).encode())
                world.ahead += 1
                if number % 5 == 4:  # as a writer that keeps up
                    while log.waiting:
                        await asyncio.sleep(0.001)
            running.cancel()

    RealWorld().run(main)
    files = sorted(path.parent.iterdir())
    assert len(files) == 3 and files[-1] == path and old not in files
    numbers = [json.loads(line)["number"] for file in files for line in file.read_text().splitlines()]
    assert numbers == list(range(numbers[0], 100)), "in order, none lost but what was turned over"
    assert all(file.stat().st_size <= 1000 and file.stat().st_mode & 0o077 == 0 for file in files)


def test_a_log_that_does_not_keep_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MAX_WAITING", 10)
    path = tmp_path / "audit.log"

    async def main() -> None:
        log = AuditLog(RealWorld(), str(path))
        for number in range(25):  # nobody writes meanwhile
            log.add(b"%d" % number)
        assert log.waiting == 3
        task = asyncio.ensure_future(log.run())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    RealWorld().run(main)
    assert path.read_text().split() == [str(n) for n in range(25)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("data: {1: yes, 2020-01-01: off}", {"data": {"1": True, "2020-01-01": False}}),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("a: &x [*x]", None),
        (
            "a: &a [1, 1]\n" + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghijk")),
            None,
        ),
        ("", None),
    ],
)
def test_yaml_bodies_are_told_as_the_server_reads_them(body: str, expected: Any) -> None:
    told = Audited._object(None, body.encode(), "application/yaml")  # type: ignore[arg-type]
    if expected is None and body:
        expected = {"kind": "Unknown", "apiVersion": "", "contentType": "application/yaml", "raw": told["raw"]}
        assert base64.b64decode(told["raw"]).decode() == body
    assert told == expected
