"""Client certificates: the common name is the user, organisations are groups.

The TLS layer has checked the chain against the client CA, and that the client holds the key.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from apiserver.authn.identity import CREDENTIAL, Recent, authenticated
from apiserver.request import User
from navarch.api.errors import Unauthorized

UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")
"""The attribute of a subject that holds the user's uid (Kubernetes' own)."""


class Shown(NamedTuple):
    """The user that a certificate names, between two times."""

    user: User
    not_before: float
    not_after: float

    def holds(self, now: float) -> bool:
        return self.not_before <= now <= self.not_after


class Certificates:
    def __init__(self) -> None:
        self._certificates = Recent()

    def user(self, der: bytes, now: float) -> User:
        """Raises Unauthorized for a certificate that names nobody, or is out of its time."""
        certificate = self.shown(der)
        if not certificate.holds(now):
            raise Unauthorized()
        return certificate.user

    def shown(self, der: bytes) -> Shown:
        """Raises Unauthorized for a certificate that names nobody."""
        certificate: Shown | None = self._certificates.get(der)
        if certificate is None:
            certificate = self._certificates.remember(der, _parse(der))
        assert certificate is not None
        return certificate


def _parse(der: bytes) -> Shown:
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise Unauthorized() from error
    names, uids = _values(certificate, NameOID.COMMON_NAME), _values(certificate, UID)
    if not names or not names[0] or len(uids) > 1:
        raise Unauthorized()
    extra = {CREDENTIAL: [f"X509SHA256={hashlib.sha256(der).hexdigest()}"]}
    groups = tuple(_values(certificate, NameOID.ORGANIZATION_NAME))
    user = authenticated(User(names[0], groups, uids[0] if uids else "", extra))
    return Shown(user, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def _values(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> list[str]:
    return [str(a.value) for a in certificate.subject.get_attributes_for_oid(oid)]
