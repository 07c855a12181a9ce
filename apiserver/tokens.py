"""Service-account tokens: JWTs signed by the cluster, bound to an account and, if asked, to a pod or a node.

Signing and reading only; whether account and pod still live is for :mod:`apiserver.authn`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from navarch.world import World

ISSUER = "https://kubernetes.default.svc.cluster.local"
# A pod that asks for this gets a token that lives a year: its client may not know how to read it again (KEP-1205).
WARN_SECONDS = 3607
EXTENDED_SECONDS = 365 * 24 * 3600
PRIVATE = "kubernetes.io"


class InvalidToken(Exception):
    """The token is not one of ours, or no longer good; the text says why. ``curable``: a newer view may think better."""

    def __init__(self, text: str, curable: bool = False) -> None:
        super().__init__(text)
        self.curable = curable


@dataclass(frozen=True)
class Reference:
    """An object that a token is bound to."""

    name: str
    uid: str


@dataclass(frozen=True)
class Claims:
    """What a token says, once its signature is known to be right."""

    namespace: str
    account: Reference
    audiences: tuple[str, ...]
    expires: float
    not_before: float
    id: str = ""
    pod: Reference | None = None
    secret: Reference | None = None
    node: Reference | None = None
    raw: dict[str, Any] = field(default_factory=dict)


def new_key() -> bytes:
    """A new private key (P-256) as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class TokenIssuer:
    """Signs with the first key (RSA or P-256, as PEM), verifies with any, so that keys can be rotated.

    ``audiences``: those of the API server; the first is what a token gets that names none.
    """

    def __init__(
        self, world: World, keys: Sequence[bytes], issuer: str = ISSUER, audiences: Sequence[str] = ()
    ) -> None:
        self.world, self.issuer = world, issuer
        self.audiences = tuple(audiences) or (issuer,)
        self._keys: dict[str, tuple[str, Any]] = {}
        for pem in keys:
            key = load_pem_private_key(pem, None)
            if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
                raise ValueError("a service-account key must be RSA or P-256")
            algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
            public = key.public_key()
            der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            kid = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
            if not self._keys:
                self._signer, self._kid, self._algorithm = key, kid, algorithm
            self._keys[kid] = algorithm, public

    def issue(
        self, namespace: str, account: Reference, *, seconds: int, audiences: Sequence[str] = (),
        pod: Reference | None = None, secret: Reference | None = None, node: Reference | None = None,
    ) -> str:  # fmt: skip
        """A signed token that is good for ``seconds`` from now."""
        now = int(self.world.now())
        wanted = list(audiences) or list(self.audiences)
        private: dict[str, Any] = {"namespace": namespace, "serviceaccount": vars(account)}
        for name, reference in (("pod", pod), ("secret", secret), ("node", node)):
            if reference is not None:
                private[name] = vars(reference)
        lives = seconds
        if pod is not None and seconds == WARN_SECONDS and set(wanted) <= set(self.audiences):
            private["warnafter"] = now + seconds
            lives = EXTENDED_SECONDS
        claims = {
            "aud": wanted, "exp": now + lives, "iat": now, "iss": self.issuer, "jti": self.world.uid(), "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account.name}", PRIVATE: private,
        }  # fmt: skip
        return jwt.encode(claims, self._signer, self._algorithm, {"kid": self._kid})

    def read(self, token: str) -> Claims:
        """The claims of a token with a right signature. Raises InvalidToken; does not look at time or audience."""
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
            known = self._keys.get(kid)
            if known is None:
                raise InvalidToken("the token is signed by a key that this server does not know")
            algorithm, public = known
            options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
            raw = jwt.decode(token, public, [algorithm], options=options, issuer=self.issuer)
            private = raw[PRIVATE]
            audiences = raw.get("aud") or ()
            return Claims(
                private["namespace"],
                Reference(**private["serviceaccount"]),
                (audiences,) if isinstance(audiences, str) else tuple(audiences),
                float(raw["exp"]),
                float(raw["nbf"]),
                raw.get("jti", ""),
                pod=_reference(private, "pod"),
                secret=_reference(private, "secret"),
                node=_reference(private, "node"),
                raw=raw,
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise InvalidToken(str(error)) from None

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517)."""
        out = []
        for kid, (algorithm, public) in self._keys.items():
            codec = RSAAlgorithm if algorithm == "RS256" else ECAlgorithm
            out.append(codec.to_jwk(public, as_dict=True) | {"use": "sig", "kid": kid, "alg": algorithm})
        return {"keys": out}

    def openid_configuration(self, jwks_uri: str) -> dict[str, Any]:
        """The discovery document of the issuer."""
        return {
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({a for a, _ in self._keys.values()}),
        }


def _reference(private: dict[str, Any], name: str) -> Reference | None:
    return Reference(**private[name]) if private.get(name) else None
