"""The three controllers of CertificateSigningRequests: approve what nodes may ask for, sign what is approved, delete
what is done with."""

from __future__ import annotations

import base64
from typing import Any

from cryptography import x509

from controllers.certificates.signer import (
    API_CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    SIGNERS,
    Authority,
    Unfit,
    check,
    common_name,
    fits,
    parse,
    sign,
)
from controllers.controller import Context, Controller
from navarch.api.conditions import get_condition
from navarch.api.errors import NotFound
from navarch.api.times import format_time, parse_time
from navarch.api.types import authorization_v1, certificates_v1

Request = certificates_v1.CertificateSigningRequest
HOUR = 3600.0
APPROVED_HOURS, DENIED_HOURS, FAILED_HOURS, PENDING_HOURS = 1, 1, 1, 24
__all__ = ["API_CLIENT", "KUBELET_SERVING", "Approver", "Cleaner", "Signer"]


class _Requests(Controller):
    """Keys are names."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.requests = self.informer(Request)
        self.enqueues(self.requests)

    def undecided(self, request: Request) -> bool:
        return not any(get_condition(request.status.conditions, c) for c in ("Approved", "Denied"))

    async def add_condition(self, request: Request, subresource: str, type: str, reason: str, message: str) -> None:
        now = format_time(self.world.now())
        condition = certificates_v1.CertificateSigningRequestCondition(
            type=type, status="True", reason=reason, message=message, last_update_time=now, last_transition_time=now
        )
        request.status.conditions = [*(request.status.conditions or ()), condition]
        await self.client[Request].update(request, subresource=subresource)


class Approver(_Requests):
    """Approves client certificates that nodes ask for, if whoever asks has the right to (``nodeclient``, or
    ``selfnodeclient`` for one's own)."""

    name = "certificatesigningrequest-approving-controller"

    async def reconcile(self, key: str) -> float | None:
        request = self.requests.get_key(key)
        if request is None or request.status.certificate or not self.undecided(request):
            return None
        spec = request.spec
        if spec.signer_name != KUBELET_CLIENT:
            return None
        try:
            parsed = parse(spec.request)
        except ValueError:
            return None
        if not fits(KUBELET_CLIENT, parsed, spec.usages or ()):
            return None
        tried: list[str] = []
        own = spec.username == common_name(parsed)
        for subresource, words in (("selfnodeclient", "self kubelet client"), ("nodeclient", "kubelet client")):
            if subresource == "selfnodeclient" and not own:
                continue
            tried.append(subresource)
            if await self._may(spec, subresource):
                text = f"Auto approving {words} certificate after SubjectAccessReview."
                await self.add_condition(await self.client[Request].get(key), "approval", "Approved", "AutoApproved", text)
                return None
        self.log.info("request %s is one for %s, but %s may not have it", key, " or ".join(tried), spec.username)
        return 60.0  # the right may come later

    async def _may(self, spec: certificates_v1.CertificateSigningRequestSpec, subresource: str) -> bool:
        attributes = authorization_v1.ResourceAttributes(
            group="certificates.k8s.io", version="*", resource="certificatesigningrequests", verb="create",
            subresource=subresource,
        )  # fmt: skip
        review = authorization_v1.SubjectAccessReview(
            spec=authorization_v1.SubjectAccessReviewSpec(
                user=spec.username, uid=spec.uid, groups=spec.groups, extra=spec.extra, resource_attributes=attributes
            ),
            status=authorization_v1.SubjectAccessReviewStatus(allowed=False),
        )
        answer = await self.client[authorization_v1.SubjectAccessReview].create(review)
        return answer.status.allowed


class Signer(_Requests):
    """Signs approved requests of Kubernetes' own signers; what it cannot sign has failed for good."""

    name = "certificatesigningrequest-signing-controller"

    def __init__(self, context: Context, authority: Authority) -> None:
        super().__init__(context)
        self.authority = authority

    async def reconcile(self, key: str) -> float | None:
        request = self.requests.get_key(key)
        if request is None or request.spec.signer_name not in SIGNERS or request.status.certificate:
            return None
        conditions = request.status.conditions
        if get_condition(conditions, "Approved") is None or any(get_condition(conditions, c) for c in ("Denied", "Failed")):
            return None
        request = await self.client[Request].get(key)
        spec = request.spec
        usages = spec.usages or []
        try:
            parsed = parse(spec.request)
            check(spec.signer_name, parsed, usages)
        except (Unfit, ValueError) as error:
            await self.add_condition(request, "status", "Failed", "SignerValidationFailure", str(error))
            return None
        serial = self.world.random.getrandbits(126) + 1
        pem = sign(self.authority, parsed, usages, spec.expiration_seconds, self.world.now(), serial)
        request.status.certificate = base64.b64encode(pem).decode()
        await self.client[Request].update_status(request)
        return None


class Cleaner(_Requests):
    """Deletes requests an hour after they were approved, denied or failed, a day after they were made and nobody
    cared, and when their certificate is over."""

    name = "certificatesigningrequest-cleaner-controller"

    async def reconcile(self, key: str) -> float | None:
        request = self.requests.get_key(key)
        if request is None:
            return None
        remaining = due(request) - self.world.now()
        if remaining > 0:
            return remaining
        try:
            await self.client[Request].delete(key, uid=request.metadata.uid)
        except NotFound:
            return None
        return None


def due(request: Request) -> float:
    """When a request goes, in Unix seconds."""
    at = []
    for type_, hours in (("Approved", APPROVED_HOURS), ("Denied", DENIED_HOURS), ("Failed", FAILED_HOURS)):
        condition: Any = get_condition(request.status.conditions, type_)
        if condition is not None and condition.last_update_time:
            at.append(parse_time(condition.last_update_time) + hours * HOUR)
    if not request.status.conditions:
        at.append(parse_time(request.metadata.creation_timestamp or "") + PENDING_HOURS * HOUR)
    if request.status.certificate:
        try:
            (first, *_) = x509.load_pem_x509_certificates(base64.b64decode(request.status.certificate))
            at.append(first.not_valid_after_utc.timestamp())
        except ValueError:
            pass
    return min(at, default=float("inf"))
