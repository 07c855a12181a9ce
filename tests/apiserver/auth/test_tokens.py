"""Static tokens, bootstrap tokens, OIDC, tokens of Secrets; impersonation."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from apiserver.authn import impersonation
from apiserver.authn.accounts import AccountTokens
from apiserver.authn.authenticator import Authenticator, bearer_token
from apiserver.authn.bootstraptokens import BootstrapTokens
from apiserver.authn.configuration import Anonymous, authentication, from_flags, parse
from apiserver.authn.oidc import OIDC
from apiserver.authn.tokenfile import TokenFile
from apiserver.authn.tokenfile import parse as parse_file
from apiserver.authn.tokens import InvalidToken, Reference, TokenIssuer, new_key
from apiserver.config import Config
from apiserver.request import ANONYMOUS, User
from navarch.api.errors import InternalError, Unauthorized
from navarch.api.signing import load_key
from navarch.api.times import format_time
from navarch.world import RealWorld
from tests.apiserver.auth.support import Cluster, World, cluster

AUDIENCES = ("api",)


def in_cluster(test: Callable[[Cluster], Awaitable[None]]) -> None:
    async def main() -> None:
        async with cluster() as made:
            await test(made)

    RealWorld().run(main)


def test_token_file(caplog: pytest.LogCaptureFixture) -> None:
    text = 'a,jane,1,"x, y"\n# a comment\nb,joe,2\n\n,nobody,3\na,june,4,z\n'
    users = parse_file(text.splitlines(), "f")
    assert users == {"a": User("june", ("z",), "4"), "b": User("joe", (), "2")}
    assert "f:5: no token" in caplog.text and "f:6: the token has been given before" in caplog.text
    with pytest.raises(ValueError, match="f:1: a line has at least 3 columns"):
        parse_file(["a,b"], "f")


def test_bearer() -> None:
    def token(*headers: tuple[bytes, bytes]) -> str:
        return bearer_token({"headers": headers})

    assert token((b"authorization", b"Bearer abc")) == token((b"authorization", b"bearer abc ")) == "abc"
    assert token((b"authorization", b"Basic abc")) == token((b"authorization", b"Bearer")) == token() == ""
    packed = b"base64url.bearer.authorization.k8s.io." + base64.urlsafe_b64encode(b"abc?").rstrip(b"=")
    assert token((b"sec-websocket-protocol", b"v4.channel.k8s.io, " + packed)) == "abc?"
    assert token((b"sec-websocket-protocol", packed)) == "", "a protocol to choose must be there, too"


def secret(world: World, **data: str) -> str:
    values = {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"} | data
    packed = {k.replace("_", "-"): base64.b64encode(v.encode()).decode() for k, v in values.items()}
    return json.dumps({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token", "data": packed,
        "metadata": {"namespace": "kube-system", "name": "bootstrap-token-abcdef"},
    })  # fmt: skip


def test_bootstrap_tokens() -> None:
    async def test(made: Cluster) -> None:
        kinds = [BootstrapTokens(made.world, made.cache)]
        authenticator = Authenticator(made.world, AUDIENCES, kinds)
        token = "abcdef.0123456789abcdef"

        async def groups(**data: str) -> tuple[str, ...]:
            await made.put(secret(made.world, **data))
            found = await authenticator.identify(token, AUDIENCES)
            assert found.user.name == "system:bootstrap:abcdef" and found.audiences == AUDIENCES
            return found.user.groups

        assert await groups() == ("system:bootstrappers", "system:authenticated")
        extra = await groups(**{"auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a"})
        assert extra[1:3] == ("system:bootstrappers:a", "system:bootstrappers:b")
        soon = made.world.now() + 60
        await groups(expiration=format_time(soon))
        for wrong in (
            {"token-secret": "another0another0"}, {"usage-bootstrap-authentication": "yes"}, {"token-id": "fedcba"},
            {"expiration": format_time(soon - 120)}, {"expiration": "some day"}, {"auth-extra-groups": "system:masters"},
        ):  # fmt: skip
            with pytest.raises(InvalidToken):
                await groups(**wrong)
        await made.put(secret(made.world).replace("bootstrap.kubernetes.io/token", "Opaque"))
        with pytest.raises(InvalidToken):
            await authenticator.identify(token, AUDIENCES)
        await made.put(secret(made.world))
        with pytest.raises(InvalidToken):
            await authenticator.identify(token, ("another",))

    in_cluster(test)


class Provider:
    """An OpenID issuer: its keys, and what it answers to whom asks for them."""

    url = "https://issuer.example"

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.down, self.asked = False, 0
        self.add("one")

    def add(self, id: str) -> None:
        made = rsa.generate_private_key(65537, 2048)
        self.keys[id] = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    async def fetch(self, url: str) -> bytes:
        self.asked += 1
        if self.down:
            raise OSError("no route")
        if url == f"{self.url}/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        assert url == f"{self.url}/keys"
        listed = [
            jwt.algorithms.RSAAlgorithm.to_jwk(load_key(pem).public, as_dict=True) | {"kid": id, "use": "sig"}
            for id, pem in self.keys.items()
        ]
        return json.dumps({"keys": listed}).encode()

    def token(self, world: World, key: str = "one", **claims: Any) -> str:
        known = {"iss": self.url, "aud": "me", "sub": "jane", "exp": int(world.now()) + 60}
        return jwt.encode(known | claims, self.keys[key].decode(), "RS256", {"kid": key})


class Clock(World):
    at = 1000.0

    def monotonic(self) -> float:
        return self.at


OIDC_FLAGS = Config(
    oidc_issuer_url=Provider.url, oidc_client_id="me", oidc_groups_claim="groups", oidc_groups_prefix="oidc:",
    oidc_required_claim=("hd=example.com",),
)  # fmt: skip


class Visitor:
    """Somebody with tokens of an OIDC provider, and the authenticator that judges them."""

    def __init__(self, world: World) -> None:
        self.world, self.provider, self.clock = world, Provider(), Clock()
        (issuer,) = from_flags(OIDC_FLAGS)
        self.oidc = OIDC(self.clock, issuer, self.provider.fetch)
        self.authenticator = Authenticator(world, AUDIENCES, [self.oidc])

    async def user(self, **claims: Any) -> User:
        token = self.provider.token(self.world, **{"hd": "example.com"} | claims)
        return (await self.authenticator.identify(token, AUDIENCES)).user

    async def refused(self, match: str, **claims: Any) -> None:
        with pytest.raises(InvalidToken, match=match):
            await self.user(**claims)


def test_oidc() -> None:
    async def test(made: Cluster) -> None:
        visitor = Visitor(made.world)
        provider, authenticator, user, refused = visitor.provider, visitor.authenticator, visitor.user, visitor.refused
        await refused("not initialized")
        await visitor.oidc.keys.refresh()
        assert await user() == User(f"{provider.url}#jane", ("system:authenticated",))
        assert (await user(groups=["a", "b"])).groups == ("oidc:a", "oidc:b", "system:authenticated")
        assert (await user(groups="a")).groups == ("oidc:a", "system:authenticated")
        await refused("expired", exp=int(made.world.now()) - 1)
        await refused("not before", nbf=int(made.world.now()) + 3600)
        await refused("Audience", aud="you")
        await refused("value does not match", hd="example.org")
        await refused("must be a string", sub=7)
        with pytest.raises(InvalidToken, match=r"^invalid bearer token$"):  # another issuer's: not looked at
            await user(iss="https://other.example")
        strange = jwt.encode({"iss": provider.url, "aud": "me", "exp": 1}, "s" * 32, "HS256", {"kid": "one"})
        with pytest.raises(InvalidToken, match="unsupported algorithm"):
            await authenticator.identify(strange, AUDIENCES)
        stolen = Provider().token(made.world, hd="example.com")
        with pytest.raises(InvalidToken, match="Signature"):
            await authenticator.identify(stolen, AUDIENCES)

    in_cluster(test)


def test_oidc_keys_that_come_and_go() -> None:
    """A new key is fetched when a token names it, but not as often as tokens name keys that do not exist."""

    async def test(made: Cluster) -> None:
        visitor = Visitor(made.world)
        provider, clock, authenticator, user = visitor.provider, visitor.clock, visitor.authenticator, visitor.user
        await visitor.oidc.keys.refresh()
        provider.add("two")
        clock.at += 100
        assert (await user(key="two")).name.endswith("#jane")
        asked = provider.asked
        made_up = Provider()
        made_up.add("three")
        for _ in range(5):
            with pytest.raises(InvalidToken, match="no key"):
                await authenticator.identify(made_up.token(made.world, "three"), AUDIENCES)
        assert provider.asked == asked
        provider.down = True
        clock.at += 100
        with pytest.raises(InvalidToken, match="no key"):
            await authenticator.identify(made_up.token(made.world, "three"), AUDIENCES)
        assert (await user(key="two", n=2)).name.endswith("#jane"), "keys that are known stay good without the issuer"

    in_cluster(test)


STRUCTURED: dict[str, Any] = {
    "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
    "anonymous": {"enabled": True, "conditions": [{"path": "/livez"}]},
    "jwt": [{
        "issuer": {"url": Provider.url, "audiences": ["me", "us"], "audienceMatchPolicy": "MatchAny"},
        "claimValidationRules": [
            {"expression": "claims.email_verified == true", "message": "verify your address"},
            {"claim": "hd", "requiredValue": "example.com"},
        ],
        "claimMappings": {
            "username": {"expression": "claims.email.split('@')[0] + ':external'"},
            "groups": {"expression": "claims.roles.map(r, 'role-' + r)"},
            "uid": {"claim": "sub"},
            "extra": [{"key": "example.com/tenant", "valueExpression": "claims.tenant"}],
        },
        "userValidationRules": [
            {"expression": "!user.username.startsWith('system:')", "message": "no system users"},
            {"expression": "user.groups.all(g, g != 'role-root')"},
        ],
    }],
}  # fmt: skip


def test_structured_authentication() -> None:
    found, problems = parse(STRUCTURED, Anonymous())
    assert not problems and found.anonymous.allows("/livez") and not found.anonymous.allows("/readyz")
    mappings = found.issuers[0].mappings
    claims: dict[str, Any] = {
        "email": "jane@x", "email_verified": True, "hd": "example.com", "sub": "9", "roles": ["dev"], "tenant": "t",
    }  # fmt: skip
    assert mappings.user(claims) == User("jane:external", ("role-dev",), "9", {"example.com/tenant": ["t"]})
    for change, text in (
        ({"email_verified": False}, "verify your address"), ({"hd": "x"}, "does not match"),
        ({"email": "system:x@y"}, "no system users"), ({"roles": ["root"]}, "resulted in false"),
    ):  # fmt: skip
        with pytest.raises(InvalidToken, match=text):
            mappings.user(claims | change)


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (("issuer", "url"), "http://x", "jwt[0].issuer.url: Invalid value: 'http://x': URL scheme must be https"),
        (("issuer", "audienceMatchPolicy"), "", "jwt[0].issuer.audienceMatchPolicy: Invalid value"),
        (("issuer", "audiences"), [], "jwt[0].issuer.audiences: Required value"),
        (("claimMappings", "username"), {}, "jwt[0].claimMappings.username: Required value"),
        (("claimMappings", "uid"), {"claim": "a", "expression": "claims.b"}, "can't both be set"),
        (("claimMappings", "groups"), {"claim": "a"}, "jwt[0].claimMappings.groups.prefix: Required value"),
        (("claimValidationRules",), [{"claim": "hd", "requiredValue": "x"}], "must look at claims.email_verified"),
        (("userValidationRules",), [{"expression": "user.("}], "compilation failed"),
        (("surprise",), 1, 'unknown field "jwt[0].surprise"'),
    ],
)
def test_structured_authentication_is_checked(at: tuple[str, ...], value: Any, text: str) -> None:
    tree = json.loads(json.dumps(STRUCTURED))
    node = tree["jwt"][0]
    for name in at[:-1]:
        node = node[name]
    node[at[-1]] = value
    _, problems = parse(tree, Anonymous())
    assert any(text in p for p in problems), problems


def test_flags_are_checked(tmp_path: Path) -> None:
    for config, text in (
        (Config(oidc_issuer_url="https://x"), "together"),
        (Config(oidc_issuer_url="http://x", oidc_client_id="c"), "https"),
        (Config(oidc_issuer_url="https://x", oidc_client_id="c", oidc_required_claim=("x",)), "KEY=VALUE"),
        (Config(oidc_issuer_url="https://x", oidc_client_id="c", oidc_signing_algs=("HS256",)), "HS256"),
        (Config(authentication_config="x", oidc_client_id="c"), "cannot be used together"),
    ):
        with pytest.raises(ValueError, match=text):
            authentication(config)
    file = tmp_path / "a.yaml"
    file.write_text("kind: Wrong")
    with pytest.raises(ValueError, match="AuthenticationConfiguration"):
        authentication(Config(authentication_config=str(file)))


ACCOUNT = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: sa, namespace: ns}
"""


SA = Reference("sa", "uid-sa")


class Accounts:
    """Tokens of the account ns/sa, and an authenticator that knows them; one key and one issuer are older."""

    def __init__(self, made: Cluster) -> None:
        keys = [new_key(), new_key()]
        self.old = TokenIssuer(made.world, [keys[1]], "https://old")
        self.issuer = TokenIssuer(made.world, keys, ["https://new", "https://old"], ("api", "other"))
        accounts = AccountTokens(made.world, made.cache, self.issuer)
        self.identify = Authenticator(made.world, self.issuer.audiences, [TokenFile({}), accounts]).identify


def test_account_tokens_of_an_older_key_and_issuer() -> None:
    async def test(made: Cluster) -> None:
        await made.put(ACCOUNT)
        accounts = Accounts(made)
        earlier = accounts.old.issue("ns", SA, seconds=600, audiences=["other", "vault"])
        assert (await accounts.identify(earlier, accounts.issuer.audiences)).audiences == ("other",)
        assert (await accounts.identify(earlier, ("vault",))).audiences == ("vault",)

    in_cluster(test)


def test_a_token_of_a_node_dies_with_the_node() -> None:
    async def test(made: Cluster) -> None:
        await made.put(ACCOUNT)
        accounts = Accounts(made)
        await made.put("{apiVersion: v1, kind: Node, metadata: {name: n}}")
        bound = accounts.issuer.issue("ns", SA, seconds=600, node=Reference("n", "uid-n"))
        user = (await accounts.identify(bound, ("api",))).user
        assert user.extra["authentication.kubernetes.io/node-name"] == ["n"]
        await made.drop("nodes/n")
        with pytest.raises(InvalidToken, match="node n has been deleted"):
            await accounts.identify(bound, ("api",))

    in_cluster(test)


def test_an_account_that_is_being_deleted_is_believed_for_one_more_minute() -> None:
    async def test(made: Cluster) -> None:
        await made.put(ACCOUNT)
        accounts = Accounts(made)
        token = accounts.issuer.issue("ns", SA, seconds=600)
        for ago, good in ((30, True), (90, False)):
            begun = format_time(made.world.now() - ago)
            await made.put(ACCOUNT.replace("namespace: ns", f'namespace: ns, deletionTimestamp: "{begun}"'))
            if good:
                await accounts.identify(token, ("api",))
            else:
                with pytest.raises(InvalidToken, match="has been deleted"):
                    await accounts.identify(token, ("api",))

    in_cluster(test)


def test_stale_tokens_stand_in_the_audit_log() -> None:
    """Who still uses a token after its time to be read again."""

    async def test(made: Cluster) -> None:
        await made.put(ACCOUNT)
        accounts = Accounts(made)
        await made.put("{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}, spec: {}}")
        late = accounts.issuer.issue("ns", SA, seconds=3607, pod=Reference("p", "uid-p"))
        made.world.ahead = 3700
        stale = await accounts.identify(late, ("api",))
        text = stale.annotations["authentication.k8s.io/stale-token"]
        assert text.startswith("subject: system:serviceaccount:ns:sa, seconds after warning threshold: 9")

    in_cluster(test)


def test_the_longest_time_of_an_issuer_bounds_the_extension() -> None:
    async def test(made: Cluster) -> None:
        short = TokenIssuer(made.world, [new_key(), new_key()], longest=7200)
        claims = short.read(short.issue("ns", SA, seconds=3607, pod=Reference("p", "uid-p")))
        assert claims.expires - claims.not_before == 7200

    in_cluster(test)


def test_tokens_of_secrets() -> None:
    async def test(made: Cluster) -> None:
        key, used = new_key(), []
        issuer = TokenIssuer(made.world, [key], "https://me", AUDIENCES)
        accounts = AccountTokens(made.world, made.cache, issuer, lambda *key: used.append(key))
        authenticator = Authenticator(made.world, AUDIENCES, [accounts])
        loaded = load_key(key)
        claims = {
            "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:ns:sa",
            "kubernetes/serviceaccount/namespace": "ns", "kubernetes/serviceaccount/secret.name": "s",
            "kubernetes/serviceaccount/service-account.name": "sa",
            "kubernetes/serviceaccount/service-account.uid": "uid-sa",
        }  # fmt: skip
        token = jwt.encode(claims, loaded.private, loaded.algorithm, {"kid": loaded.id})
        await made.put(ACCOUNT)
        with pytest.raises(InvalidToken, match="secret s has been deleted"):
            await authenticator.identify(token, AUDIENCES)
        held = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "ns"},
            "type": "kubernetes.io/service-account-token", "data": {"token": base64.b64encode(token.encode()).decode()},
        }  # fmt: skip
        await made.put(json.dumps(held))
        found = await authenticator.identify(token, AUDIENCES)
        assert found.user.name == "system:serviceaccount:ns:sa" and found.audiences == AUDIENCES and used == [("ns", "s")]
        held["data"] = {"token": ""}
        await made.put(json.dumps(held))
        with pytest.raises(InvalidToken, match="does not match server's copy"):
            await authenticator.identify(token, AUDIENCES)

    in_cluster(test)


def test_who_authenticates_first() -> None:
    async def test(made: Cluster) -> None:
        issuer = TokenIssuer(made.world, [new_key()])
        kinds = [TokenFile({"t": User("jane")}), AccountTokens(made.world, made.cache, issuer)]
        authenticator = Authenticator(made.world, AUDIENCES, kinds)

        async def user(token: str, certificate: bytes = b"") -> User | None:
            headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
            return await authenticator.authenticate({"headers": headers, "navarch.peer_certificate": certificate})

        assert await user("") is None
        assert await user("t") == User("jane", ("system:authenticated",))
        assert await user("t", b"no certificate") == User("jane", ("system:authenticated",))
        for token, certificate in (("no", b""), ("", b"no certificate")):
            with pytest.raises(Unauthorized):
                await user(token, certificate)

    in_cluster(test)


def test_impersonation() -> None:
    def asked(**headers: str) -> impersonation.Impersonation | None:
        named = [(b"impersonate-" + k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        return impersonation.impersonation_of([*named, (b"accept", b"*/*")])

    assert asked() is None
    with pytest.raises(InternalError, match="without impersonating a user"):
        asked(group="g")
    found = asked(user="jane", uid="7", group="g", **{"extra_a%2fb": "1"})
    assert found is not None and found.extra == {"a/b": ["1"]}
    rights = [(r.group, r.resource, r.subresource, r.namespace, r.name) for r in impersonation.rights(found, "/")]
    assert rights == [
        ("", "users", "", "", "jane"), ("", "groups", "", "", "g"),
        ("authentication.k8s.io", "userextras", "a/b", "", "1"), ("authentication.k8s.io", "uids", "", "", "7"),
    ]  # fmt: skip
    assert impersonation.impersonated(found) == User("jane", ("g", "system:authenticated"), "7", {"a/b": ["1"]})
    account = asked(user="system:serviceaccount:ns:a")
    assert account is not None
    (right,) = impersonation.rights(account, "/")
    assert (right.resource, right.namespace, right.name) == ("serviceaccounts", "ns", "a")
    groups = ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")
    assert impersonation.impersonated(account).groups == groups
    nobody = asked(user="system:anonymous")
    assert nobody is not None and replace(impersonation.impersonated(nobody), extra={}) == replace(ANONYMOUS, extra={})
