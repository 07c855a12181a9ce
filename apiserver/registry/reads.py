"""The reading verbs for any kind: get, list and watch, all from the watch cache.

"Most recent" (no resourceVersion) waits until the cache has seen everything that the store has acknowledged; "0" takes
what is there; a number waits for that revision. Only a list at an exact, older revision goes to the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, NamedTuple

import orjson

from apiserver.cache.cache import Cache, Entry, Extract, Listing, Watcher, extract_fields, extract_metadata
from apiserver.cache.history import Event
from apiserver.offload import Offload
from apiserver.registry import paging
from apiserver.registry.convertedobjects import Converted, ConvertedEvents
from apiserver.registry.options import EXACT, ListOptions, parse_revision
from apiserver.registry.strategy import Strategy, Tree
from apiserver.request import Admission, Authorize
from apiserver.storage.store import Compacted, FutureRevision, Store
from navarch.api.errors import BadRequest, Expired, StatusError, Timeout, resource_not_found
from navarch.api.selectors import FieldSelector
from navarch.world import World


@dataclass
class Backend:
    """The parts that every resource works with."""

    world: World
    store: Store
    cache: Cache
    admission: Admission
    authorize: Authorize = lambda user, info: (True, "")  # asked again where a change creates
    needs_rewrite: Callable[[str], bool] | None = None  # of a key: is it written even if nothing changes?
    offload: Offload = attribute(init=False)

    def __post_init__(self) -> None:
        self.offload = Offload(self.world)


class ListResult(NamedTuple):
    """A page of encoded objects. ``remaining`` is None where it is not known or not told."""

    items: list[bytes]
    revision: int
    token: str = ""
    remaining: int | None = None


def extract(strategy: Strategy) -> Extract:
    """How the cache reads the labels and selectable fields of a kind."""
    if not strategy.selectable_fields:
        return extract_metadata
    return extract_fields(strategy.fields, strategy.selectable_fields if strategy.codec.same else ())


class Reads:
    """See the module. ``data`` of entries is the stored shape; :meth:`render` gives the served one."""

    def __init__(self, backend: Backend, strategy: Strategy) -> None:
        self.backend, self.world, self.store = backend, backend.world, backend.store
        self.cache, self.admission = backend.cache, backend.admission
        self.strategy = strategy
        self.kind = strategy.kind
        self.group = self.kind.group
        self.resource = self.kind.resource
        self.prefix = strategy.prefix
        self.schema = strategy.schema
        self.codec = strategy.codec
        webhook = self.codec.webhook
        self.converted = Converted(strategy, webhook) if webhook is not None else None

    def render(self, entry: Entry) -> bytes:
        """The entry's object as clients see it."""
        return self.codec.served(entry.data, entry.revision)

    def frame(self, event: Event) -> bytes:
        """A watch event (no bookmark) as a line of JSON."""
        if self.codec.same:
            return event.frame
        assert event.entry is not None
        data = self.codec.served(event.entry.data, event.entry.revision)
        return event.frame if data is event.entry.data else b'{"type":"%b","object":%b}\n' % (event.type.encode(), data)

    def not_found(self, name: str) -> StatusError:
        return resource_not_found(self.resource, self.group, name)

    async def get(self, namespace: str, name: str, resource_version: str = "") -> bytes:
        """The object's JSON. Raises NotFound, Timeout for a revision of the future."""
        await self._reach(resource_version)
        entry = self.cache.get(self.prefix, namespace, name)
        if entry is None:
            raise self.not_found(name)
        if self.converted is not None:
            entry = (await self.converted.entries([entry], fresh=True))[0]
        return self.render(entry)

    async def get_tree(self, namespace: str, name: str) -> Tree:
        """The most recent state as a tree of one's own. Raises NotFound."""
        tree: Tree = orjson.loads(await self.get(namespace, name))
        return tree

    def cached(self, namespace: str, name: str) -> Tree | None:
        """The object that the cache has at this moment, without waiting; None if it has none."""
        entry = self.cache.get(self.prefix, namespace, name)
        return None if entry is None else self.codec.served_tree(entry.tree())

    async def _reach(self, resource_version: str) -> int:
        """Waits for what a read with this resourceVersion may see."""
        if resource_version == "0":
            await self.cache.wait_ready()
            return self.cache.revision
        try:
            return await self.cache.current(parse_revision(resource_version) if resource_version else None)
        except FutureRevision as error:
            raise too_large(str(error)) from None

    def check_fields(self, options: ListOptions) -> None:
        """Raises BadRequest for a field selector that the kind does not support."""
        for field in options.fields.fields:
            if field == "metadata.name" or (field == "metadata.namespace" and self.kind.namespaced):
                continue
            if field in self.strategy.selectable_fields:
                continue
            if self.strategy.selectable_fields:
                why = f"field label not supported: {field}"
            else:
                why = f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'
            shown = f"{self.group}/{self.kind.version}, Resource={self.resource}"
            raise BadRequest(
                f'Unable to find "{shown}" that match label selector "{options.labels}", '
                f'field selector "{options.fields}": {why}'
            )

    async def list(self, namespace: str, options: ListOptions) -> ListResult:
        """A page of the collection; ``namespace`` "" is all of them."""
        options.check_list()
        self.check_fields(options)
        fields = options.fields
        after = self.converted is not None and self._custom_fields(fields)
        where: dict[str, Any] = {
            "labels": None if options.labels.empty else options.labels,
            "fields": None if fields.empty or after else fields,
            "limit": options.limit,
        }
        version = options.resource_version
        if options.continue_:
            if version not in ("", "0"):
                raise BadRequest("specifying resource version is not allowed when using continue")
            position = paging.decode(options.continue_, namespace)
            where["start_after"] = position.after
            if position.revision == paging.ANY_REVISION:
                await self._reach("")
                page = self.cache.list(self.prefix, namespace or None, **where)
            else:
                page = await self._list_at(namespace, position.revision, where, position)
        elif version not in ("", "0") and (
            options.resource_version_match == EXACT or (options.limit and not options.resource_version_match)
        ):
            page = await self._list_at(namespace, parse_revision(version), where, None)
        else:
            await self._reach(version)
            if self.converted is None:
                return self.list_now(namespace, options)
            page = self.cache.list(self.prefix, namespace or None, **where)
        entries = page.entries
        if self.converted is not None:
            entries = await self.converted.entries(entries)
            if after:
                entries = [e for e in entries if fields.matches(self.converted.values(e))]
        return self._result(page, entries, options)

    def list_now(self, namespace: str, options: ListOptions) -> ListResult:
        """A first page of what the cache has at this moment; not of a kind that a webhook converts."""
        labels, fields = options.labels, options.fields
        if one := self._one(namespace, fields):
            entry = self.cache.get(self.prefix, *one)
            matches = entry is not None and labels.matches(entry.labels) and fields.matches(_field_values(entry))
            return ListResult([self.render(entry)] if entry and matches else [], self.cache.revision)
        page = self.cache.list(
            self.prefix, namespace or None, labels=None if labels.empty else labels,
            fields=None if fields.empty else fields, limit=options.limit,
        )  # fmt: skip
        return self._result(page, page.entries, options)

    def _result(self, page: Listing, entries: Sequence[Entry], options: ListOptions) -> ListResult:
        items = [e.data for e in entries] if self.codec.same else [self.render(e) for e in entries]
        if not page.more:
            return ListResult(items, page.revision)
        token = paging.encode(paging.Position(page.revision, page.entries[-1].key))
        everything = options.labels.empty and options.fields.empty
        return ListResult(items, page.revision, token, page.remaining if everything else None)

    @staticmethod
    def _custom_fields(fields: FieldSelector) -> bool:
        """Whether a selector asks for more than name and namespace."""
        return any(f not in ("metadata.name", "metadata.namespace") for f in fields.fields)

    def _one(self, namespace: str, fields: FieldSelector) -> tuple[str, str] | None:
        """The one object that a field selector leaves, without looking at all of them."""
        if fields.empty or "metadata.name" not in fields.exact:
            return None
        if self.kind.namespaced:
            namespace = namespace or fields.exact.get("metadata.namespace", "")
            return (namespace, fields.exact["metadata.name"]) if namespace else None
        return "", fields.exact["metadata.name"]

    async def _list_at(self, namespace: str, revision: int, where: dict[str, Any], position: paging.Position | None) -> Any:
        try:
            return await self.cache.list_at(self.prefix, revision, namespace or None, **where)
        except Compacted:
            if position is not None:
                raise paging.ExpiredPage(position) from None
            raise Expired("The resourceVersion for the provided list is too old.") from None
        except FutureRevision as error:
            raise too_large(str(error)) from None

    async def watch(self, namespace: str, name: str, options: ListOptions) -> Watcher:
        """The events that the options select; close the watcher when done. Raises Expired for a lost past."""
        options.check_watch()
        self.check_fields(options)
        fields = options.fields
        version, initial = options.resource_version, options.send_initial_events
        from_revision: int | None = None
        if initial:
            await self._reach(version)
        elif version in ("", "0"):
            await self._reach(version)
            if initial is False:
                from_revision = self.cache.revision
        else:
            await self.cache.wait_ready()
            from_revision = parse_revision(version)
            if from_revision > self.cache.revision:
                try:
                    await self.cache.current(from_revision)
                except FutureRevision:  # of a store that was emptied since: waiting would be silence
                    raise Expired(f"no such resource version: {from_revision} ({self.cache.revision})") from None
        after = self.converted is not None and self._custom_fields(fields)
        return self.cache.watch(
            self.prefix,
            namespace or None,
            name or None,
            labels=None if options.labels.empty else options.labels,
            fields=None if fields.empty or after else fields,
            from_revision=from_revision,
            bookmarks=options.allow_bookmarks,
            initial_end=bool(initial),
        )


    async def converted_events(self, namespace: str, options: ListOptions) -> ConvertedEvents | None:
        """The converter of a watch's events into the served version; None if nobody has to be asked for it."""
        if self.converted is None:
            return None
        if not self._custom_fields(options.fields):
            return ConvertedEvents(self.converted, None, ())
        version = options.resource_version
        keys: list[str] = []
        if not options.send_initial_events and (version not in ("", "0") or options.send_initial_events is False):
            # The client has listed before: it knows what matched at that revision.
            revision = parse_revision(version) if version not in ("", "0") else self.cache.revision
            page = await self._list_at(namespace, revision, {}, None)
            entries = await self.converted.entries(page.entries)
            keys = [e.key for e in entries if options.fields.matches(self.converted.values(e))]
        return ConvertedEvents(self.converted, options.fields.matches, keys)


def _field_values(entry: Entry | None) -> dict[str, str]:
    if entry is None:
        return {}
    return {"metadata.name": entry.name, "metadata.namespace": entry.namespace, **entry.fields}


def too_large(message: str) -> Timeout:
    """A revision that the server has not reached (yet)."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return Timeout(message, {"causes": [cause], "retryAfterSeconds": 1})


