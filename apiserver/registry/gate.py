"""The one gate that every object passes before it is stored, whichever way it came: POST, PUT, each patch, apply, the
status and other parts, scale, binding, eviction, and the fixes of controllers.

A request's body is checked where it enters (:meth:`Writes.conform`). What this module makes sure of is that nothing which
happens in between, a webhook most of all, can undo that:

- *types*: the object is one of its kind, as typed clients decode it; Go's zero value stands where a field that has no
  "absent" is missing;
- *identity*: apiVersion, kind, namespace, name, uid, resourceVersion, generation and the times of birth and death come from
  the request and the stored object, never from a body or a webhook;
- *rights*: who creates by PUT, patch or apply may create.

What a webhook breaks is an InternalError, as upstream's decoder makes it: nothing is stored.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import msgspec
import orjson

from apiserver.authz.authorizer import forbidden
from apiserver.registry.codec import SAME
from apiserver.registry.strategy import Strategy
from apiserver.request import Authorize, Context, RequestInfo
from navarch.api.errors import BadRequest, InternalError, StatusError
from navarch.api.kinds import Kind, group_version, struct_of
from navarch.api.patch import managed, same
from navarch.api.pruning import TypeProblem, prepare
from navarch.api.schema import Node, schema_of
from navarch.api.types import meta_v1
from navarch.api.types.index import INDEX
from navarch.api.zerofill import fill_required

Tree = dict[str, Any]
_SERVERS = ("uid", "creationTimestamp", "generation", "selfLink", "resourceVersion", "deletionTimestamp",
            "deletionGracePeriodSeconds")  # fmt: skip
_METADATA = ("ObjectMeta", "OwnerReference", "ManagedFieldsEntry")


class Passport(NamedTuple):
    """The identity of an object, taken before mutating admission. ``named``: the name is given, not to be generated."""

    api_version: str
    kind: str
    namespace: str
    name: str
    named: bool
    metadata: Tree
    managed: list[Tree] | None


class Gate:
    """The gate of one kind."""

    def __init__(self, strategy: Strategy) -> None:
        self.strategy, self.kind, self.schema = strategy, strategy.kind, strategy.schema
        is_builtin = (self.kind.group, self.kind.version, self.kind.kind) in INDEX
        self.struct = self.kind.type if is_builtin else None

    def passport(self, obj: Tree) -> Passport:
        """Before mutating admission."""
        metadata = obj["metadata"]
        name = metadata.get("name") or ""
        own_fields = {field: metadata[field] for field in _SERVERS if field in metadata}
        fields = metadata.get("managedFields")
        return Passport(obj["apiVersion"], obj["kind"], metadata.get("namespace") or "", name, bool(name), own_fields, fields)

    def admitted(self, context: Context, obj: Tree, was: Passport) -> None:
        """After mutating admission. Raises InternalError for an object that is none of the kind any more, BadRequest for one
        that moved to another namespace, as upstream."""
        now = obj.get("apiVersion"), obj.get("kind")
        if now != (was.api_version, was.kind):
            raise converted((was.api_version, was.kind), now)
        metadata = obj.get("metadata")
        if not isinstance(metadata, dict):
            raise internal("metadata is no object after admission")
        if (metadata.get("namespace") or "") != was.namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        if was.named and metadata.get("name") != was.name:
            raise internal(f'admission changed metadata.name from "{was.name}" to "{metadata.get("name") or ""}"')
        for field in _SERVERS:
            if field in was.metadata:
                metadata[field] = was.metadata[field]
            else:
                metadata.pop(field, None)
        self._keep_managed(context, metadata, was.managed)

    def _keep_managed(self, context: Context, metadata: Tree, before: list[Tree] | None) -> None:
        fields = metadata.get("managedFields")
        if fields is before or same(fields, before):
            return
        why = managed.problem(fields)
        if why:
            if before is None:
                metadata.pop("managedFields", None)
            else:
                metadata["managedFields"] = before
            context.warn(
                ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating "
                f"admission controller; please fix your requests: {why}"
            )

    def settle(self, obj: Tree) -> bool:
        """Before validation: writes Go's zero values where they are missing. Returns whether clients can decode the object;
        if not, validation has the first word, and :meth:`prove` the last."""
        try:
            self._decode(obj)
        except msgspec.ValidationError:
            fill_required(obj, self.schema, times=False, pointers=False)
            return False
        return True

    def decodes_without_spec(self, obj: Tree) -> bool:
        """Whether clients can decode all but the spec, of which this is known; writes nothing."""
        try:
            msgspec.convert(obj, self._without_spec, strict=True)
        except msgspec.ValidationError:
            return False
        return True

    @functools.cached_property
    def _without_spec(self) -> Any:
        """The struct of the kind, in which spec is a field that nobody knows."""
        fields = [f for f in msgspec.structs.fields(self.kind.type) if f.encode_name != "spec"]
        return msgspec.defstruct(
            self.kind.kind, [(f.name, f.type | None, None) for f in fields], rename={f.name: f.encode_name for f in fields}
        )

    def prove(self, obj: Tree) -> None:
        """Proves that clients can decode the object. Raises InternalError: the types of what was sent are checked where it
        enters, so that only admission or a rule of ours can have done this."""
        try:
            self._decode(obj)
        except msgspec.ValidationError as error:
            # An Event that was stored by core/v1 lacks what events.k8s.io/v1 requires, and is stored as core/v1 again.
            if self.strategy.codec is not SAME and str(error).startswith("Object missing required field"):
                return
            fill_required(obj, self.schema)  # times not before validation, to which no time is no time
            try:
                self._decode(obj)
            except msgspec.ValidationError as last:
                raise internal(_clear(str(last), self.kind)) from None

    def reads(self, data: bytes) -> bool:
        """Whether what is stored is an object of this kind that clients can decode."""
        try:
            obj = orjson.loads(data)
            self._decode(obj)
            return bool(obj["metadata"]["name"])
        except (msgspec.ValidationError, ValueError, TypeError, KeyError):
            return False

    def _decode(self, obj: Tree) -> None:
        if self.struct is not None:
            msgspec.convert(obj, self.struct, strict=True)
        else:  # the schema of a custom resource is checked by its validation, with causes
            msgspec.convert(obj["metadata"], meta_v1.ObjectMeta, strict=True)


def may_create(authorize: Authorize, context: Context, kind: Kind, namespace: str, name: str) -> None:
    """Asks for the right to create: the request's own verb, which was allowed, was another. Raises Forbidden."""
    info = RequestInfo(
        "create", context.info.path, True, kind.group, kind.version, kind.resource, "",
        namespace if kind.namespaced else "", name,
    )  # fmt: skip
    allowed, why = authorize(context.user, info)
    if not allowed:
        raise forbidden(context.user, info, why)


def reviewed(new: Any, shown: Tree, schema: Node | None, *, strict: bool = True) -> Tree:
    """The webhook's version of the object that it was shown, brought in order as upstream's decoder does it: unknown
    fields go, a wrong type is an InternalError. ``schema``: of a kind without a typed struct. Custom resources are not
    ``strict``: but for their metadata, validation judges them."""
    if not isinstance(new, dict):
        raise internal("the patch of a webhook leaves no object")
    if not new.get("kind"):
        raise internal(f"Object 'Kind' is missing in '{orjson.dumps(new).decode()[:200]}'")
    was, now = (shown.get("apiVersion"), shown.get("kind")), (new.get("apiVersion"), new.get("kind"))
    if now != was:
        raise converted(was, now)
    if schema is None:
        key = (*group_version(str(was[0])), str(was[1]))
        if key not in INDEX:
            return new
        schema = schema_of(struct_of(*key))
    problems = prepare(new, schema)
    wrong = [p for p in problems.types if strict or of_metadata(p) or p.path in ("apiVersion", "kind")]
    if wrong:
        raise internal(wrong[0].message())
    if "metadata" in shown and not isinstance(new.get("metadata"), dict):
        new["metadata"] = {}
    return new


def of_metadata(problem: TypeProblem) -> bool:
    """Whether a wrong type is in the metadata of an object, or of one that is embedded in it: there a custom resource is as
    strict as a built-in kind."""
    return problem.node.name in _METADATA or problem.owner in _METADATA


def internal(why: str) -> StatusError:
    return InternalError(f"Internal error occurred: {why}")


def converted(was: tuple[Any, Any], now: tuple[Any, Any]) -> StatusError:
    """The object of one kind has become one of another."""
    return internal(f"converting ({now[0]}, Kind={now[1]}) to ({was[0]}, Kind={was[1]}): unknown conversion")


def _clear(text: str, kind: Kind) -> str:
    """msgspec's message, in the words of this API: ``Expected `bool`, got `str` - at `$.spec.hostNetwork```."""
    what, _, where = text.partition(" - at ")
    path = where.strip("`").removeprefix("$").lstrip(".").replace("[...]", "[]")
    return f"{kind.kind} in version \"{kind.version}\" cannot be handled as a {kind.kind}: {path or 'object'}: {what}"
