"""Audit events (audit.k8s.io/v1) of requests, stage by stage.

The dispatcher makes an :class:`AuditedRequest` in place of a plain one while there is an audit log, and tells the
:class:`Audited` of it what happens; without a log none of this exists.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from apiserver.audit.log import AuditLog
from apiserver.audit.policy import API_VERSION, Level, Policy, Verdict
from apiserver.offload import Offload
from apiserver.request import Context, RequestInfo, User, user_info
from apiserver.wire.asgi import BODY_LIMIT, Headers, Receive, Request, Scope, Send
from apiserver.wire.negotiation import media_type
from navarch.api.errors import StatusError
from navarch.api.serialization import decode_yaml_documents
from navarch.api.times import format_micro
from navarch.world import World

Tree = dict[str, Any]
PATCHES = "patch.webhook.admission.k8s.io/"
DECISION, REASON = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
LONG_SUBRESOURCES = ("attach", "exec", "proxy", "log", "portforward")
_DECODED = "navarch.audit_decoded"
RECEIVED, STARTED, COMPLETE, PANIC = "RequestReceived", "ResponseStarted", "ResponseComplete", "Panic"


class AuditedRequest(Request):
    """Keeps what an audit event may tell. ``audited`` is None until it is known who asks, and if nobody wants to know."""

    __slots__ = ("audited", "id", "reply_body", "request_body")

    def __init__(self, world: World, offload: Offload, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(offload, scope, receive, send)
        self.audited: Audited | None = None
        self.id = self.header(b"audit-id") or world.uid()
        self.request_body = self.reply_body = b""

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        data = await super().body(limit)
        if self.audited is not None:
            self.request_body = data
        return data

    def decoded(self, tree: Any) -> None:
        if self.audited is not None:
            self.request_body, self.scope[_DECODED] = orjson.dumps(tree), True

    async def reply(self, status: int, body: bytes, content_type: bytes = b"application/json", headers: Headers = []) -> None:  # noqa: B006
        if self.audited is not None:
            self.reply_body = body
        await super().reply(status, body, content_type, [*headers, (b"audit-id", self.id.encode("latin-1"))])

    async def start_stream(self, status: int, content_type: bytes, headers: Headers = []) -> None:  # noqa: B006
        if self.audited is not None:
            self.audited.started(status)
        await super().start_stream(status, content_type, [*headers, (b"audit-id", self.id.encode("latin-1"))])


class Audit:
    """Makes the events that the policy wants."""

    def __init__(self, world: World, policy: Policy, log: AuditLog) -> None:
        self.world, self.policy, self.log = world, policy, log

    def begin(self, request: AuditedRequest, info: RequestInfo, user: User) -> None:
        """It is known who asks: whether the request is told of is decided here."""
        verdict = self.policy.verdict(user, info)
        if verdict.level != Level.NONE:
            request.audited = Audited(self, request, info, user, verdict)
            request.audited.tell(RECEIVED)

    def refused(self, request: AuditedRequest, info: RequestInfo, error: StatusError) -> None:
        """Credentials that are no good; anonymous as far as the policy goes."""
        verdict = self.policy.verdict(User(""), info)
        if verdict.level == Level.NONE:
            return
        event = Audited(self, request, info, User(""), verdict)
        words = ["x509"] if request.scope.get("navarch.peer_certificate") else []
        authorization = request.header(b"authorization").split(" ")
        words += [authorization[0].lower()] if len(authorization) > 1 else []
        how = f"attempted: {', '.join(words)}" if words else "no credentials provided"
        message = f"Authentication failed, {how}"
        status = {"metadata": {}, "status": "Failure", "message": message, "reason": error.reason, "code": error.http_code}
        event.tell(STARTED, status)
        event.tell(COMPLETE, status)


class Audited:
    """One request that is told of."""

    def __init__(self, audit: Audit, request: AuditedRequest, info: RequestInfo, user: User, verdict: Verdict) -> None:
        self.audit, self.request, self.info, self.user, self.verdict = audit, request, info, user, verdict
        self.received = audit.world.now()
        self.as_user: User | None = None
        self.annotations: dict[str, str] = {}
        self._said_started = False

    def decided(self, allowed: bool, reason: str, annotations: Mapping[str, str]) -> None:
        """``annotations``: what authentication has to tell."""
        self.annotations.update(annotations)
        self.annotations[DECISION] = "allow" if allowed else "forbid"
        self.annotations[REASON] = reason

    def started(self, status: int) -> None:
        """The reply of a request that lasts begins."""
        if not self._said_started and is_long(self.info):
            self._said_started = True
            self.tell(STARTED, {"metadata": {}, "code": status})

    def finished(self, context: Context | None, error: BaseException | None) -> None:
        """The request is over."""
        if context is not None:
            for key, value in context.audit_annotations.items():
                # A webhook's patch is part of the body: only who may see that sees it.
                if self.verdict.level >= Level.REQUEST or not key.startswith(PATCHES):
                    self.annotations.setdefault(key, value)
        if error is not None and not isinstance(error, StatusError):
            text = {"metadata": {}, "status": "Failure", "message": f"the server failed: {error}",
                    "reason": "InternalError", "code": 500}  # fmt: skip
            return self.tell(PANIC, text)
        self.tell(COMPLETE, self._status())

    def _status(self) -> Tree:
        code = self.request.status or 101  # a connection that was handed over
        out: Tree = {"metadata": {}, "code": code}
        reply = self.request.reply_body
        if reply.startswith(b'{"kind":"Status"') or code >= 400:
            try:
                tree = orjson.loads(reply)
            except ValueError:
                return out
            if isinstance(tree, dict) and tree.get("kind") == "Status":
                out |= {k: tree[k] for k in ("status", "message", "reason", "details") if tree.get(k)}
        return out

    def tell(self, stage: str, status: Tree | None = None) -> None:
        """Writes an event of this stage, unless the policy leaves the stage out."""
        if stage in self.verdict.omit_stages:
            return
        request, info, level = self.request, self.info, self.verdict.level
        now = self.audit.world.now()
        raw = request.scope.get("query_string") or b""
        event: Tree = {
            "kind": "Event", "apiVersion": API_VERSION, "level": level.word, "auditID": request.id, "stage": stage,
            "requestURI": request.path + ("?" + raw.decode("latin-1") if raw else ""), "verb": info.verb,
            "user": user_info(self.user),
        }  # fmt: skip
        if self.as_user is not None:
            event["impersonatedUser"] = user_info(self.as_user)
        if addresses := source_addresses(request):
            event["sourceIPs"] = addresses
        if agent := request.header(b"user-agent"):
            event["userAgent"] = agent
        kind = "application/json" if _DECODED in request.scope else request.header(b"content-type")
        request_object = self._object(request.request_body, kind) if info.is_resource else None
        if info.is_resource:
            event["objectRef"] = _reference(info, request_object)
        if status is not None:
            event["responseStatus"] = status
        if request_object is not None and level >= Level.REQUEST:
            event["requestObject"] = self._trimmed(request_object)
        if stage == COMPLETE and level >= Level.REQUEST_RESPONSE and info.is_resource and request.reply_body:
            answer = self._object(request.reply_body, "application/json")
            if answer is not None:
                event["responseObject"] = self._trimmed(answer)
        event["requestReceivedTimestamp"] = format_micro(self.received)
        event["stageTimestamp"] = format_micro(now)
        if self.annotations:
            event["annotations"] = dict(self.annotations)
        self.audit.log.add(orjson.dumps(event))

    def _object(self, data: bytes, content_type: str) -> Any:
        """A body as a tree; what is not JSON or YAML as its bytes."""
        if not data:
            return None
        kind = media_type(content_type)
        try:
            if kind.endswith("yaml"):
                return next(tree for tree, _ in decode_yaml_documents(data))
            return orjson.loads(data)
        except (ValueError, StopIteration):
            raw = base64.b64encode(data).decode()
            return {"kind": "Unknown", "apiVersion": "", "contentType": kind, "raw": raw}

    def _trimmed(self, tree: Any) -> Any:
        """Without managedFields, if the policy says so; also of the items of a list."""
        if not self.verdict.omit_managed_fields or not isinstance(tree, dict):
            return tree
        for one in (tree, *(tree.get("items") or ())):
            if isinstance(one, dict) and isinstance(one.get("metadata"), dict):
                one["metadata"].pop("managedFields", None)
        return tree


def is_long(info: RequestInfo) -> bool:
    """Whether a request lasts: its beginning is told, too."""
    return info.is_resource and (info.verb in ("watch", "proxy") or info.subresource in LONG_SUBRESOURCES)


def source_addresses(request: Request) -> list[str]:
    """The addresses that the request came through, the client first, as far as headers can be believed."""
    out = [a.strip() for a in request.header(b"x-forwarded-for").split(",") if a.strip()]
    out += [a for a in [request.header(b"x-real-ip").strip()] if a and a not in out]
    client = request.scope.get("client")
    if client and client[0] not in out[-1:]:
        out.append(client[0])
    return out


def _reference(info: RequestInfo, body: Any) -> Tree:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    out = {
        "resource": info.resource, "namespace": info.namespace or metadata.get("namespace"),
        "name": info.name or metadata.get("name"), "uid": metadata.get("uid"), "apiGroup": info.group,
        "apiVersion": info.version, "resourceVersion": metadata.get("resourceVersion"), "subresource": info.subresource,
    }  # fmt: skip
    return {k: v for k, v in out.items() if v}

