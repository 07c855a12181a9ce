"""Requests to Kubernetes' own signers: what is asked, whether it may be had, and the certificate. Pure; no I/O."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID as EKU
from cryptography.x509.oid import NameOID

from navarch.api import wellknown

API_CLIENT = wellknown.SIGNER_CLIENT
KUBELET_CLIENT = wellknown.SIGNER_KUBELET_CLIENT
KUBELET_SERVING = wellknown.SIGNER_KUBELET_SERVING
SIGNERS = (API_CLIENT, KUBELET_CLIENT, KUBELET_SERVING)
NODES, NODE = "system:nodes", "system:node:"
BACKDATE = 300.0  # seconds: clocks differ
SHORT = 8 * 3600.0
COMMON = ("digital signature", "key encipherment")
_BITS = {
    "signing": "digital_signature", "digital signature": "digital_signature", "content commitment": "content_commitment",
    "key encipherment": "key_encipherment", "key agreement": "key_agreement", "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign", "crl sign": "crl_sign", "encipher only": "encipher_only", "decipher only": "decipher_only",
}  # fmt: skip
_EXTENDED = {
    "any": EKU.ANY_EXTENDED_KEY_USAGE, "server auth": EKU.SERVER_AUTH, "client auth": EKU.CLIENT_AUTH,
    "code signing": EKU.CODE_SIGNING, "email protection": EKU.EMAIL_PROTECTION, "s/mime": EKU.EMAIL_PROTECTION,
    "timestamping": EKU.TIME_STAMPING, "ocsp signing": EKU.OCSP_SIGNING,
}  # fmt: skip


class Unfit(Exception):
    """The signer does not sign such a request."""


@dataclass(frozen=True)
class Authority:
    """The CA that signs, and how long its certificates are good, in seconds, unless a request asks for less."""

    certificate: x509.Certificate
    key: Any
    seconds: float

    @classmethod
    def load(cls, certificate: bytes, key: bytes, seconds: float) -> Authority:
        """From PEM. Raises ValueError."""
        return cls(x509.load_pem_x509_certificate(certificate), load_pem_private_key(key, None), seconds)


def parse(request: str) -> x509.CertificateSigningRequest:
    """Of spec.request. Raises ValueError."""
    return x509.load_pem_x509_csr(base64.b64decode(request))


def common_name(request: x509.CertificateSigningRequest) -> str:
    names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def check(signer: str, request: x509.CertificateSigningRequest, usages: Sequence[str]) -> None:
    """Raises Unfit with upstream's reason."""
    if signer == API_CLIENT:
        _usages(usages, "client auth", needed=("client auth",))
        return
    organisations = [str(o.value) for o in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if organisations != [NODES]:
        raise Unfit("subject organization is not system:nodes")
    names = alternatives(request)
    hosts = [n for n in names if isinstance(n, x509.DNSName)]
    addresses = [n for n in names if isinstance(n, x509.IPAddress)]
    if signer == KUBELET_CLIENT:
        if hosts:
            raise Unfit("DNS subjectAltNames are not allowed")
        if addresses:
            raise Unfit("IP subjectAltNames are not allowed")
    elif not hosts and not addresses:
        raise Unfit("DNS or IP subjectAltName is required")
    if any(isinstance(n, x509.RFC822Name) for n in names):
        raise Unfit("Email subjectAltNames are not allowed")
    if any(isinstance(n, x509.UniformResourceIdentifier) for n in names):
        raise Unfit("URI subjectAltNames are not allowed")
    if not common_name(request).startswith(NODE):
        raise Unfit("subject common name does not begin with system:node:")
    purpose = "client auth" if signer == KUBELET_CLIENT else "server auth"
    _usages(usages, purpose, needed=(purpose, "digital signature"))


def fits(signer: str, request: x509.CertificateSigningRequest, usages: Sequence[str]) -> bool:
    try:
        check(signer, request, usages)
    except Unfit:
        return False
    return True


def _usages(usages: Sequence[str], auth: str, needed: Sequence[str]) -> None:
    if any(u not in (*COMMON, auth) for u in usages) or any(n not in usages for n in needed):
        raise Unfit(f"usages did not match [{' '.join((*COMMON, auth))}]")


def alternatives(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (x509.ExtensionNotFound, ValueError):
        return []


def sign(
    authority: Authority, request: x509.CertificateSigningRequest, usages: Sequence[str], expiration: float | None, now: float,
    serial: int,
) -> bytes:  # fmt: skip
    """The certificate as PEM. ``expiration``: spec.expirationSeconds."""
    seconds = min(authority.seconds, expiration) if expiration else authority.seconds
    begins = now - BACKDATE
    ends = (now if seconds < SHORT else begins) + seconds  # a short life is not made shorter by the backdating
    ends = min(ends, authority.certificate.not_valid_after_utc.timestamp())
    public: Any = request.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_time(begins))
        .not_valid_after(_time(ends))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    bits = [_BITS[u] for u in usages if u in _BITS]
    if bits:
        builder = builder.add_extension(_key_usage(bits), critical=True)
    extended = [_EXTENDED[u] for u in usages if u in _EXTENDED]
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    if names := alternatives(request):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _key_usage(bits: Sequence[str]) -> x509.KeyUsage:
    every = dict.fromkeys(_BITS.values(), False) | dict.fromkeys(bits, True)
    if not every["key_agreement"]:
        every["encipher_only"] = every["decipher_only"] = False
    return x509.KeyUsage(**every)


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
