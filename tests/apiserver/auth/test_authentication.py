from __future__ import annotations

import datetime

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from apiserver.authn.accounts import AccountTokens
from apiserver.authn.authenticator import Authenticator
from apiserver.authn.tokens import WARN_SECONDS, InvalidToken, Reference, TokenIssuer, new_key
from navarch.api.errors import Unauthorized
from tests.apiserver.auth.support import World, cluster

SA, POD = Reference("sa", "uid-sa"), Reference("p", "uid-p")
OBJECTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: sa, namespace: ns}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: ns}
spec: {containers: []}
"""


def rsa_key() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def bearer(token: str) -> dict[str, object]:
    return {"headers": [(b"authorization", f"Bearer {token}".encode())]}


@pytest.mark.parametrize("make_key", [new_key, rsa_key])
async def test_tokens(make_key: object) -> None:
    issuer = TokenIssuer(World(), [make_key()])  # type: ignore[operator]

    async with cluster() as made:
        issuer.world = made.world
        accounts = AccountTokens(made.world, made.cache, issuer)
        authenticator = Authenticator(made.world, issuer.audiences, [accounts])
        await made.put(OBJECTS)
        token = issuer.issue("ns", SA, seconds=600, pod=POD)
        user = await authenticator.authenticate(bearer(token))
        assert user is not None and user.name == "system:serviceaccount:ns:sa" and user.uid == "uid-sa"
        assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")
        assert user.extra["authentication.kubernetes.io/pod-name"] == ["p"]
        elsewhere = issuer.issue("ns", SA, seconds=600, audiences=["vault"])
        foreign = TokenIssuer(made.world, [new_key()]).issue("ns", SA, seconds=600)
        for bad in (token[:-4] + "AAAA", "no.such.token", elsewhere, foreign):
            with pytest.raises(Unauthorized):
                await authenticator.authenticate(bearer(bad))
        assert accounts.verify(elsewhere, ("vault",))[1].audiences == ("vault",)
        # A pod's own token dies with the pod, the account's with the account, each with time.
        await made.drop("pods/ns/p")
        with pytest.raises(InvalidToken, match="pod p has been deleted"):
            accounts.verify(token)
        unbound = issuer.issue("ns", SA, seconds=600)
        accounts.verify(unbound)
        made.world.ahead = 601
        with pytest.raises(InvalidToken, match="expired"):
            accounts.verify(unbound)
        fresh = issuer.issue("ns", SA, seconds=600)
        await made.put(OBJECTS.replace("name: sa", "uid: another, name: sa"))
        with pytest.raises(InvalidToken, match="UID"):
            accounts.verify(fresh)


def test_published_keys_verify_tokens() -> None:
    world = World()
    issuer = TokenIssuer(world, [new_key(), rsa_key()])
    token = issuer.issue("ns", SA, seconds=WARN_SECONDS, pod=POD)
    keys = jwt.PyJWKSet.from_dict(issuer.jwks())
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid].key, ["ES256"], audience=issuer.issuer)
    assert claims["kubernetes.io"]["warnafter"] - claims["iat"] == WARN_SECONDS
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    algorithms = issuer.openid_configuration("https://x/openid/v1/jwks")["id_token_signing_alg_values_supported"]
    assert algorithms == ["ES256", "RS256"]


def certificate(name: str, groups: list[str], days: int) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups]
    subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime.fromtimestamp(World().now() - 86400, datetime.UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 1, start, start + datetime.timedelta(days=days))
    return made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


async def test_client_certificates() -> None:
    async with cluster() as made:
        authenticator = Authenticator(made.world, ("api",), [])
        scope = {"navarch.peer_certificate": certificate("jane", ["dev", "ops"], 9)}
        for _ in range(2):  # the second time from memory
            user = await authenticator.authenticate(scope)
            assert user is not None
            assert (user.name, user.groups) == ("jane", ("dev", "ops", "system:authenticated"))
        made.world.ahead = 10 * 86400
        with pytest.raises(Unauthorized):
            await authenticator.authenticate(scope)
        assert await authenticator.authenticate({"headers": []}) is None
