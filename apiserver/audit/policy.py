"""The audit policy (audit.k8s.io/v1): which requests are told of, and how much. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from apiserver.request import RequestInfo, User

Tree = dict[str, Any]
API_VERSION = "audit.k8s.io/v1"
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


class Level(IntEnum):
    """How much is told; each holds what the one before it holds."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def word(self) -> str:
        return WORDS[self]


WORDS = {Level.NONE: "None", Level.METADATA: "Metadata", Level.REQUEST: "Request", Level.REQUEST_RESPONSE: "RequestResponse"}
LEVELS = {word: level for level, word in WORDS.items()}


class Verdict(NamedTuple):
    level: Level
    omit_stages: tuple[str, ...] = ()
    omit_managed_fields: bool = False


class _Resources(NamedTuple):
    group: str
    resources: tuple[str, ...]
    names: tuple[str, ...]

    def match(self, info: RequestInfo) -> bool:
        if self.group != info.group:
            return False
        if not self.resources:
            return True
        if self.names and info.name not in self.names:
            return False
        combined = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        return any(
            pattern in ("*", combined, f"{info.resource}/*") or (info.subresource and pattern == f"*/{info.subresource}")
            for pattern in self.resources
        )


@dataclass(frozen=True)
class Rule:
    """A rule without a criterion of some sort is met by all as far as that sort goes."""

    verdict: Verdict
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[_Resources, ...] = ()
    namespaces: tuple[str, ...] = ()  # "" is what has no namespace
    urls: tuple[str, ...] = ()

    def match(self, user: User, info: RequestInfo) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and not any(g in self.groups for g in user.groups):
            return False
        if self.verbs and info.verb not in self.verbs and "*" not in self.verbs:
            return False
        if self.namespaces or self.resources:
            if not info.is_resource or (self.namespaces and info.namespace not in self.namespaces):
                return False
            return not self.resources or any(r.match(info) for r in self.resources)
        if self.urls:
            return not info.is_resource and any(_url_matches(url, info.path) for url in self.urls)
        return True


@dataclass(frozen=True)
class Policy:
    rules: tuple[Rule, ...]
    otherwise: Verdict

    def verdict(self, user: User, info: RequestInfo) -> Verdict:
        """Of the first rule that is met; who meets none is not told of."""
        for rule in self.rules:
            if rule.match(user, info):
                return rule.verdict
        return self.otherwise


def _url_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def load(path: str) -> Policy:
    """Raises OSError, ValueError with all that is wrong."""
    try:
        tree = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"audit policy {path}: {error}") from None
    policy, problems = parse(tree if isinstance(tree, dict) else {})
    if problems:
        raise ValueError(f"audit policy {path}: " + "; ".join(problems))
    return policy


RULE_FIELDS = (
    "level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages",
    "omitManagedFields",
)  # fmt: skip


def parse(tree: Tree) -> tuple[Policy, list[str]]:
    """The policy, and what is wrong with it."""
    problems: list[str] = []
    if (tree.get("apiVersion"), tree.get("kind")) != (API_VERSION, "Policy"):
        problems.append(f"apiVersion and kind must be {API_VERSION} and Policy")
    problems += _unknown(tree, ("apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields"), "")
    stages = _stages(tree, "omitStages", problems)
    managed = bool(tree.get("omitManagedFields"))
    rules = []
    listed = tree.get("rules") or []
    if not listed:
        problems.append("rules: Required value: a policy without a rule tells of nothing")
    for i, one in enumerate(listed):
        if not isinstance(one, dict):
            problems.append(f"rules[{i}]: must be an object")
            continue
        rules.append(_rule(one, f"rules[{i}]", stages, managed, problems))
    return Policy(tuple(rules), Verdict(Level.NONE, stages, managed)), problems


def _rule(one: Tree, at: str, stages: Sequence[str], managed: bool, problems: list[str]) -> Rule:
    problems += _unknown(one, RULE_FIELDS, f"{at}.")
    word = one.get("level")
    if word not in LEVELS:
        problems.append(f"{at}.level: Unsupported value: {word!r}: supported values: {', '.join(LEVELS)}")
    resources = []
    for j, item in enumerate(one.get("resources") or ()):
        group, names = item.get("group") or "", tuple(item.get("resourceNames") or ())
        resource_names = tuple(item.get("resources") or ())
        problems += _unknown(item, ("group", "resources", "resourceNames"), f"{at}.resources[{j}].")
        if "/" in group:
            problems.append(f"{at}.resources[{j}].group: Invalid value: {group!r}: a group without its version")
        if names and not resource_names:
            problems.append(f"{at}.resources[{j}].resourceNames: Invalid value: needs at least one resource")
        resources.append(_Resources(group, resource_names, names))
    urls = tuple(one.get("nonResourceURLs") or ())
    namespaces = tuple(one.get("namespaces") or ())
    if urls and (resources or namespaces):
        problems.append(f"{at}.nonResourceURLs: Invalid value: a rule is for resources or for other URLs, not for both")
    for url in urls:
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            text = "must begin with a '/', and have a '*' only at its end"
            problems.append(f"{at}.nonResourceURLs: Invalid value: {url!r}: {text}")
    omitted = (*stages, *(s for s in _stages(one, f"{at}.omitStages", problems) if s not in stages))
    own = one.get("omitManagedFields")
    return Rule(
        Verdict(LEVELS.get(word or "", Level.NONE), omitted, managed if own is None else bool(own)),
        tuple(one.get("users") or ()), tuple(one.get("userGroups") or ()), tuple(one.get("verbs") or ()),
        tuple(resources), namespaces, urls,
    )  # fmt: skip


def _stages(tree: Tree, at: str, problems: list[str]) -> tuple[str, ...]:
    stages = tuple(tree.get("omitStages") or ())
    for stage in stages:
        if stage not in STAGES:
            problems.append(f"{at}: Unsupported value: {stage!r}: supported values: {', '.join(STAGES)}")
    return stages


def _unknown(tree: Any, fields_: Sequence[str], at: str) -> list[str]:
    if not isinstance(tree, dict):
        return [f"{at.rstrip('.')}: must be an object"]
    return [f'unknown field "{at}{name}"' for name in tree if name not in fields_]
