"""Errors as the API speaks them: exceptions that are a ``metav1.Status``.

A server raises a subclass and sends ``error.status()``; a client turns a Status it received back into the same
subclass with :func:`from_status`. Reasons and codes: Kubernetes API conventions, "Response Status Kind".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple


class Cause(NamedTuple):
    """One thing that is wrong, with the path of the field that it concerns.

    ``reason`` is a metav1.CauseType such as FieldValueRequired; ``message`` is the text behind the path.
    """

    reason: str
    message: str
    field: str = ""

    def text(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def show(value: Any) -> str:
    """A value as Kubernetes quotes it inside a validation message: text in quotes, the rest as JSON."""
    import json

    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def required(field: str, detail: str = "") -> Cause:
    return Cause("FieldValueRequired", "Required value" + (f": {detail}" if detail else ""), field)


def invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {show(value)}: {detail}", field)


def not_supported(field: str, value: Any, choices: Sequence[str]) -> Cause:
    listed = ", ".join(show(c) for c in sorted(choices))
    return Cause("FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {listed}", field)


def duplicate(field: str, value: Any) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {show(value)}", field)


def forbidden(field: str, detail: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {detail}", field)


def not_found(field: str, value: Any) -> Cause:
    return Cause("FieldValueNotFound", f"Not found: {show(value)}", field)


def type_invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause("FieldValueTypeInvalid", f"Invalid value: {show(value)}: {detail}", field)


def too_long(field: str, limit: int) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)


def too_many(field: str, count: int, limit: int) -> Cause:
    return Cause("FieldValueTooMany", f"Too many: {count}: must have at most {limit} items", field)


class StatusError(Exception):
    """An API error. ``code`` is the HTTP status, ``reason`` a metav1.StatusReason.

    ``details`` holds StatusDetails' fields (name, group, kind, uid, causes, retryAfterSeconds).
    """

    code: ClassVar[int] = 500
    reason: ClassVar[str] = ""

    def __init__(
        self, message: str, details: Mapping[str, Any] | None = None, *, code: int = 0, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})
        self.http_code = code or self.code
        self.status_reason = reason or self.reason

    def status(self) -> dict[str, Any]:
        """The Status object as a JSON tree."""
        out: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.status_reason:
            out["reason"] = self.status_reason
        # kubectl looks into the details of every NotFound to tell a missing object from a missing resource.
        if self.details or self.status_reason == "NotFound":
            out["details"] = self.details
        return out | {"code": self.http_code}


class BadRequest(StatusError):
    code, reason = 400, "BadRequest"


class Unauthorized(StatusError):
    code, reason = 401, "Unauthorized"

    def __init__(self, message: str = "Unauthorized", details: Mapping[str, Any] | None = None, **kw: Any) -> None:
        super().__init__(message, details, **kw)


class Forbidden(StatusError):
    code, reason = 403, "Forbidden"


class NotFound(StatusError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(StatusError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(StatusError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(StatusError):
    code, reason = 409, "AlreadyExists"


class Conflict(StatusError):
    code, reason = 409, "Conflict"


class Gone(StatusError):
    code, reason = 410, "Gone"


class Expired(StatusError):
    """The resource version (or continue token) asked for is no longer kept."""

    code, reason = 410, "Expired"


class RequestEntityTooLarge(StatusError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(StatusError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(StatusError):
    code, reason = 422, "Invalid"


class TooManyRequests(StatusError):
    code, reason = 429, "TooManyRequests"


class InternalError(StatusError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(StatusError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(StatusError):
    code, reason = 504, "Timeout"


class ServerTimeout(StatusError):
    code, reason = 500, "ServerTimeout"


_BY_REASON: dict[str, type[StatusError]] = {c.reason: c for c in StatusError.__subclasses__()}
_BY_CODE: dict[int, type[StatusError]] = {c.code: c for c in reversed(StatusError.__subclasses__())}


def from_status(status: Mapping[str, Any], code: int = 0) -> StatusError:
    """The exception for a Status received; ``code`` is the HTTP status, used where the Status has none."""
    code = status.get("code") or code or 500
    reason = status.get("reason") or ""
    cls = _BY_REASON.get(reason) or _BY_CODE.get(code) or StatusError
    return cls(status.get("message") or f"the server answered {code}", status.get("details"), code=code, reason=reason)


def resource_name(resource: str, group: str) -> str:
    """How messages name a resource: ``pods``, ``deployments.apps``."""
    return f"{resource}.{group}" if group else resource


def details(resource: str, group: str, name: str = "", **more: Any) -> dict[str, Any]:
    """StatusDetails of a resource; Kubernetes puts the resource (or the kind) in ``kind``."""
    out: dict[str, Any] = {"name": name, "group": group, "kind": resource, **more}
    return {k: v for k, v in out.items() if v}


def resource_not_found(resource: str, group: str, name: str) -> NotFound:
    return NotFound(f'{resource_name(resource, group)} "{name}" not found', details(resource, group, name))


def resource_exists(resource: str, group: str, name: str) -> AlreadyExists:
    return AlreadyExists(f'{resource_name(resource, group)} "{name}" already exists', details(resource, group, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def precondition(field: str, expected: str, has: str | None) -> str:
    """Why a write on a condition (UID or ResourceVersion) is a conflict, in Kubernetes' words."""
    return f"Precondition failed: {field} in precondition: {expected}, {field} in object meta: {has or ''}"


def resource_conflict(resource: str, group: str, name: str, why: str = MODIFIED) -> Conflict:
    message = f'Operation cannot be fulfilled on {resource_name(resource, group)} "{name}": {why}'
    return Conflict(message, details(resource, group, name))


def resource_invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> Invalid:
    """422 with every cause; the message lists them as Kubernetes does."""
    listed = [c.text() for c in causes]
    text = listed[0] if len(listed) == 1 else "[" + ", ".join(listed) + "]"
    cause_trees = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return Invalid(
        f'{resource_name(kind, group)} "{name}" is invalid: {text}', details(kind, group, name, causes=cause_trees)
    )


def resource_forbidden(resource: str, group: str, name: str, why: str) -> Forbidden:
    shown = f'{resource_name(resource, group)} "{name}"' if name else resource_name(resource, group)
    return Forbidden(f"{shown} is forbidden: {why}", details(resource, group, name))
