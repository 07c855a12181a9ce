"""Bytes of the API to objects and back, for typed structs and for plain trees; what verbs and informers share."""

from __future__ import annotations

import functools
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from navarch.api import kinds
from navarch.api.kinds import Kind
from navarch.api.schema import schema_of
from navarch.api.types import meta_v1
from navarch.api.types.base import Struct
from navarch.api.zerofill import fill_required
from navarch.client.undecodable import DECODE_ERRORS, Undecodable, undecodable

T = TypeVar("T")
S = TypeVar("S", bound=Struct)
Tree = dict[str, Any]


class Partial(Struct):
    """The fields that every object has; all that a bookmark promises."""

    kind: str | None = None
    api_version: str | None = msgspec.field(default=None, name="apiVersion")
    metadata: meta_v1.ObjectMeta = msgspec.field(default_factory=meta_v1.ObjectMeta)


class Codec(Protocol, Generic[T]):
    def encode(self, obj: T) -> bytes: ...

    def decode(self, data: bytes | msgspec.Raw) -> T: ...

    def decode_list(self, data: bytes) -> tuple[list[T], meta_v1.ListMeta]: ...

    def decode_each(self, data: bytes) -> tuple[list[T], list[Undecodable], meta_v1.ListMeta]:
        """As ``decode_list``, with items that do not fit set aside. Raises one of DECODE_ERRORS for what is no list."""
        ...

    def decode_one(self, data: bytes | msgspec.Raw) -> T | Undecodable:
        """As ``decode``; an object that does not fit as what is left of it. Raises one of DECODE_ERRORS for no object."""
        ...

    def name(self, obj: T) -> str: ...

    def namespace(self, obj: T) -> str | None: ...

    def uid(self, obj: T) -> str: ...

    def resource_version(self, obj: T) -> str: ...

    def drop_managed_fields(self, obj: T) -> None: ...

    def decode_unless_status(self, data: bytes) -> T | None:
        """The answer of a DELETE: the object, or None for a Status that says it is gone."""
        ...


_tag_decoder = msgspec.json.Decoder(Partial)


class _RawPage(msgspec.Struct):
    items: list[msgspec.Raw] | None = None
    metadata: meta_v1.ListMeta | None = None


_raw_page_decoder = msgspec.json.Decoder(_RawPage)


@functools.cache
def _list_decoder(struct: type[Struct]) -> msgspec.json.Decoder[Any]:
    list_struct = msgspec.defstruct(
        struct.__name__ + "Page",
        [("items", list[struct] | None, None), ("metadata", meta_v1.ListMeta | None, None)],  # type: ignore[valid-type]
    )
    return msgspec.json.Decoder(list_struct)


def prepare(struct: type[Struct]) -> None:
    """Builds the decoders of a struct now. Else that is done when the first is needed, in 1 to 30 ms, and writes to the
    memory of every struct below it, which processes that were forked from one another no longer share then."""
    kinds.decoder(struct)
    _list_decoder(struct)


class StructCodec(Generic[S]):
    """Objects as structs. ``kind`` is needed for structs that are not built in."""

    def __init__(self, struct: type[S], kind: Kind | None = None) -> None:
        self._decode = kinds.decoder(struct).decode
        self.struct = struct
        self._kind = kind

    def encode(self, obj: S) -> bytes:
        if self._kind is not None:
            cast(Any, obj).kind, cast(Any, obj).api_version = self._kind.kind, self._kind.api_version
        return kinds.encode(obj)

    def decode(self, data: bytes | msgspec.Raw) -> S:
        try:
            return cast(S, self._decode(data))
        except msgspec.ValidationError:
            # Go's decoder requires no field: another server, or another version, may leave out what our structs need.
            tree = msgspec.json.decode(data)
            fill_required(tree, schema_of(self.struct))
            return msgspec.convert(tree, self.struct)

    def decode_list(self, data: bytes) -> tuple[list[S], meta_v1.ListMeta]:
        try:
            page = _list_decoder(self.struct).decode(data)
        except msgspec.ValidationError:
            raw = _raw_page_decoder.decode(data)
            return [self.decode(item) for item in raw.items or ()], raw.metadata or meta_v1.ListMeta()
        return page.items or [], page.metadata or meta_v1.ListMeta()

    def decode_each(self, data: bytes) -> tuple[list[S], list[Undecodable], meta_v1.ListMeta]:
        try:
            page = _list_decoder(self.struct).decode(data)
            return page.items or [], [], page.metadata or meta_v1.ListMeta()
        except DECODE_ERRORS:
            page = _raw_page_decoder.decode(data)  # one by one: some item does not fit
        good: list[S] = []
        bad: list[Undecodable] = []
        for raw in page.items or ():
            item = self.decode_one(raw)
            if isinstance(item, Undecodable):
                bad.append(item)
            else:
                good.append(item)
        return good, bad, page.metadata or meta_v1.ListMeta()

    def decode_one(self, data: bytes | msgspec.Raw) -> S | Undecodable:
        try:
            return self.decode(data)
        except DECODE_ERRORS as error:
            return undecodable(data, error)

    def decode_unless_status(self, data: bytes) -> S | None:
        return None if _tag_decoder.decode(data).kind == "Status" else self.decode(data)

    def drop_managed_fields(self, obj: S) -> None:
        meta = self._meta(obj)
        if getattr(meta, "managed_fields", None) is not None:  # a struct of one's own may not have it
            meta.managed_fields = None

    def name(self, obj: S) -> str:
        return self._meta(obj).name or ""

    def namespace(self, obj: S) -> str | None:
        return self._meta(obj).namespace

    def uid(self, obj: S) -> str:
        return self._meta(obj).uid or ""

    def resource_version(self, obj: S) -> str:
        return self._meta(obj).resource_version or ""

    @staticmethod
    def _meta(obj: S) -> meta_v1.ObjectMeta:
        return cast(Any, obj).metadata  # type: ignore[no-any-return]


class TreeCodec:
    """Objects as plain JSON trees."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def encode(self, obj: Tree) -> bytes:
        typed = {"apiVersion": self._kind.api_version, "kind": self._kind.kind}
        return msgspec.json.encode(typed | obj)

    def decode(self, data: bytes | msgspec.Raw) -> Tree:
        return cast(Tree, msgspec.json.decode(data))

    def decode_list(self, data: bytes) -> tuple[list[Tree], meta_v1.ListMeta]:
        tree = msgspec.json.decode(data)
        meta = msgspec.convert(tree.get("metadata") or {}, meta_v1.ListMeta)
        items = tree.get("items") or []
        kind = (tree.get("kind") or "").removesuffix("List") or self._kind.kind
        for item in items:  # items of a typed list do not repeat what they are
            if not isinstance(item, dict):
                raise ValueError(f"an item of a list was expected to be an object, not {type(item).__name__}")
            item.setdefault("apiVersion", tree.get("apiVersion", self._kind.api_version))
            item.setdefault("kind", kind)
        return items, meta

    def decode_each(self, data: bytes) -> tuple[list[Tree], list[Undecodable], meta_v1.ListMeta]:
        items, meta = self.decode_list(data)
        bad = [undecodable(msgspec.json.encode(item), error) for item in items if (error := _misfit(item))]
        return [item for item in items if not _misfit(item)], bad, meta

    def decode_one(self, data: bytes | msgspec.Raw) -> Tree | Undecodable:
        tree = self.decode(data)
        error = _misfit(tree)
        return undecodable(data, error) if error else tree

    def decode_unless_status(self, data: bytes) -> Tree | None:
        tree = self.decode(data)
        return None if tree.get("kind") == "Status" else tree

    def drop_managed_fields(self, obj: Tree) -> None:
        obj.get("metadata", {}).pop("managedFields", None)

    def name(self, obj: Tree) -> str:
        return cast(str, obj.get("metadata", {}).get("name", ""))

    def namespace(self, obj: Tree) -> str | None:
        return cast("str | None", obj.get("metadata", {}).get("namespace"))

    def uid(self, obj: Tree) -> str:
        return cast(str, obj.get("metadata", {}).get("uid", ""))

    def resource_version(self, obj: Tree) -> str:
        return cast(str, obj.get("metadata", {}).get("resourceVersion", ""))


def _misfit(tree: Any) -> Exception | None:
    """Why a tree is no object that can be kept under a key; None if it is one."""
    meta = tree.get("metadata") if isinstance(tree, dict) else None
    if not isinstance(meta, dict):
        return ValueError("metadata is not an object")
    for field in ("name", "namespace", "uid", "resourceVersion"):
        if not isinstance(meta.get(field, ""), str):
            return ValueError(f"metadata.{field} is not text")
    return None
