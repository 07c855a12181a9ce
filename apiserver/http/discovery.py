"""Discovery: what groups, versions and resources there are, in the legacy form and in the aggregated one."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apiserver.http.priorities import Priorities, ordered
from apiserver.registry.resource import Resource
from apiserver.registry.scale import SCALE
from apiserver.registry.subresources import Endpoints
from navarch.api.kinds import Kind

Tree = dict[str, Any]

AGGREGATED = "apidiscovery.k8s.io"
AGGREGATED_KIND = "APIGroupDiscoveryList"


class Sub:
    """A subresource as discovery tells it."""

    def __init__(self, name: str, kind: Kind, verbs: Sequence[str]) -> None:
        self.name, self.kind, self.verbs = name, kind, sorted(verbs)


class Entry:
    """A resource as discovery tells it."""

    def __init__(self, kind: Kind, verbs: Sequence[str], subs: Sequence[Sub], stored: str = "") -> None:
        """``stored``: group/version/Kind in which its objects are stored, "" if none are."""
        self.kind, self.verbs, self.subs = kind, sorted(verbs), sorted(subs, key=lambda s: s.name)
        self.stored = stored


def entries(
    resources: Iterable[Resource], endpoints: Endpoints, streams: Mapping[tuple[str, str, str], tuple[Kind, tuple[str, ...]]]
) -> list[Entry]:
    """Everything served, in order of resource name. ``streams``: kind and verbs of log, exec and the like."""
    out = []
    custom = set()
    resources = list(resources)
    stored = {r.prefix: storage_of(r) for r in resources if r.strategy.codec.same}
    for resource in resources:
        kind, strategy = resource.kind, resource.strategy
        at = (kind.group, kind.resource)
        custom.add(at)
        subs: dict[str, Sub] = {}
        if strategy.has_status:
            for word in strategy.status_subresources:
                subs[word] = Sub(word, kind, ("get", "patch", "update"))
        for part in strategy.part_subresources:
            subs[part] = Sub(part, kind, ("get", "patch", "update"))
        if strategy.scale_path:
            subs["scale"] = Sub("scale", SCALE, ("get", "patch", "update"))
        for key, endpoint in endpoints.items():
            if key[:2] == at and key.subresource:
                verbs = [k.verb for k in endpoints if k[:3] == key[:3]]
                subs[key.subresource] = Sub(key.subresource, endpoint.kind, verbs)
        for (group, name, subresource), (sub_kind, verbs_) in streams.items():
            if (group, name) == at:
                subs[subresource] = Sub(subresource, sub_kind, verbs_)
        written = stored.get(resource.prefix) or storage_of(resource)
        out.append(Entry(kind, strategy.verbs, list(subs.values()), written))
    for key, endpoint in endpoints.items():
        if not key.subresource and key[:2] not in custom:
            out.append(Entry(endpoint.kind, (key.verb,), ()))
    return sorted(out, key=lambda e: e.kind.resource)


def storage_of(resource: Resource) -> str:
    """Group, version and kind in which a resource's objects are stored."""
    kind = resource.kind
    return f"{resource.strategy.stored or f'{kind.group}/{kind.version}'}/{kind.kind}"


def storage_version_hash(stored: str) -> str:
    """As upstream computes it; clients see by it that objects have to be written again."""
    return base64.b64encode(hashlib.sha256(stored.encode()).digest()[:8]).decode()


class Discovery:
    """The documents, made again when what is served changes.

    ``others``: what other servers serve in our place, (group, version) -> their version in the aggregated document.
    """

    def __init__(
        self, served: list[Entry], others: Mapping[tuple[str, str], Tree] | None = None, priorities: Priorities | None = None
    ) -> None:
        self.others = others or {}
        grouped: dict[tuple[str, str], list[Entry]] = {}
        for entry in served:
            grouped.setdefault((entry.kind.group, entry.kind.version), []).append(entry)
        self.versions = ordered(dict.fromkeys([*grouped, *self.others]), priorities or {})
        self.groups = {
            group: {v: grouped[group, v] for v in versions if (group, v) in grouped and (group, v) not in self.others}
            for group, versions in self.versions.items()
        }
        """Groups and versions that this server answers itself."""

    def api_versions(self) -> Tree:
        """GET /api."""
        return {
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        }

    def group_list(self) -> Tree:
        """GET /apis."""
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._group(g) for g in self._names()]}

    def _names(self) -> list[str]:
        return [g for g in self.versions if g]

    def group(self, name: str) -> Tree | None:
        """GET /apis/GROUP."""
        if not name or name not in self.versions:
            return None
        return {"kind": "APIGroup", "apiVersion": "v1"} | self._group(name)

    def _group(self, name: str) -> Tree:
        versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in self.versions[name]]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def resources(self, group: str, version: str) -> Tree | None:
        """GET /api/v1 and /apis/GROUP/VERSION."""
        entries_ = self.groups.get(group, {}).get(version)
        if entries_ is None:
            return None
        listed: list[Tree] = []
        for entry in entries_:
            kind = entry.kind
            one: Tree = {
                "name": kind.resource, "singularName": kind.singular_name, "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": entry.verbs,
            }  # fmt: skip
            if kind.short_names:
                one["shortNames"] = list(kind.short_names)
            if kind.categories:
                one["categories"] = list(kind.categories)
            if entry.stored:
                one["storageVersionHash"] = storage_version_hash(entry.stored)
            listed.append(one)
            for sub in entry.subs:
                item: Tree = {
                    "name": f"{kind.resource}/{sub.name}", "singularName": "", "namespaced": kind.namespaced,
                    "kind": sub.kind.kind, "verbs": sub.verbs,
                }  # fmt: skip
                if (sub.kind.group, sub.kind.version) != (group, version):
                    item |= {"group": sub.kind.group, "version": sub.kind.version}
                listed.append(item)
        name = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}

    def aggregated(self, core: bool, version: str) -> Tree:
        """GET /api (``core``) and /apis as one document; ``version`` is v2 or v2beta1."""
        items = [self._aggregated_group(g) for g in ([""] if core else self._names()) if g in self.versions]
        return {"kind": AGGREGATED_KIND, "apiVersion": f"{AGGREGATED}/{version}", "metadata": {}, "items": items}

    def _aggregated_group(self, group: str) -> Tree:
        versions = []
        for version in self.versions[group]:
            if (group, version) in self.others:
                versions.append(self.others[group, version])
                continue
            entries_ = self.groups[group][version]
            resources = []
            for entry in entries_:
                kind = entry.kind
                one: Tree = {
                    "resource": kind.resource,
                    "responseKind": _gvk(kind),
                    "scope": "Namespaced" if kind.namespaced else "Cluster",
                    "singularResource": kind.singular_name,
                    "verbs": entry.verbs,
                }
                if kind.short_names:
                    one["shortNames"] = list(kind.short_names)
                if kind.categories:
                    one["categories"] = list(kind.categories)
                if entry.subs:
                    one["subresources"] = [
                        {"subresource": s.name, "responseKind": _gvk(s.kind), "verbs": s.verbs} for s in entry.subs
                    ]
                resources.append(one)
            versions.append({"version": version, "resources": resources, "freshness": "Current"})
        return {"metadata": {"name": group} if group else {}, "versions": versions}


def _gvk(kind: Kind) -> Tree:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}


def aggregated_content_type(version: str) -> bytes:
    return f"application/json;g={AGGREGATED};v={version};as={AGGREGATED_KIND}".encode()
