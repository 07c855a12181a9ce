"""Encryption at rest: the forms of values, the configuration, and whole servers on raw stores."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from apiserver.assembly import assemble
from apiserver.config import Config
from apiserver.encryption.configuration import parse
from apiserver.encryption.providers import SYSTEM_NOISE, AesCbc, AesGcm, DecryptError, Provider, SecretBox
from apiserver.encryption.store import EncryptedStore
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Put, Unreadable
from navarch.world import RealWorld
from tests.apiserver.auth.real import ROOT, running
from tests.apiserver.storage.etcd_server import Etcd

NOISE = SYSTEM_NOISE
WORDS = b"nobody-shall-read-this"


def key(letter: str, size: int = 32) -> str:
    return base64.b64encode(letter.encode() * size).decode()


def configuration(*providers: dict[str, Any], resources: tuple[str, ...] = ("secrets",)) -> dict[str, Any]:
    return {
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{"resources": list(resources), "providers": list(providers)}],
    }  # fmt: skip


def keys(kind: str, *letters: str) -> dict[str, Any]:
    return {kind: {"keys": [{"name": f"key-{x}", "secret": key(x)} for x in letters]}}


@given(st.binary(max_size=200), st.sampled_from([AesGcm, AesCbc, SecretBox]))
def test_what_is_sealed_opens(value: bytes, make: Any) -> None:
    provider: Provider = make("k", b"x" * 32, NOISE)
    sealed = provider.encrypt(value, b"/registry/secrets/a/b")
    assert sealed.startswith(provider.prefix) and provider.decrypt(sealed, b"/registry/secrets/a/b") == value
    assert provider.encrypt(value, b"/registry/secrets/a/b") != sealed, "the same value never looks the same"
    other: Provider = make("k", b"y" * 32, NOISE)
    if make is not AesCbc:
        with pytest.raises(DecryptError):
            other.decrypt(sealed, b"/registry/secrets/a/b")
        with pytest.raises(DecryptError):
            provider.decrypt(sealed[:-1] + bytes([sealed[-1] ^ 1]), b"/registry/secrets/a/b")
    if make is AesGcm:
        with pytest.raises(DecryptError):
            provider.decrypt(sealed, b"/registry/secrets/a/another")


async def test_known_answer() -> None:
    """A value in kube-apiserver's form: prefix, nonce, ciphertext with tag, bound to the key of the store."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    place, nonce = b"/registry/secrets/default/s", b"n" * 12
    raw = b"k8s:enc:aesgcm:v1:key-a:" + nonce + AESGCM(b"a" * 32).encrypt(nonce, WORDS, place)
    rules, problems = parse(configuration(keys("aesgcm", "b", "a")), NOISE)
    assert not problems

    inner = MemoryStore()
    store = EncryptedStore(inner, rules)
    store.serves({"/registry/secrets/": ("", "secrets")})
    await inner.txn([], [Put(place.decode(), raw)])
    found, _ = await store.get(place.decode())
    assert found is not None and found.value == WORDS and store.needs_rewrite(place.decode())
    await store.txn([], [Put(place.decode(), WORDS)])
    (stored,) = (await inner.list("/registry/secrets/")).items
    assert stored.value.startswith(b"k8s:enc:aesgcm:v1:key-b:")
    page = await store.list("/registry/secrets/")
    assert page.items[0].value == WORDS
    assert (await store.get(place.decode()))[0] is not None and not store.needs_rewrite(place.decode())
    # Other resources are left alone; where nothing reads what is there, it is said how to go on.
    await store.txn([], [Put("/registry/configmaps/a/b", b"{}"), Put("/ranges/x", b"1")])
    assert [kv.value for kv in (await inner.list("/registry/configmaps/")).items] == [b"{}"]
    await inner.txn([], [Put(place.decode(), b"{}")])
    with pytest.raises(Unreadable, match=r"add 'identity: \{\}' as the last provider"):
        await store.get(place.decode())
    await inner.txn([], [Put(place.decode(), raw.replace(b"key-a", b"key-z"))])
    with pytest.raises(Unreadable, match="aesgcm, key 'key-z', which is not among the providers"):
        await store.get(place.decode())
    await inner.txn([], [Put(place.decode(), raw.replace(b"key-a", b"key-b"))])
    with pytest.raises(Unreadable, match="that key does not open it"):
        await store.get(place.decode())


def test_which_resources() -> None:
    for names, yes, no in (
        (
            ("secrets", "pandas.example.com"),
            [("", "secrets"), ("example.com", "pandas")],
            [("", "pandas"), ("x", "secrets")],
        ),
        (("*.",), [("", "pods")], [("apps", "deployments")]),
        (("*.apps",), [("apps", "deployments")], [("", "pods"), ("batch", "jobs")]),
        (("*.*",), [("", "pods"), ("apps", "deployments")], []),
    ):
        (rule,), problems = parse(configuration(keys("aescbc", "a"), {"identity": {}}, resources=names), NOISE)
        assert not problems
        assert all(rule.covers(*one) for one in yes) and not any(rule.covers(*one) for one in no)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({}, "apiVersion and kind must be"),
        (configuration(), "resources[0].providers: Required value"),
        (configuration({"kms": {}}), "kms) is not supported"),
        (configuration({"aesgcm": {"keys": []}}), "resources[0].providers[0].aesgcm.keys: Required value"),
        (
            configuration({"aesgcm": {"keys": [{"name": "a", "secret": key("x", 31)}]}}),
            "16 or 24 or 32 bytes long, is 31",
        ),
        (configuration({"secretbox": {"keys": [{"name": "a", "secret": key("x", 16)}]}}), "must be 32 bytes long"),
        (configuration({"aesgcm": {"keys": [{"name": "a", "secret": "?"}]}}), "must be base64 encoded"),
        (configuration({"aesgcm": {"keys": [{"name": "a:b", "secret": key("x")}]}}), "keys[0].name: Invalid value"),
        (configuration(keys("aesgcm", "a", "a")), "Duplicate value"),
        (configuration({"identity": {}}, resources=("*.", "secrets")), "is covered by *. before it"),
        (configuration({"identity": {}}, resources=("*",)), "use *.* for all resources"),
    ],
)
def test_the_configuration_is_checked(tree: dict[str, Any], text: str) -> None:
    _, problems = parse(tree, NOISE)
    assert any(text in p for p in problems), problems
    assert key("x", 31) not in str(problems)


async def test_no_seed_gives_nonces_away(tmp_path: Path) -> None:
    """Two servers whose ordinary random numbers are the same (forked, or seeded) must not share a nonce."""
    file = tmp_path / "encryption.yaml"
    file.write_text(yaml.safe_dump(configuration(keys("aesgcm", "a"))))

    values = []
    for _ in range(2):
        world, inner = RealWorld(), MemoryStore()
        world.random.seed(1)
        server = assemble(world, inner, Config(encryption_provider_config=str(file)))
        await server.store.txn([], [Put("/registry/secrets/default/s", WORDS)])
        values.append((await inner.list("/registry/secrets/")).items[0].value)
    assert values[0] != values[1]


def raw(folder: Path) -> bytes:
    """All that the store has written into its folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


SECRETS = ("get", "secrets", "-n", "default", "-o", "json")


class Rotation:
    """One store, the servers on it one after another, and the file of the providers that they are given."""

    def __init__(self, home: Path, store: str) -> None:
        self.home, self.store, self.file = home, store, home / "encryption.yaml"
        self.flags = ("--encryption-provider-config", str(self.file))

    def use(self, *providers: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(configuration(*providers)))

    def write_in_plain(self) -> None:
        with running(self.home, store=self.store) as kubectl:
            kubectl("create", "secret", "generic", "old", "--from-literal", f"word=plain{WORDS.decode()}")

    def encrypt(self) -> None:
        """Replacing all Secrets, as upstream's manual says, rewrites the one in plain; the next time nothing."""
        version = ("get", "secret", "old", "-o", "jsonpath={.metadata.resourceVersion}")
        with running(self.home, *self.flags, store=self.store) as kubectl:
            kubectl("create", "secret", "generic", "new", "--from-literal", f"word={WORDS.decode()}")
            revision = kubectl(*version)
            kubectl("replace", "-f", "-", text=kubectl(*SECRETS))
            assert kubectl(*version) != revision
            revision = kubectl(*version)
            kubectl("replace", "-f", "-", text=kubectl(*SECRETS))
            assert kubectl(*version) == revision

    def read_and_rewrite(self) -> None:
        with running(self.home, *self.flags, store=self.store) as kubectl:
            items = json.loads(kubectl("get", "secrets", "-o", "json"))["items"]
            words = {o["metadata"]["name"]: base64.b64decode(o["data"]["word"]) for o in items}
            assert words == {"new": WORDS, "old": b"plain" + WORDS}
            kubectl("replace", "-f", "-", text=kubectl(*SECRETS))

    def fails(self, *flags: str) -> str:
        """A server that does not start; what it writes on stderr."""
        command = [sys.executable, "-m", "apiserver", "--cert-dir", str(self.home / "pki"), "--secure-port", "0"]
        command += ["--store", self.store, *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stderr
        return done.stderr


def rotate(servers: Rotation, folder: Path) -> None:
    """Rotation of keys, with the real kubectl; then the raw store in ``folder``; then a server without the key."""
    servers.write_in_plain()
    assert b"k8s:enc" not in raw(folder)
    servers.use(keys("aesgcm", "a"), {"identity": {}})
    servers.encrypt()
    servers.use(keys("secretbox", "b"), keys("aesgcm", "a"))
    servers.read_and_rewrite()
    stored = raw(folder)
    assert b"k8s:enc:aesgcm:v1:key-a:" in stored and b"k8s:enc:secretbox:v1:key-b:" in stored
    assert base64.b64encode(b"plain" + WORDS)[:20] in stored, "the history of what was written in plain is there"
    assert WORDS not in stored and base64.b64encode(WORDS)[:20] not in stored, "the word of Secret new nowhere"
    servers.use(keys("aesgcm", "a"))  # the key that wrote is gone
    for flags, text in (
        (servers.flags, "add that key behind the first"),
        ((), "--encryption-provider-config with that key"),
    ):
        error = servers.fails(*flags)
        assert text in error and "secretbox, key 'key-b'" in error, error


def test_servers_on_sqlite(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    rotate(Rotation(tmp_path, f"sqlite:{folder / 'db'}"), folder)


def test_servers_on_etcd(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    with Etcd(folder) as etcd:
        rotate(Rotation(tmp_path, f"etcd:{etcd.endpoint}"), folder)
