"""Which flow schema a request belongs to, and which flow within it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apiserver.request import RequestInfo, User

Tree = dict[str, Any]
SERVICE_ACCOUNT = "system:serviceaccount:"
ALL = "*"


def schema_order(schema: Tree) -> tuple[int, str]:
    """Flow schemas are tried in this order."""
    return schema.get("spec", {}).get("matchingPrecedence") or 0, schema["metadata"]["name"]


def matches(schema: Tree, user: User, info: RequestInfo) -> bool:
    """Whether a rule of the schema names the user and what they ask for."""
    for rule in schema.get("spec", {}).get("rules") or ():
        if not any(_subject(s, user) for s in rule.get("subjects") or ()):
            continue
        if info.is_resource:
            if any(_resource(r, info) for r in rule.get("resourceRules") or ()):
                return True
        elif any(_path(r, info) for r in rule.get("nonResourceRules") or ()):
            return True
    return False


def distinguisher(schema: Tree, user: User, info: RequestInfo) -> str:
    """The text that tells the flows of a schema apart."""
    method = (schema.get("spec", {}).get("distinguisherMethod") or {}).get("type")
    if method == "ByUser":
        return user.name
    return info.namespace if method == "ByNamespace" else ""


def _subject(subject: Tree, user: User) -> bool:
    match subject.get("kind"):
        case "User":
            name = (subject.get("user") or {}).get("name")
            return name in (ALL, user.name)
        case "Group":
            name = (subject.get("group") or {}).get("name")
            return name == ALL or name in user.groups
        case "ServiceAccount":
            account = subject.get("serviceAccount") or {}
            namespace, name = account.get("namespace"), account.get("name")
            if name == ALL:
                return user.name.startswith(f"{SERVICE_ACCOUNT}{namespace}:")
            return user.name == f"{SERVICE_ACCOUNT}{namespace}:{name}"
    return False


def _has(values: Sequence[str] | None, value: str) -> bool:
    return values is not None and (ALL in values or value in values)


def _resource(rule: Tree, info: RequestInfo) -> bool:
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not (_has(rule.get("verbs"), info.verb) and _has(rule.get("apiGroups"), info.group)):
        return False
    if not _has(rule.get("resources"), resource):
        return False
    return _has(rule.get("namespaces"), info.namespace) if info.namespace else bool(rule.get("clusterScope"))


def _path(rule: Tree, info: RequestInfo) -> bool:
    if not _has(rule.get("verbs"), info.verb):
        return False
    return any(
        url in (ALL, info.path) or (url.endswith(ALL) and info.path.startswith(url[:-1]))
        for url in rule.get("nonResourceURLs") or ()
    )
