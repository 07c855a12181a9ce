"""A store that encrypts what it writes and decrypts what it reads; all above it sees plain values.

Values that an older key, or none, has written stay readable. ``stale`` tells of them, so that writing an object as it
is encrypts it anew (``kubectl get secrets -A -o json | kubectl replace -f -``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from apiserver.encryption.configuration import Rule
from apiserver.encryption.providers import DecryptError, Identity
from apiserver.storage.encrypted import ENCRYPTED, named
from apiserver.storage.store import Batch, Compare, KeyValue, Page, Put, Store, StoreEvent, TxnResult, Unreadable

_NONE = Rule((), (Identity(),))


class EncryptedStore:
    """``source``: the name of the configuration, for messages."""

    def __init__(self, store: Store, rules: Sequence[Rule], source: str = "") -> None:
        self.store, self.kind, self.source = store, store.kind, source
        self._rules = tuple(rules)
        self._resources: dict[str, tuple[str, str]] = {}
        self._rule_by_prefix: dict[str, Rule] = {}
        self._stale: dict[str, None] = {}

    def serves(self, resources: Mapping[str, tuple[str, str]]) -> None:
        """Of built-in kinds the prefix of their keys -> (group, resource); of others the key itself tells."""
        self._resources.update(resources)

    def needs_rewrite(self, key: str) -> bool:
        """Whether the value of a key would be encrypted otherwise if it was written now."""
        return key in self._stale

    # Values

    def _rule(self, key: str) -> Rule:
        second = key.find("/", 10)
        prefix = key[: second + 1]
        if "." in prefix:  # of a custom resource: /registry/GROUP/RESOURCE/
            prefix = key[: key.find("/", second + 1) + 1]
        rule = self._rule_by_prefix.get(prefix)
        if rule is None:
            group, resource = self._resources.get(prefix, ("", ""))
            if not resource and prefix.count("/") == 4:
                _, _, group, resource, _ = prefix.split("/")
            rule = next((r for r in self._rules if r.covers(group, resource)), _NONE) if resource else _NONE
            self._rule_by_prefix[prefix] = rule
        return rule

    def _sealed(self, put: Put) -> Put:
        rule = self._rule(put.key)
        if rule is _NONE:
            return put
        return put._replace(value=rule.providers[0].encrypt(put.value, put.key.encode()))

    def _opened(self, key: str, value: bytes, past: bool = False) -> bytes:
        """``past``: there may be a newer value. Raises Unreadable."""
        rule = self._rule(key)
        encrypted = value.startswith(ENCRYPTED)
        for number, provider in enumerate(rule.providers):
            if not (value.startswith(provider.prefix) if provider.prefix else not encrypted):
                continue
            try:
                plain = provider.decrypt(value, key.encode())
            except DecryptError as error:
                raise Unreadable(self._why(key, value, str(error))) from None
            if number:
                self._stale[key] = None
            elif not past:
                self._stale.pop(key, None)
            return plain
        raise Unreadable(self._why(key, value, ""))

    def _why(self, key: str, value: bytes, error: str) -> str:
        where = f" in {self.source}" if self.source else ""
        if not value.startswith(ENCRYPTED):
            return (f"{key} is not encrypted, and the providers of its resource{where} read encrypted values only: add "
                    "'identity: {}' as the last provider until all objects have been written again")  # fmt: skip
        if error:
            return (f"{key} is encrypted with {named(value)}, and that key{where} does not open it ({error}): the secret "
                    "of that name is another one, or the value was changed in the store")  # fmt: skip
        return (f"{key} is encrypted with {named(value)}, which is not among the providers of its resource{where}: add "
                "that key behind the first provider, so that it still reads")  # fmt: skip

    # The store's protocol

    async def get(self, key: str) -> tuple[KeyValue | None, int]:
        item, revision = await self.store.get(key)
        if item is not None:
            item = item._replace(value=self._opened(key, item.value))
        return item, revision

    async def list(self, prefix: str, *, start_after: str = "", revision: int = 0, limit: int = 0) -> Page:
        page = await self.store.list(prefix, start_after=start_after, revision=revision, limit=limit)
        return page._replace(items=[kv._replace(value=self._opened(kv.key, kv.value, past=True)) for kv in page.items])

    def earlier(self, revision: int, writes: int) -> int:
        return self.store.earlier(revision, writes)

    async def txn(
        self, compares: Sequence[Compare], puts: Sequence[Put] = (), deletes: Sequence[str] = ()
    ) -> TxnResult:
        return await self.store.txn(compares, [self._sealed(put) for put in puts], deletes)

    async def watch(self, prefix: str, from_revision: int, *, previous: bool = True) -> AsyncIterator[Batch]:
        async for batch in self.store.watch(prefix, from_revision, previous=previous):
            yield Batch([self._event(event) for event in batch.events], batch.revision)

    def _event(self, event: StoreEvent) -> StoreEvent:
        before, value = event.previous, event.value
        if before is not None:
            before = self._opened(event.key, before)
        if value is None:
            self._stale.pop(event.key, None)
        else:
            value = self._opened(event.key, value)
        return event._replace(value=value, previous=before)

    async def compact(self, revision: int) -> None:
        await self.store.compact(revision)

    async def current_revision(self) -> int:
        return await self.store.current_revision()

    def known_revision(self) -> int | None:
        return self.store.known_revision()

    async def check(self) -> None:
        await self.store.check()

    @property
    def on_rewind(self) -> Callable[[], None]:
        return self.store.on_rewind

    @on_rewind.setter
    def on_rewind(self, call: Callable[[], None]) -> None:
        self.store.on_rewind = call

    async def close(self) -> None:
        await self.store.close()
