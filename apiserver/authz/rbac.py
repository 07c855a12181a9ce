"""RBAC: from cached roles and bindings, indexed by subject, so that a decision costs what its user's bindings cost."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

from apiserver.authz.follower import Follower
from apiserver.authz.rules import Rule, compile_rules
from apiserver.cache.cache import Cache
from apiserver.request import RequestInfo, User
from navarch.api.selectors import selector_matches

Tree = dict[str, Any]
SERVICE_ACCOUNT = "system:serviceaccount:"


_Subject = tuple[str, str, str]  # ("user" or "group", name, the binding's namespace or "")


class _Grant(NamedTuple):
    """One binding as seen from a subject: ``namespace`` "" holds everywhere."""

    namespace: str
    binding: str
    role_namespace: str  # "" for a ClusterRole
    role: str


class _Role(NamedTuple):
    rules: tuple[Rule, ...]
    raw: list[Tree]
    labels: dict[str, str]
    aggregation: list[Tree] | None


class Rbac:
    """Reads Roles, ClusterRoles and their bindings from the cache."""

    def __init__(self, cache: Cache) -> None:
        self._roles: dict[tuple[str, str], _Role] = {}
        self._grants: dict[_Subject, dict[_Grant, None]] = {}  # in the order in which they came
        self._bindings: dict[tuple[str, str], list[tuple[_Subject, _Grant]]] = {}
        self._aggregated: dict[str, tuple[Rule, ...]] = {}  # of aggregated roles; emptied when any role changes
        self._generation = 0
        self._followers = [
            Follower(cache, f"/registry/{resource}/", put, drop, functools.partial(forget, cluster))
            for resource, cluster, put, drop, forget in (
                ("roles", False, self._put_role, self._drop_role, self._forget_roles),
                ("clusterroles", True, self._put_role, self._drop_role, self._forget_roles),
                ("rolebindings", False, self._put_binding, self._drop_binding, self._forget_bindings),
                ("clusterrolebindings", True, self._put_binding, self._drop_binding, self._forget_bindings),
            )
        ]

    # Questions

    @property
    def generation(self) -> int:
        """A number that changes whenever an answer may."""
        self._catch_up()
        return self._generation

    def every_name(self, user: User, info: RequestInfo) -> bool:
        """Whether the user may do this to all objects, whatever their names."""
        return any(not rule.names and rule.allows(info) for rule in self.rules_for(user, info.namespace))

    def authorize(self, user: User, info: RequestInfo) -> tuple[bool, str]:
        """(allowed, reason): the binding that allows, or what was wrong on the way."""
        missing: list[str] = []
        namespace = info.namespace if info.is_resource else ""
        for grant in self._grants_of(user, namespace):
            rules = self._rules_of(grant)
            if rules is None:
                kind = "role" if grant.role_namespace else "clusterrole"
                missing.append(f'{kind}.rbac.authorization.k8s.io "{grant.role}" not found')
                continue
            for rule in rules:
                if rule.allows(info):
                    return True, f'RBAC: allowed by {self._shown(grant)} to user "{user.name}"'
        return False, f"RBAC: {', '.join(dict.fromkeys(missing))}" if missing else ""

    def rules_for(self, user: User, namespace: str) -> list[Rule]:
        """All rules that hold for the user in the namespace."""
        out: list[Rule] = []
        for grant in self._grants_of(user, namespace):
            out += self._rules_of(grant) or ()
        return out

    def role_rules(self, namespace: str, name: str) -> list[Tree] | None:
        """The rules that a Role, or a ClusterRole (namespace ""), grants; None if there is no such role."""
        self._catch_up()
        role = self._roles.get((namespace, name))
        if role is None:
            return None
        return role.raw if role.aggregation is None else self._aggregate(name)

    def _grants_of(self, user: User, namespace: str) -> Iterator[_Grant]:
        self._catch_up()
        subjects = [("user", user.name), *(("group", g) for g in user.groups)]
        for scope in ("", namespace) if namespace else ("",):
            for kind, name in subjects:
                yield from self._grants.get((kind, name, scope), ())

    def _rules_of(self, grant: _Grant) -> tuple[Rule, ...] | None:
        role = self._roles.get((grant.role_namespace, grant.role))
        if role is None:
            return None
        if role.aggregation is None:
            return role.rules
        rules = self._aggregated.get(grant.role)
        if rules is None:
            rules = self._aggregated[grant.role] = compile_rules(self._aggregate(grant.role))
        return rules

    def _aggregate(self, name: str) -> list[Tree]:
        """An aggregated ClusterRole grants what the ClusterRoles grant that its selectors choose, each rule once."""
        out: list[Tree] = []
        visits, todo = {name}, [name]
        while todo:
            role = self._roles["", todo.pop(0)]
            if role.aggregation is None:
                out += [r for r in role.raw if r not in out]
                continue
            for (namespace, other), candidate in sorted(self._roles.items(), key=lambda item: item[0]):
                chosen = not namespace and any(selector_matches(s, candidate.labels) for s in role.aggregation)
                if chosen and other not in visits:
                    visits.add(other)
                    todo.append(other)
        return out

    def aggregated(self) -> dict[str, list[Tree]]:
        """The rules that each aggregated ClusterRole ought to have, where they differ from what is written."""
        self._catch_up()
        aggregates = {n: self._aggregate(n) for (ns, n), r in self._roles.items() if not ns and r.aggregation is not None}
        return {name: rules for name, rules in aggregates.items() if rules != self._roles["", name].raw}

    def _shown(self, grant: _Grant) -> str:
        kind, role = "ClusterRoleBinding" if not grant.namespace else "RoleBinding", grant.role
        of = "Role" if grant.role_namespace else "ClusterRole"
        where = f"{grant.binding}/{grant.namespace}" if grant.namespace else grant.binding
        return f'{kind} "{where}" of {of} "{role}"'

    # Following

    def _catch_up(self) -> None:
        for follower in self._followers:
            follower.catch_up()

    def close(self) -> None:
        for follower in self._followers:
            follower.close()

    def _put_role(self, obj: Tree) -> None:
        self._generation += 1
        metadata = obj["metadata"]
        key = metadata.get("namespace", ""), metadata["name"]
        selectors = (obj.get("aggregationRule") or {}).get("clusterRoleSelectors")
        raw = obj.get("rules") or []
        self._roles[key] = _Role(compile_rules(raw), raw, metadata.get("labels") or {}, selectors)
        self._aggregated = {}

    def _drop_role(self, obj: Tree) -> None:
        self._generation += 1
        metadata = obj["metadata"]
        self._roles.pop((metadata.get("namespace", ""), metadata["name"]), None)
        self._aggregated = {}

    def _forget_roles(self, cluster: bool) -> None:
        self._generation += 1
        self._roles = {k: v for k, v in self._roles.items() if bool(k[0]) == cluster}
        self._aggregated = {}

    def _put_binding(self, obj: Tree) -> None:
        self._drop_binding(obj)
        metadata, reference = obj["metadata"], obj.get("roleRef") or {}
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        of = namespace if reference.get("kind") == "Role" else ""
        grant = _Grant(namespace, name, of, reference.get("name", ""))
        keys = self._bindings[namespace, name] = []
        for subject in obj.get("subjects") or ():
            match subject.get("kind"):
                case "User":
                    key = "user", subject.get("name", ""), namespace
                case "Group":
                    key = "group", subject.get("name", ""), namespace
                case "ServiceAccount":
                    account = f"{subject.get('namespace') or namespace}:{subject.get('name', '')}"
                    key = "user", SERVICE_ACCOUNT + account, namespace
                case _:
                    continue
            self._grants.setdefault(key, {})[grant] = None
            keys.append((key, grant))

    def _drop_binding(self, obj: Tree) -> None:
        metadata = obj["metadata"]
        self._unhold((metadata.get("namespace", ""), metadata["name"]))

    def _unhold(self, binding: tuple[str, str]) -> None:
        self._generation += 1
        for key, grant in self._bindings.pop(binding, ()):
            grants = self._grants.get(key)
            if grants is not None:
                grants.pop(grant, None)
                if not grants:
                    del self._grants[key]

    def _forget_bindings(self, cluster: bool) -> None:
        self._generation += 1
        for key in [k for k in self._bindings if bool(k[0]) != cluster]:
            self._unhold(key)
