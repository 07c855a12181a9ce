"""Kubernetes' CEL functions that ask for rights: ``authorizer.group('').resource('pods').check('create').allowed()``.

A question grows as a map of texts, from the variable ``authorizer`` on; ``check`` hands it to whoever decides at this
moment (:func:`deciding`): an evaluation never waits, so there is one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apiserver.request import RequestInfo, User

Question = dict[str, str]
Decide = Callable[[User, RequestInfo], tuple[bool, str]]
_deciders: list[Decide] = []


@contextmanager
def deciding(decide: Decide) -> Iterator[None]:
    """Whoever is asked while expressions are evaluated."""
    _deciders.append(decide)
    try:
        yield
    finally:
        _deciders.pop()


def authorizer(user: User) -> Question:
    """The value of the variable ``authorizer``."""
    return {"user": json.dumps([user.name, list(user.groups), user.uid, user.extra])}


def request_resource(user: User, info: RequestInfo) -> Question:
    """The value of the variable ``authorizer.requestResource``: the resource that a request is about."""
    return authorizer(user) | {
        "group": info.group, "resource": info.resource, "subresource": info.subresource, "namespace": info.namespace,
        "name": info.name,
    }  # fmt: skip


def _step(key: str) -> Callable[[Question, str], Question]:
    return lambda question, value: question | {key: value}


STEPS = {
    name: _step(name)
    for name in ("path", "group", "resource", "subresource", "namespace", "name", "fieldSelector", "labelSelector")
}


def service_account(question: Question, namespace: str, name: str) -> Question:
    """The questions that follow are about this account."""
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {"user": json.dumps([f"system:serviceaccount:{namespace}:{name}", groups, "", {}])}


def check(question: Question, verb: str) -> dict[str, str]:
    """The decision."""
    name, groups, uid, extra = json.loads(question["user"])
    user = User(name, tuple(groups), uid, extra)
    if "path" in question:
        info = RequestInfo(verb.lower(), question["path"])
    else:
        parts = [question.get(k, "") for k in ("resource", "subresource", "namespace", "name")]
        parts += question.get("fieldSelector", ""), question.get("labelSelector", "")
        info = RequestInfo(verb, "", True, question.get("group", ""), "*", *parts)
    if not _deciders:
        return {"allowed": "false", "reason": "", "errored": "true", "error": "there is no authorizer here"}
    allowed, reason = _deciders[-1](user, info)
    return {"allowed": "true" if allowed else "false", "reason": reason, "errored": "false", "error": ""}
