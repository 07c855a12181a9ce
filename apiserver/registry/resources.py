"""All kinds that are served at this moment: those of the catalog, and the custom ones that come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from apiserver.registry.reads import Backend
from apiserver.registry.resource import Resource
from apiserver.registry.strategy import Strategy
from apiserver.request import RequestInfo

GroupResource: TypeAlias = tuple[str, str]
GroupVersionResource: TypeAlias = tuple[str, str, str]


class Resources:
    """``resources[group, plural]`` is the kind in its preferred version.

    ``served``: every served version by (group, version, plural). ``changed``: called when custom kinds came or went.
    """

    def __init__(self, backend: Backend, strategies: Mapping[GroupResource, Strategy]) -> None:
        self.backend = backend
        self._built_in = {key: Resource(backend, strategy) for key, strategy in strategies.items()}
        self._custom: dict[GroupResource, list[Resource]] = {}  # all served versions, the preferred one first
        self.served: dict[GroupVersionResource, Resource] = {
            (r.group, r.kind.version, r.resource): r for r in self._built_in.values()
        }
        self.changed: list[Callable[[], None]] = []

    def __getitem__(self, key: GroupResource) -> Resource:
        """Raises KeyError if the kind is not served."""
        if key in self._custom:
            return self._custom[key][0]
        return self._built_in[key]

    def all(self) -> list[Resource]:
        """In every version; built-in kinds first."""
        return [*self._built_in.values(), *(r for versions in self._custom.values() for r in versions)]

    def is_built_in(self, key: GroupResource) -> bool:
        return key in self._built_in

    def is_served(self, info: RequestInfo) -> bool:
        """Whether the resource that a request names is there at this moment."""
        return (info.group, info.version, info.resource) in self.served

    def serve_custom(self, key: GroupResource, versions: Sequence[Resource]) -> None:
        """Serves these versions of a custom kind from now on; none ends it."""
        for old in self._custom.pop(key, ()):
            self.served.pop((old.group, old.kind.version, old.resource), None)
        if versions:
            self._custom[key] = list(versions)
            self.served |= {(r.group, r.kind.version, r.resource): r for r in versions}
        for call in self.changed:
            call()

    def custom_versions(self) -> list[tuple[str, str]]:
        """Every (group, version) in which custom kinds are served."""
        return list(dict.fromkeys((r.group, r.kind.version) for versions in self._custom.values() for r in versions))
