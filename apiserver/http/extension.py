"""Handlers of groups and versions that the registry does not serve: another API server, or a part of this one."""

from __future__ import annotations

from typing import Any, Protocol

from apiserver.request import Context
from apiserver.wire.asgi import Request

Tree = dict[str, Any]
GroupVersion = tuple[str, str]
CURRENT, STALE = "Current", "Stale"


class Extension(Protocol):
    """Answers every request below /apis/GROUP/VERSION."""

    async def handle(self, request: Request, context: Context) -> None:
        """One request that is authenticated and authorized."""
        ...

    def discovered(self) -> Tree:
        """Its version in the aggregated discovery document: ``version``, ``resources``, ``freshness``."""
        ...

    def openapi_url(self) -> str:
        """The serverRelativeURL of its OpenAPI v3 document, "" if it has none."""
        ...

    def openapi_v2(self) -> tuple[str, Tree]:
        """A hash, and the ``paths`` and ``definitions`` that it adds to the OpenAPI v2 document; {} if nothing."""
        ...

    async def openapi(self, request: Request) -> None:
        """Answers a request for that document."""
        ...


def aggregated_of(resource_list: Tree, version: str, group: str) -> Tree:
    """The aggregated form of a legacy APIResourceList."""
    resources: dict[str, Tree] = {}
    subresources: list[tuple[str, str, Tree]] = []
    for one in resource_list.get("resources") or ():
        kind = {
            "group": one.get("group") or group,
            "version": one.get("version") or version,
            "kind": one.get("kind", ""),
        }
        name, slash, sub = str(one.get("name", "")).partition("/")
        if slash:
            entry = {"subresource": sub, "responseKind": kind, "verbs": list(one.get("verbs") or ())}
            subresources.append((name, sub, entry))
            continue
        tree: Tree = {
            "resource": name, "responseKind": kind, "scope": "Namespaced" if one.get("namespaced") else "Cluster",
            "singularResource": one.get("singularName") or "", "verbs": list(one.get("verbs") or ()),
        }  # fmt: skip
        for field in ("shortNames", "categories"):
            if one.get(field):
                tree[field] = list(one[field])
        resources[name] = tree
    for name, _, entry in subresources:
        if name in resources:
            resources[name].setdefault("subresources", []).append(entry)
    return {"version": version, "resources": list(resources.values()), "freshness": CURRENT}
