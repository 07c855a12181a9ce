"""Keys that sign tokens: their algorithm, and the id by which a token names its key. Pure; no file is read here."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class Key(NamedTuple):
    """``private`` is None where only the public half is known."""

    id: str
    algorithm: str  # as JWTs name it
    public: Any
    private: Any = None


def load_key(pem: bytes) -> Key:
    """An RSA or EC key, private or public, from PEM. Raises ValueError."""
    private: Any = None
    try:
        if b"PUBLIC KEY-----" in pem:
            public: Any = load_pem_public_key(pem)
        else:
            private = load_pem_private_key(pem, None)
            public = private.public_key()
    except TypeError as error:
        raise ValueError(f"the key is locked with a password: {error}") from None
    if isinstance(public, rsa.RSAPublicKey):
        algorithm = "RS256"
    elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        algorithm = _CURVES[public.curve.name]
    else:
        raise ValueError("a service-account key must be RSA, P-256, P-384 or P-521")
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Key(base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode(), algorithm, public, private)
