"""The pure parts of a pull: challenges, manifests, registries.conf, credentials, and what leaves the machine."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.types import core_v1
from navarch.egress import Egress, EgressClosed, machine_allows, of_machine
from nodeagent.images import challenge, manifests, registries
from nodeagent.images.credentials import Login, of_secrets
from nodeagent.images.distribution import complaint
from nodeagent.images.manifests import BadManifest
from nodeagent.images.reference import parse

HELM = "application/vnd.cncf.helm.config.v1+json"
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        ('Basic realm="x"', "basic", {"realm": "x"}),
        ('Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"', "bearer",
         {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"}),
        ('Basic realm="x", Bearer realm="y"', "bearer", {"realm": "y"}),
        ('bearer realm = "a\\"b" , service=s', "bearer", {"realm": 'a"b', "service": "s"}),
        ("Negotiate, Basic realm=x", "basic", {"realm": "x"}),
    ],
)  # fmt: skip
def test_challenges(header: str, scheme: str, parameters: dict[str, str]) -> None:
    found = challenge.choose(header)
    assert found is not None and (found.scheme, found.parameters) == (scheme, parameters)


@given(st.text(max_size=80))
def test_no_header_breaks_the_reader(header: str) -> None:
    found = challenge.choose(header)
    assert found is None or found.scheme in ("bearer", "basic")


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_a_header_is_read_as_it_was_written(parameters: dict[str, str]) -> None:
    escaped = {k: v.replace("\\", "\\\\").replace('"', '\\"') for k, v in parameters.items()}
    header = "Bearer " + ",".join(f'{k}="{v}"' for k, v in escaped.items())
    if not any("\n" in v for v in parameters.values()):
        assert challenge.parse(header)[0].parameters == parameters


def test_tokens() -> None:
    found = challenge.choose('Bearer realm="https://a/t?x=1",service="s"')
    assert found is not None
    assert challenge.token_url(found, "repository:a:pull") == "https://a/t?x=1&service=s&scope=repository%3Aa%3Apull"
    for realm in ("", "file:///etc/passwd", "nothing"):
        with pytest.raises(ValueError, match="no place for tokens"):
            challenge.token_url(challenge.Challenge("bearer", {"realm": realm}), "x")
    assert challenge.token_of({"access_token": "t"}) == ("t", 60.0)
    assert challenge.token_of({"token": "t", "expires_in": 300}) == ("t", 300.0)
    for answer in ({}, [], {"token": ""}, {"token": 1}, {"token": "a\r\nX: y"}):
        with pytest.raises(ValueError, match="gave none"):
            challenge.token_of(answer)


def entry(machine: str, variant: str = "", system: str = "linux", digest: str = DIGEST) -> dict[str, object]:
    platform = {"os": system, "architecture": machine, **({"variant": variant} if variant else {})}
    return {"digest": digest, "size": 1, "platform": platform}


def test_the_manifest_for_this_machine() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    index = {
        "manifests": [
            entry("arm64", "v8"),
            entry("amd64", "", "windows"),
            entry("amd64", "v1", digest=one),
            entry("amd64", digest=two),
        ]
    }
    assert manifests.choose(index, "amd64").digest == two
    assert manifests.choose(index, "arm64").digest == DIGEST
    with pytest.raises(BadManifest, match="no image for linux/s390x: the index has linux/arm64/v8, windows/amd64"):
        manifests.choose(index, "s390x")
    with pytest.raises(BadManifest, match="linux/arm/v9"):
        manifests.choose({"manifests": [entry("arm", "v9"), entry("unknown", "", "unknown")]}, "arm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": {"digest": "sha256:../../x", "size": 1}}, "config: unsupported digest"),
        ({"config": {"digest": DIGEST}}, "config of the manifest has no digest and size"),
        ({"config": {"digest": DIGEST, "size": -1}}, "config has -1 bytes"),
        ({"config": {"digest": DIGEST, "size": 1 << 30}}, "more than 8388608"),
        ({"config": {"digest": DIGEST, "size": 1, "mediaType": HELM}}, "no image for containers"),
        ({"layers": [{"digest": DIGEST, "size": 1, "mediaType": "application/octet-stream"}]}, "is no layer"),
        ({"layers": [{"digest": DIGEST, "size": 1 << 50}]}, r"layers\[0\] has"),
        ({"layers": [{"digest": DIGEST, "size": True}]}, r"layers\[0\] of the manifest"),
        ({"layers": [{"digest": DIGEST, "size": 1}] * 501}, "at most 500 layers"),
        ({"layers": "x"}, "at most 500 layers"),
    ],
)  # fmt: skip
def test_manifests_that_are_refused(change: dict[str, object], message: str) -> None:
    good = {"schemaVersion": 2, "config": {"digest": DIGEST, "size": 1}, "layers": []}
    assert manifests.read(good).size == 1
    with pytest.raises(BadManifest, match=message):
        manifests.read({**good, **change})


KEYS = ["config", "layers", "digest", "size", "manifests", "platform", "os", "mediaType", "schemaVersion", "fsLayers"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
)


@given(st.dictionaries(st.sampled_from(KEYS), JSON))
def test_whatever_a_manifest_holds_it_is_read_or_refused(document: dict[str, object]) -> None:
    for work in (
        lambda: manifests.kind_of(document, ""),
        lambda: manifests.read(document),
        lambda: manifests.choose(document, "amd64"),
    ):
        try:
            work()
        except BadManifest:
            pass


def test_a_schema_1_manifest_says_what_to_do() -> None:
    with pytest.raises(BadManifest, match="push the image anew"):
        manifests.kind_of({"schemaVersion": 1, "fsLayers": []}, "")
    with pytest.raises(BadManifest, match="for linux/arm64, this machine is linux/amd64"):
        manifests.check_platform({"os": "linux", "architecture": "arm64"}, "amd64")


CONF = """
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "127.0.0.1:5000/hub"
[[registry.mirror]]
location = "mirror.test"
insecure = true
pull-from-mirror = "digest-only"
username = "u"
password = "p"

[[registry]]
location = "docker.io/secret"
blocked = true

[[registry]]
prefix = "*.corp.test"
insecure = true

[[registry]]
prefix = "alias.test:5000"
location = "localhost:5001/deep"
"""


def test_registries() -> None:
    found = registries.Registries(registries.parse(CONF))

    def places(name: str) -> list[str]:
        return [f"{e.api}/{e.path}" for e in found.endpoints(parse(name))]

    assert places("nginx") == ["127.0.0.1:5000/hub/library/nginx", "registry-1.docker.io/library/nginx"]
    by_digest = found.endpoints(parse(f"nginx@{DIGEST}"))
    assert [e.host for e in by_digest] == ["127.0.0.1:5000", "mirror.test", "docker.io"]
    assert by_digest[1].login == Login("u", "p") and by_digest[1].insecure and by_digest[1].mirror
    assert places("a.corp.test/x/y:1") == ["a.corp.test/x/y"] and found.endpoints(parse("a.corp.test/x"))[0].insecure
    assert places("alias.test:5000/app") == ["localhost:5001/deep/app"]
    assert places("alias.test/app") == ["alias.test/app"] and places("quay.io/a/b") == ["quay.io/a/b"]
    with pytest.raises(registries.BadRegistries, match=r"blocks docker\.io/secret"):
        places("secret/app")
    assert places("secretive/app")[1] == "registry-1.docker.io/secretive/app"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[registry]]\nprefx = 'a'", 'registry.0.: unknown key "prefx"; known are prefix, location'),
        ("unqualified-search-registries = []", 'unknown key "unqualified-search-registries"'),
        ("[[registry]]\n", "needs a prefix or a location"),
        ("[[registry]]\nlocation = 'https://a'", "expected HOST"),
        ("[[registry]]\nlocation = 'a'\ninsecure = 'yes'", "insecure: expected true or false"),
        ("[[registry]]\nlocation = 'a'\npassword = 'x'", "there is no username"),
        ("[[registry]]\nlocation = 'a'\n[[registry.mirror]]\nlocation = 'b'\npull-from-mirror = 'x'", "expected one of all"),
        ("[[registry]]\nlocation = 'a'\n[[registry.mirror]]\n", "mirror.0..location"),
        ("[registry", "registries.conf: "),
        ("[registry]\nx = 1", r"write \[\[registry\]\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_registries_conf_is_named(text: str, message: str) -> None:
    with pytest.raises(registries.BadRegistries, match=message):
        registries.parse(text)


def test_a_file_with_a_password_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "registries.conf"
    path.write_text("[[registry]]\nlocation = 'a'\nusername = 'u'\npassword = 'p'\n")
    path.chmod(0o644)
    with pytest.raises(registries.BadRegistries, match="chmod 600"):
        registries.load(path)
    path.chmod(0o600)
    assert registries.load(path, tmp_path / "missing").endpoints(parse("a/b"))[0].login is None, (
        "a has no dot: it is no host"
    )
    assert registries.load(tmp_path / "missing").endpoints(parse("r.test/b"))[0].host == "r.test"


def secret(document: object, type_: str = "kubernetes.io/dockerconfigjson") -> core_v1.Secret:
    key = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson"}.get(type_, ".dockercfg")
    return core_v1.Secret(type=type_, data={key: base64.b64encode(json.dumps(document).encode()).decode()})


@pytest.mark.parametrize(
    ("key", "image", "matches"),
    [
        ("r.example", "r.example/a:1", True),
        ("https://r.example", "r.example/a", True),
        ("https://r.example/v2/", "r.example/a", True),
        ("r.example/team", "r.example/team/a", True),
        ("r.example/team", "r.example/other/a", False),
        ("r.example", "other.example/a", False),
        ("r.example", "r.example:5000/a", False),
        ("r.example:5000", "r.example:5000/a", True),
        ("*.example", "r.example/a", True),
        ("*.example", "a.b.example/a", False),
        ("https://index.docker.io/v1/", "nginx", True),
        ("docker.io", "user/app", True),
        ("index.docker.io", "quay.io/a", False),
        ("", "nginx", False),
    ],
)
def test_which_credentials_are_for_an_image(key: str, image: str, matches: bool) -> None:
    entry = {"auth": base64.b64encode(b"u:p:w").decode()}
    assert of_secrets(parse(image), [secret({"auths": {key: entry}})]) == ([Login("u", "p:w")] if matches else [])
    assert of_secrets(parse(image), [secret({key: entry}, "kubernetes.io/dockercfg")]) == (
        [Login("u", "p:w")] if matches else []
    )
    assert of_secrets(parse(image), [secret({"auths": {key: entry}}, "Opaque")]) == []


def test_the_best_credentials_come_first_and_nobody_prints_them() -> None:
    auths = {
        "r.example": {"username": "a", "password": "1"},
        "r.example/team": {"username": "b", "password": "hunter2"},
    }
    logins = of_secrets(
        parse("r.example/team/x"),
        [secret({"auths": auths}), secret("nonsense"), core_v1.Secret(type="kubernetes.io/dockercfg")],
    )
    assert [login.user for login in logins] == ["b", "a"]
    assert "hunter2" not in repr(logins) + str(logins) + f"{logins[0]}"


@given(JSON)
def test_no_secret_breaks_a_pull(document: object) -> None:
    of_secrets(parse("r.example/a"), [secret(document), secret({"auths": document})])


def test_what_the_registry_says_is_told() -> None:
    assert (
        complaint(404, "Not Found", '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        == "manifest unknown (404)"
    )
    assert (
        complaint(401, "Unauthorized", '{"details":"incorrect username or password"}')
        == "incorrect username or password (401)"
    )
    assert (
        complaint(500, "Oops", "<html>x") == "Oops (500)"
        and complaint(502, "", "bad gateway\nx") == "bad gateway (502)"
    )
    assert complaint(400, "", '{"errors": 5}') == "no reason is given (400)"
    assert "\x1b" not in complaint(400, "", "\x1b[31mred")


def test_egress(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        not machine_allows({"NAVARCH_EGRESS": "OFF"})
        and machine_allows({})
        and machine_allows({"NAVARCH_EGRESS": "on"})
    )
    closed = Egress("egress is off", ("10.200.0.0/16",))
    for host in ("localhost", "127.0.0.1", "[::1]", "::1", "10.200.3.4", "a.localhost"):
        closed.check(host)
    for host in ("docker.io", "192.0.2.1", "10.201.0.1", "localhost.example", "127.0.0.1.example", "0.0.0.0"):
        with pytest.raises(EgressClosed, match=f"{host} is not asked: egress is off"):
            closed.check(host)
        Egress().check(host)
    monkeypatch.setenv("NAVARCH_EGRESS", "off")
    assert "unset NAVARCH_EGRESS && navarch up --lab x" in of_machine(True, " --lab x").reason
    monkeypatch.delenv("NAVARCH_EGRESS")
    assert of_machine().reason == "" and "navarch up --egress on" in of_machine(False).reason
