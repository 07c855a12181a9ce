"""The base of every generated type, and the scalar types of the Kubernetes API.

The generated modules beside this one are written by ``python -m navarch.api.types.generate``; CI proves that running
it again changes nothing. Attribute names are snake_case, wire names are written out where they differ. ``None``
means absent. Three class variables carry what JSON types cannot say:

``_tags_``
    per wire name, how patch and server-side apply treat the field (see :class:`Tag`).
``_atomic_``
    the whole struct is one value to server-side apply (x-kubernetes-map-type: atomic).
``_gvk_``
    (group, version, kind) of a root kind.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec


class Tag(NamedTuple):
    """Merge rules of one field, as Kubernetes' OpenAPI extensions give them.

    ``list_type`` is "atomic", "map" or "set" and ``list_keys`` the keys of a map list (server-side apply);
    ``strategy`` holds "merge", "replace" or "retainKeys" and ``merge_key`` its key (strategic merge patch);
    ``map_type`` is "atomic" or "granular".
    """

    list_type: str | None = None
    list_keys: tuple[str, ...] = ()
    strategy: tuple[str, ...] = ()
    merge_key: str | None = None
    map_type: str | None = None


class Struct(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Base of all API types: keyword only; absent fields are ``None`` and are not encoded.

    API objects are trees: the collector of cycles need not look at them (gc=False).
    """

    _tags_: ClassVar[dict[str, Tag]] = {}
    _atomic_: ClassVar[bool] = False
    _gvk_: ClassVar[tuple[str, str, str] | None] = None


Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Time = Annotated[str, msgspec.Meta(extra={"format": "date-time"})]
"""RFC 3339 in whole seconds, UTC: ``2006-01-02T15:04:05Z``."""
MicroTime = Annotated[str, msgspec.Meta(extra={"format": "micro-time"})]
"""RFC 3339 with microseconds, UTC: ``2006-01-02T15:04:05.000000Z``."""
Bytes = Annotated[str, msgspec.Meta(extra={"format": "byte"})]
"""Base64 text."""
Quantity = Annotated[str | int | float, msgspec.Meta(extra={"format": "quantity"})]
"""A Kubernetes quantity such as ``100m`` or ``1Gi``; on stored objects always canonical text."""
IntOrString = Annotated[int | str, msgspec.Meta(extra={"format": "int-or-string"})]
AnyObject = dict[str, Any]
"""Any JSON object (RawExtension, FieldsV1)."""
AnyValue = Any
"""Any JSON value."""
