"""RBAC PolicyRules, compiled once and matched against a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apiserver.request import RequestInfo

ALL = "*"


class Rule:
    """One PolicyRule as sets."""

    __slots__ = ("groups", "names", "resources", "urls", "verbs")

    def __init__(self, rule: Mapping[str, Any]) -> None:
        self.verbs = frozenset(rule.get("verbs") or ())
        self.groups = frozenset(rule.get("apiGroups") or ())
        self.resources = frozenset(rule.get("resources") or ())
        self.names = frozenset(rule.get("resourceNames") or ())
        self.urls = tuple(rule.get("nonResourceURLs") or ())

    def allows(self, info: RequestInfo) -> bool:
        if info.verb not in self.verbs and ALL not in self.verbs:
            return False
        if not info.is_resource:
            return any(_url_matches(pattern, info.path) for pattern in self.urls)
        if info.group not in self.groups and ALL not in self.groups:
            return False
        if not self._resource(info.resource, info.subresource):
            return False
        return not self.names or info.name in self.names

    def _resource(self, resource: str, subresource: str) -> bool:
        if ALL in self.resources:
            return True
        if not subresource:
            return resource in self.resources
        return f"{resource}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def covers(self, verb: str, group: str, resource: str, name: str | None) -> bool:
        """Whether the rule grants one (verb, group, resource, name) of another rule; ``name`` None is any name."""
        if verb not in self.verbs and ALL not in self.verbs:
            return False
        if group not in self.groups and ALL not in self.groups:
            return False
        _, _, sub = resource.partition("/")
        if (
            resource not in self.resources
            and ALL not in self.resources
            and (not sub or f"*/{sub}" not in self.resources)
        ):
            return False
        return not self.names or (name is not None and name in self.names)

    def covers_url(self, verb: str, url: str) -> bool:
        if verb not in self.verbs and ALL not in self.verbs:
            return False
        return any(url == own or (own.endswith("*") and url.startswith(own[:-1])) for own in self.urls)


def _url_matches(pattern: str, path: str) -> bool:
    return pattern == path or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def compile_rules(rules: Iterable[Mapping[str, Any]] | None) -> tuple[Rule, ...]:
    return tuple(Rule(r) for r in rules or ())


def uncovered(owner: Sequence[Rule], claims: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The smallest parts of ``claims`` that ``owner`` does not grant: what would be an escalation."""
    missing: list[dict[str, Any]] = []
    for rule in claims:
        for verb in rule.get("verbs") or ():
            for url in rule.get("nonResourceURLs") or ():
                if not any(o.covers_url(verb, url) for o in owner):
                    missing.append({"verbs": [verb], "nonResourceURLs": [url]})
            for group in rule.get("apiGroups") or ():
                for resource in rule.get("resources") or ():
                    for name in rule.get("resourceNames") or (None,):
                        if any(o.covers(verb, group, resource, name) for o in owner):
                            continue
                        part: dict[str, Any] = {"verbs": [verb], "apiGroups": [group], "resources": [resource]}
                        if name is not None:
                            part["resourceNames"] = [name]
                        missing.append(part)
    return missing
