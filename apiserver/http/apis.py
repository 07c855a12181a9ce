"""The servers of each group and version, and the discovery document of all of them."""

from __future__ import annotations

from collections.abc import Mapping

from apiserver.http.discovery import Discovery, entries
from apiserver.http.extension import Extension, GroupVersion
from apiserver.http.priorities import Priorities
from apiserver.registry.resources import Resources
from apiserver.registry.subresources import Endpoints
from apiserver.request import RequestInfo
from navarch.api.kinds import Kind

Subresource = tuple[str, str, str]  # group, resource, subresource


class APIs:
    """``streams``: kind and verbs of log, exec and the like. ``extensions``: who answers for a group and version in place
    of our own resources."""

    def __init__(
        self, resources: Resources, endpoints: Endpoints, streams: Mapping[Subresource, tuple[Kind, tuple[str, ...]]]
    ) -> None:
        self.resources, self.endpoints, self._streams = resources, endpoints, streams
        self.extensions: dict[GroupVersion, Extension] = {}
        self._priorities: Priorities = {}
        self._discovery: Discovery | None = None
        resources.changed.append(self._forget)

    def _forget(self) -> None:
        self._discovery = None

    def aggregate(self, extensions: Mapping[GroupVersion, Extension], priorities: Priorities) -> None:
        """From now on these answer for their groups and versions, and discovery is in this order."""
        self.extensions, self._priorities = dict(extensions), priorities
        self._forget()

    def is_listed(self, info: RequestInfo) -> bool:
        """Whether discovery has the resource of a request, and the subresource if it names one."""
        for entry in self.discovery.groups.get(info.group, {}).get(info.version, ()):
            if entry.kind.resource == info.resource:
                return not info.subresource or any(sub.name == info.subresource for sub in entry.subs)
        return False

    @property
    def discovery(self) -> Discovery:
        if self._discovery is None:
            streams = {key: value for key, value in self._streams.items() if self.resources.is_built_in(key[:2])}
            own = entries(self.resources.all(), self.endpoints, streams)
            others = {key: extension.discovered() for key, extension in self.extensions.items()}
            self._discovery = Discovery(own, others, self._priorities)
        return self._discovery
