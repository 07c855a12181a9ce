"""Service-account tokens: JWTs signed by the cluster, bound to an account and, if asked, to a pod or a node.

Signing and reading only; whether account and pod still live is for
:mod:`apiserver.authn.accounts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from navarch.api.signing import Key, load_key
from navarch.world import World

ISSUER = "https://kubernetes.default.svc.cluster.local"
# A pod that asks for this gets a token that lives a year: its client may not know how to read it again (KEP-1205).
WARN_SECONDS = 3607
EXTENDED_SECONDS = 365 * 24 * 3600
PRIVATE = "kubernetes.io"
LEGACY_ISSUER = "kubernetes/serviceaccount"
"""Of tokens in Secrets, which controllers/tokens writes. Their claims lie flat, below this prefix."""


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
    """The content of a token, once its signature is known to be right."""

    namespace: str
    account: Reference
    audiences: tuple[str, ...]
    expires: float
    not_before: float
    id: str = ""
    pod: Reference | None = None
    secret: Reference | None = None
    node: Reference | None = None
    warn_after: float = 0.0  # when whoever still uses the token should have read it again; 0: never
    legacy: bool = False  # of a Secret: has no audience and no end
    raw: dict[str, Any] = field(default_factory=dict)


def new_key() -> bytes:
    """A new private key (P-256) as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class TokenIssuer:
    """Signs with the first key that is private (PEM), verifies with any, so that keys can be rotated.

    ``issuer``: the first one signs, all are believed. ``audiences``: those of the API server; the first is what a token
    gets that names none. ``longest``: seconds that a token may live, 0 for no limit. ``extend``: pods' tokens live a
    year, see WARN_SECONDS.
    """

    def __init__(
        self, world: World, keys: Sequence[bytes], issuer: str | Sequence[str] = ISSUER, audiences: Sequence[str] = (),
        longest: int = 0, extend: bool = True,
    ) -> None:  # fmt: skip
        self.world, self.longest, self.extend = world, longest, extend
        self.issuers = (issuer,) if isinstance(issuer, str) else tuple(issuer)
        self.issuer = self.issuers[0]
        self.audiences = tuple(audiences) or self.issuers
        loaded = [load_key(pem) for pem in keys]
        self._keys: dict[str, Key] = {key.id: key for key in loaded}
        signers = [key for key in loaded if key.private is not None]
        if not signers:
            raise ValueError("no service-account key is a private one: nothing could sign tokens")
        self._signer = signers[0]

    def issue(
        self, namespace: str, account: Reference, *, seconds: int, audiences: Sequence[str] = (),
        pod: Reference | None = None, secret: Reference | None = None, node: Reference | None = None,
    ) -> str:  # fmt: skip
        """A signed token that is good for ``seconds`` from now."""
        now = int(self.world.now())
        token_audiences = list(audiences) or list(self.audiences)
        private: dict[str, Any] = {"namespace": namespace, "serviceaccount": vars(account)}
        for name, reference in (("pod", pod), ("secret", secret), ("node", node)):
            if reference is not None:
                private[name] = vars(reference)
        lives = seconds
        if self.extend and pod is not None and seconds == WARN_SECONDS and set(token_audiences) <= set(self.audiences):
            private["warnafter"] = now + seconds
            lives = min(EXTENDED_SECONDS, self.longest or EXTENDED_SECONDS)
        claims = {
            "aud": token_audiences, "exp": now + lives, "iat": now, "iss": self.issuer, "jti": self.world.uid(), "nbf": now,
            "sub": f"system:serviceaccount:{namespace}:{account.name}", PRIVATE: private,
        }  # fmt: skip
        return jwt.encode(claims, self._signer.private, self._signer.algorithm, {"kid": self._signer.id})

    def issued(self, token: str) -> bool:
        """Whether a token says that it is from here; nothing is verified."""
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError):
            return False
        return claims.get("iss") in (*self.issuers, LEGACY_ISSUER)

    def read(self, token: str) -> Claims:
        """The claims of a token with a right signature. Raises InvalidToken; does not look at time or audience."""
        try:
            verifier = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
            if verifier is None:
                raise InvalidToken("the token is signed by a key that this server does not know")
            options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
            issuers = [*self.issuers, LEGACY_ISSUER]
            raw = jwt.decode(token, verifier.public, [verifier.algorithm], options=options, issuer=issuers)
            if raw["iss"] == LEGACY_ISSUER:
                return _legacy(raw)
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
                warn_after=float(private.get("warnafter") or 0),
                raw=raw,
            )
        except (jwt.PyJWTError, KeyError, TypeError, ValueError) as error:
            raise InvalidToken(str(error)) from None

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517)."""
        out = []
        for key in self._keys.values():
            codec = RSAAlgorithm if key.algorithm == "RS256" else ECAlgorithm
            out.append(codec.to_jwk(key.public, as_dict=True) | {"use": "sig", "kid": key.id, "alg": key.algorithm})
        return {"keys": out}

    def openid_configuration(self, jwks_uri: str) -> dict[str, Any]:
        """The discovery document of the issuer."""
        return {
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key.algorithm for key in self._keys.values()}),
        }


def _reference(private: dict[str, Any], name: str) -> Reference | None:
    return Reference(**private[name]) if private.get(name) else None


def _legacy(raw: dict[str, Any]) -> Claims:
    def claim(name: str) -> str:
        return str(raw[f"{LEGACY_ISSUER}/{name}"])

    return Claims(
        claim("namespace"), Reference(claim("service-account.name"), claim("service-account.uid")), (), 0.0, 0.0,
        secret=Reference(claim("secret.name"), ""), legacy=True, raw=raw,
    )  # fmt: skip
