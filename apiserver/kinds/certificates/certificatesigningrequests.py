"""CertificateSigningRequests: who asked is set by the server, approval and signing have a subresource each."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from apiserver.kinds.cells import age_cell, condition, kind, name_cell, spec_of, status_of
from apiserver.kinds.checks import immutable
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from apiserver.request import Context
from navarch.api import names
from navarch.api.durations import human_duration
from navarch.api.errors import Cause, duplicate, invalid, not_supported, required
from navarch.api.times import format_time

DECISIONS = ("Approved", "Denied")
MIN_SECONDS = 600
MAX_SIGNER = 571
USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip


class CertificateSigningRequestStrategy(Strategy):
    kind = kind("certificates.k8s.io/v1", "CertificateSigningRequest")
    has_status = True
    status_subresources = ("status", "approval")
    generation = False
    selectable_fields = ("spec.signerName",)
    columns = (
        NAME_COLUMN, AGE_COLUMN, Column("SignerName"), Column("Requestor"), Column("RequestedDuration"),
        Column("Condition"),
    )  # fmt: skip

    def prepare_create(self, context: Context, obj: Tree) -> None:
        spec, user = obj.setdefault("spec", {}), context.user
        asker: Tree = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": dict(user.extra)}
        for field, value in asker.items():
            if value:
                spec[field] = value
            else:
                spec.pop(field, None)
        obj["status"] = {}

    def prepare_update(self, context: Context, obj: Tree, old: Tree) -> None:
        obj["spec"] = spec_of(old)  # a request is what it was when it was made

    def prepare_status(self, context: Context, obj: Tree, old: Tree) -> None:
        """The status endpoint cannot decide, the approval endpoint can do nothing else."""
        new, was = status_of(obj), status_of(old)
        listed = new.get("conditions") or []
        if context.info.subresource == "approval":
            new = {**was, "conditions": listed}
        else:
            decisions = [c for c in was.get("conditions") or () if c.get("type") in DECISIONS]
            listed = [c for c in listed if c.get("type") not in DECISIONS]
            new = {**new, "conditions": [*decisions, *listed]}
        now = format_time(context.world.now())
        for one in new["conditions"]:
            before = condition(old, one.get("type") or "")
            if not one.get("lastUpdateTime"):
                one["lastUpdateTime"] = now
            if not one.get("lastTransitionTime"):
                same = before is not None and before.get("status") == one.get("status")
                one["lastTransitionTime"] = before.get("lastTransitionTime") or now if same and before else now
        if not new["conditions"]:
            del new["conditions"]
        obj["status"] = new

    def name_causes(self, name: str, prefix: bool) -> list[str]:
        return names.path_segment(name)

    def validate(self, obj: Tree) -> list[Cause]:
        spec = spec_of(obj)
        signer, seconds, usages = spec.get("signerName") or "", spec.get("expirationSeconds"), spec.get("usages") or []
        out = [invalid("spec.request", spec.get("request") or "", m) for m in _request_problems(spec.get("request") or "")]
        if not usages:
            out.append(required("spec.usages"))
        for i, usage in enumerate(usages):
            if usage not in USAGES:
                out.append(not_supported(f"spec.usages[{i}]", usage, USAGES))
            if usage in usages[:i]:
                out.append(duplicate(f"spec.usages[{i}]", usage))
        if signer == "kubernetes.io/legacy-unknown":
            text = "the legacy signerName is not allowed via this API version"
            out.append(invalid("spec.signerName", signer, text))
        else:
            out += signer_causes(signer, "spec.signerName")
        if seconds is not None and seconds < MIN_SECONDS:
            text = "may not specify a duration less than 600 seconds (10 minutes)"
            out.append(invalid("spec.expirationSeconds", seconds, text))
        return out

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        return immutable(spec_of(obj), spec_of(old), "spec")

    def validate_status(self, obj: Tree, old: Tree) -> list[Cause]:
        out: list[Cause] = []
        new, was = status_of(obj), status_of(old)
        conditions = new.get("conditions") or []
        for i, one in enumerate(conditions):
            at, type_ = f"status.conditions[{i}]", one.get("type") or ""
            if not type_:
                out.append(required(f"{at}.type"))
            if type_ in (*DECISIONS, "Failed") and one.get("status") != "True":
                out.append(not_supported(f"{at}.status", one.get("status") or "", ("True",)))
            elif one.get("status") not in ("True", "False", "Unknown"):
                out.append(required(f"{at}.status"))
            if type_ in [c.get("type") for c in conditions[:i]]:
                out.append(duplicate(f"{at}.type", type_))
        decided = [d for d in DECISIONS if condition(obj, d)]
        if len(decided) == 2:
            text = "Approved and Denied conditions are mutually exclusive"
            out.append(invalid("status.conditions", "Denied", text))
        for type_ in (*DECISIONS, "Failed"):
            if condition(old, type_) and not condition(obj, type_):
                text = f"updates may not remove a condition of type \"{type_}\""
                out.append(Cause("FieldValueForbidden", f"Forbidden: {text}", "status.conditions"))
        if was.get("certificate") and new.get("certificate") != was["certificate"]:
            text = "updates may not set certificate content to a different value"
            out.append(Cause("FieldValueForbidden", f"Forbidden: {text}", "status.certificate"))
        elif new.get("certificate"):
            out += [invalid("status.certificate", "<certificate data>", m) for m in _chain_problems(new["certificate"])]
        return out

    def fields(self, obj: Tree) -> dict[str, str]:
        return {"spec.signerName": spec_of(obj).get("signerName") or ""}

    def cells(self, obj: Tree, now: float) -> list[Any]:
        spec = spec_of(obj)
        words = [type_ for type_ in (*DECISIONS, "Failed") if condition(obj, type_)]
        if status_of(obj).get("certificate"):
            words.append("Issued")
        seconds = spec.get("expirationSeconds")
        return [
            name_cell(obj), age_cell(obj, now), spec.get("signerName") or "<none>", spec.get("username") or "",
            "<none>" if seconds is None else human_duration(seconds), ",".join(words) or "Pending",
        ]  # fmt: skip


def signer_causes(signer: str, path: str) -> list[Cause]:
    """``example.com/signer``: a domain, and a path below it."""
    if not signer:
        return [required(path)]
    domain, slash, rest = signer.partition("/")
    if not slash or "/" in rest:
        return [invalid(path, signer, "must be a fully qualified domain and path of the form 'example.com/signer-name'")]
    if len(signer) > MAX_SIGNER:
        return [Cause("FieldValueTooLong", f"Too long: may not be more than {MAX_SIGNER} bytes", path)]
    out = [invalid(path, domain, m) for m in names.dns_subdomain(domain)]
    if "." not in domain:
        out.append(invalid(path, domain, "should be a domain with at least two segments separated by dots"))
    return out + [invalid(path, rest, m) for m in names.dns_subdomain(rest)]


def decoded(text: str) -> bytes:
    """Decodes a base64 field; nothing if it is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def parse_request(text: str) -> x509.CertificateSigningRequest:
    """The PKCS#10 request of spec.request. Raises ValueError with the reason."""
    pem = decoded(text)
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    try:
        request = x509.load_pem_x509_csr(pem)
        sound = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"asn1: structure error: {error}") from None
    if not sound:
        raise ValueError("x509: signature verification failed")
    return request


def _request_problems(text: str) -> list[str]:
    try:
        parse_request(text)
    except ValueError as error:
        return [str(error)]
    return []


def _chain_problems(text: str) -> list[str]:
    pem = decoded(text)
    if not pem.strip():
        return ["must contain at least one CERTIFICATE PEM block"]
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        return ["must contain at least one CERTIFICATE PEM block"]
    return [] if certificates else ["must contain at least one CERTIFICATE PEM block"]
