"""The short way of a GET answers what the long way does, whatever happens to permissions, kinds, flows and objects."""

from __future__ import annotations

import asyncio
import datetime
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from uvicorn.config import Config

from apiserver.authn.accounts import Bond
from apiserver.http.lean import Lean, Route
from apiserver.http.protocol import Protocol
from navarch.world import RealWorld
from tests.apiserver.kinds.served import Asker, served

Tree = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SCHEMAS = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
DATE = re.compile(rb"date: [^\r]*\r\n")
ACCOUNTS = "/api/v1/namespaces/a/serviceaccounts"
QUERIES = [
    "?limit=1", "?limit=500&resourceVersion=0", "?labelSelector=n%3D1", "?labelSelector=n", "?resourceVersion=1",
    "?fieldSelector=metadata.name%3Done", "?pretty=true", "?limit=x", "?watch=0",
    "?resourceVersion=0&resourceVersionMatch=NotOlderThan", "?continue=x", "?sendInitialEvents=true",
]  # fmt: skip
HOUR = 3600.0


class Clock(RealWorld):
    """The wall clock, and some."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


def certificate(world: RealWorld, name: str, *groups: str) -> bytes:
    """One that is good for an hour."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    subject = x509.Name([*attributes, *(x509.NameAttribute(NameOID.ORGANIZATION_NAME, g) for g in groups)])
    now = datetime.datetime.fromtimestamp(world.now(), datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(now - datetime.timedelta(hours=1))
    signed = builder.not_valid_after(now + datetime.timedelta(seconds=HOUR)).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


class Wire(asyncio.Transport):
    """A transport whose other end is the test, with a TLS that knows the peer's certificate."""

    def __init__(self, der: bytes | None) -> None:
        super().__init__()
        self.der, self.sent, self.closed = der, b"", False

    def getpeercert(self, binary_form: bool) -> bytes | None:
        return self.der

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self if name == "ssl_object" and self.der is not None else default

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Client:
    """One connection; ``short``: the server may take the short way."""

    def __init__(self, ask: Asker, der: bytes | None, short: bool) -> None:
        self.config = Config(ask.server.app, interface="asgi3", lifespan="off", proxy_headers=False, log_config=None)
        self.config.load()
        self.der, self.short = der, short
        self.token = b""
        self.open()

    def open(self) -> None:
        from uvicorn.server import ServerState

        self.wire, self.state = Wire(self.der), ServerState()
        self.state.default_headers = [(b"date", b"now")]
        self.protocol = Protocol(self.config, self.state, {})
        self.protocol.connection_made(self.wire)
        if not self.short:
            self.protocol._answer = None

    async def send(self, data: bytes, pieces: int = 1) -> bytes:
        """The reply to one request, however it is cut."""
        if self.wire.closed:
            self.open()
        if self.token:
            data = data.replace(b"Host: x\r\n", b"Host: x\r\nAuthorization: Bearer %b\r\n" % self.token)
        self.wire.sent = b""
        step = -(-len(data) // pieces)
        for at in range(0, len(data), step):
            self.protocol.data_received(data[at : at + step])
        for _ in range(2000):
            head, end, body = self.wire.sent.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if end and length and len(body) >= int(length[1]) and self.protocol.cycle.response_complete:
                break
            await asyncio.sleep(0 if _ < 1500 else 0.01)
        else:
            raise AssertionError((data, self.wire.sent))
        return DATE.sub(b"", self.wire.sent)


def get(path: str, more: str = "", version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nHost: x\r\nAccept: application/json\r\nUser-Agent: u\r\n{more}\r\n".encode()


class World:
    """A server with some objects, connections of several users, and things that may happen."""

    def __init__(self, ask: Asker, clock: Clock, seed: int) -> None:
        self.ask, self.clock, self.random = ask, clock, random.Random(seed)
        names = (("root", "system:masters"), ("alice",), ("bob", "devs"), ("system:node:n1", "system:nodes"))
        ders = [certificate(clock, *name) for name in names]
        self.pairs = [(Client(ask, der, True), Client(ask, der, False)) for der in [*ders, None, None]]
        self.bearers = self.pairs[-1]
        self.count = 0

    async def begin(self) -> None:
        for namespace in ("a", "b"):
            await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            for name in ("one", "two"):
                for kind in ("configmaps", "secrets", "serviceaccounts"):
                    await self.ask("POST", f"/api/v1/namespaces/{namespace}/{kind}", {"metadata": {"name": name}})
        for n in (1, 2):
            await self.ask("POST", "/api/v1/nodes", {"metadata": {"name": f"n{n}"}})
        role = {"metadata": {"name": "all"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}]}
        await self.ask("POST", f"{RBAC}/clusterroles", role)
        alice = {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}
        account = {"kind": "ServiceAccount", "name": "one", "namespace": "a"}
        bound = {"metadata": {"name": "b"}, "subjects": [alice, account]}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "all"}
        await self.ask("POST", f"{RBAC}/namespaces/a/rolebindings", bound | {"roleRef": reference})
        event = {"metadata": {"name": "one"}, "involvedObject": {"namespace": "a"}}
        await self.ask("POST", "/api/v1/namespaces/a/events", event)
        await self.issue()

    async def issue(self) -> None:
        """A new token for the account a/one, whose connections are the last ones."""
        await self.ask.server.cache.current()
        made = await self.ask("POST", f"{ACCOUNTS}/one/token", {"spec": {"expirationSeconds": int(HOUR)}})
        for client in self.bearers:
            client.token = made["status"]["token"].encode()

    async def lose_account(self) -> None:
        """The account of the token goes; sometimes it comes back, as another one or with another token, too."""
        await self.try_("DELETE", f"{ACCOUNTS}/one")
        if self.random.random() < 0.7:
            await self.try_("POST", ACCOUNTS, {"metadata": {"name": "one"}})
            if self.random.random() < 0.7:
                await self.issue()

    async def settle(self) -> None:
        """Waits until what follows the objects in the background has followed."""
        server = self.ask.server
        revision = await server.cache.current()
        for _ in range(300):
            crds = {o["metadata"]["name"] for o in (await self.ask("GET", CRDS))["items"]}
            served_now = {f"{r}.{g}" for g, _, r in server.resources.served if g == "x.io"}
            schemas = {o["metadata"]["name"] for o in (await self.ask("GET", SCHEMAS))["items"]}
            if served_now == crds and schemas == set(server.gates.flows.schemas) and server.cache.revision >= revision:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the server does not settle")

    async def happen(self) -> None:
        """Something that may change an answer."""
        choose = self.random.choice
        self.count += 1
        namespace, name, user = choose("ab"), choose(["one", "two", "three"]), choose(["alice", "bob"])
        resources = choose([["*"], ["configmaps"], ["widgets", "secrets"]])
        rule = {"apiGroups": choose([[""], ["*"], ["x.io"]]), "resources": resources,
                "verbs": choose([["get"], ["*"], ["list"]])}  # fmt: skip
        if self.random.random() < 0.4:
            rule["resourceNames"] = [name]
        role = {"metadata": {"name": "r"}, "rules": [rule]}
        subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
        if user == "bob":
            subject |= {"kind": "Group", "name": "devs"}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": choose(["Role", "ClusterRole"]), "name": "r"}
        bound = {"metadata": {"name": "b"}, "subjects": [subject], "roleRef": reference}
        inside = f"{RBAC}/namespaces/{namespace}"
        crd = {
            "metadata": {"name": "widgets.x.io"},
            "spec": {"group": "x.io", "scope": choose(["Namespaced", "Cluster"]),
                     "names": {"plural": "widgets", "kind": "Widget", "singular": "widget"},
                     "versions": [{"name": "v1", "served": True, "storage": True, "deprecated": self.random.random() < 0.3,
                                   "schema": {"openAPIV3Schema": {"type": "object"}}}]},
        }  # fmt: skip
        flow = {
            "metadata": {"name": "mine"},
            "spec": {"priorityLevelConfiguration": {"name": choose(["workload-low", "workload-high"])}, "matchingPrecedence": 5,
                     "rules": [{"subjects": [{"kind": "User", "user": {"name": user}}],
                                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                                                   "clusterScope": True, "namespaces": [choose("a*")]}]}]},
        }  # fmt: skip
        widget = {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": name}}
        await choose([
            lambda: self.try_("POST", f"{inside}/roles", role), lambda: self.try_("DELETE", f"{inside}/roles/r"),
            lambda: self.try_("POST", f"{RBAC}/clusterroles", role), lambda: self.try_("DELETE", f"{RBAC}/clusterroles/r"),
            lambda: self.try_("POST", f"{inside}/rolebindings", bound),
            lambda: self.try_("DELETE", f"{inside}/rolebindings/b"),
            lambda: self.try_("POST", f"{RBAC}/clusterrolebindings", bound | {"roleRef": reference | {"kind": "ClusterRole"}}),
            lambda: self.try_("DELETE", f"{RBAC}/clusterrolebindings/b"),
            lambda: self.try_("POST", CRDS, crd), self.drop_kind, self.lose_account,
            lambda: self.try_("PATCH", f"{ACCOUNTS}/one", {"metadata": {"labels": {"n": str(self.count)}}}),
            lambda: self.try_("POST", f"/apis/x.io/v1/namespaces/{namespace}/widgets", widget),
            lambda: self.try_("POST", "/apis/x.io/v1/widgets", widget),
            lambda: self.try_("POST", SCHEMAS, flow), lambda: self.try_("DELETE", f"{SCHEMAS}/mine"),
            lambda: self.try_("DELETE", f"/api/v1/namespaces/{namespace}/configmaps/{name}"),
            lambda: self.try_("POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": name}}),
            lambda: self.try_("PATCH", f"/api/v1/namespaces/{namespace}/configmaps/{name}", {"data": {"n": str(self.count)}}),
            lambda: self.try_("PATCH", f"/api/v1/namespaces/{namespace}/configmaps/{name}", {"data": {"n": "x" * 200_000}}),
        ])()  # fmt: skip
        await self.settle()

    async def drop_kind(self) -> None:
        """The custom kind goes; no controller is here that would remove its finalizer."""
        await self.try_("DELETE", f"{CRDS}/widgets.x.io")
        await self.try_("PATCH", f"{CRDS}/widgets.x.io", {"metadata": {"finalizers": None}})

    async def try_(self, method: str, path: str, body: Tree | None = None) -> None:
        try:
            await self.ask(method, path, body)
        except AssertionError as error:
            assert error.args[0][0] in (403, 404, 405, 409, 422), error

    def request(self) -> bytes:
        choose = self.random.choice
        namespace, name = choose("ab"), choose([*["one", "two"] * 4, "three", "n1", "one?resourceVersion=0", "%6fne", "", "a"])
        path = choose([
            f"/api/v1/namespaces/{namespace}/configmaps", f"/api/v1/namespaces/{namespace}/configmaps",
            f"/api/v1/namespaces/{namespace}/secrets", f"/api/v1/namespaces/{namespace}/events", "/api/v1/namespaces",
            "/apis/events.k8s.io/v1/namespaces/a/events", f"/apis/x.io/v1/namespaces/{namespace}/widgets",
            "/apis/x.io/v1/widgets", f"{RBAC}/clusterroles", "/api/v1/nodes", "/nothing", "/api/v1/namespaces/a",
        ])  # fmt: skip
        more = choose([""] * 24 + [
            "Accept: application/yaml", "Impersonate-User: alice", "Connection: close", "Connection: keep-alive",
            "Authorization: Bearer nonsense", "Content-Length: 0", "User-Agent: curl/8", "Accept-Encoding: gzip",
        ])  # fmt: skip
        target = f"{path}/{name}" if self.random.random() < 0.6 else path + choose(["", "", *QUERIES])
        return get(target, f"{more}\r\n" if more else "", choose(["1.1"] * 15 + ["1.0"]))

    async def scene(self, quiet: bool = False) -> None:
        """Some requests of one user, each as it is answered to two connections, while things happen; not if ``quiet``."""
        namespace = self.random.choice("ab")
        kind = self.random.choice(["secrets", "configmaps"])
        usual = [get(f"/api/v1/namespaces/{namespace}/{kind}{name}") for name in ("/one", "/two", "")]
        few = [*usual, *(self.request() for _ in range(2))]
        (short, long), = self.random.choices(self.pairs, [3, 3, 2, 1, 1, 3])
        for _ in range(40):
            if not quiet and self.random.random() < 0.06:
                await self.happen()
            request, pieces = self.random.choice(few), self.random.choice([1] * 10 + [2, 5])
            for _ in range(5):
                expected = await long.send(request, pieces)
                reply = await short.send(request, pieces)
                if reply == expected or expected == await long.send(request, pieces):
                    break  # else something was written meanwhile: the revision of a list is another
            assert reply == expected, request
            assert short.wire.closed == long.wire.closed


@pytest.mark.parametrize("seed", range(4))
def test_no_answer_changes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    counted = counts(monkeypatch)

    async def main() -> None:
        async with served(clock) as ask:
            world = World(ask, clock, seed)
            await world.begin()
            for _ in range(25):
                await world.scene()
            assert counted[0] > 40 and counted[1] > 10 and counted[2] > 10, "the short way was hardly gone"
            clock.ahead = HOUR + 60  # every certificate is out of its time
            before = counted[0]
            for _ in range(5):
                await world.scene(quiet=True)
            assert counted[0] == before

    clock.run(main)


def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the short way led to an answer: in all, to a list, with a token."""
    counted, answer = [0, 0, 0], Lean.answer

    def count(self: Lean, route: Route, *arguments: Any) -> bytes | None:
        reply = answer(self, route, *arguments)
        if reply is not None:
            counted[0] += 1
            counted[1] += route.options is not None
            counted[2] += isinstance(route.proof, Bond)
        return reply

    monkeypatch.setattr(Lean, "answer", count)
    return counted


def on_connection(body: Callable[[Asker, Client, list[int]], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs ``body`` with an administrator's connection, on which the short way to config maps of namespace a is known."""
    clock, counted = Clock(), counts(monkeypatch)

    async def main() -> None:
        async with served(clock) as ask:
            client = Client(ask, certificate(clock, "root", "system:masters"), True)
            await World(ask, clock, 0).begin()
            await client.send(ONE)
            assert (await client.send(ONE)).startswith(b"HTTP/1.1 200") and counted[0] == 1
            await body(ask, client, counted)

    clock.run(main)


ONE = get("/api/v1/namespaces/a/configmaps/one")
ALL = get("/api/v1/namespaces/a/configmaps")


def test_what_hangs_on_the_name_goes_the_long_way() -> None:
    """Rules for some names, Namespaces (whose permissions are looked up inside them), other shapes and users."""
    clock = Clock()

    async def main() -> None:
        async with served(clock) as ask:
            world = World(ask, clock, 0)
            await world.begin()
            rules = [
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["one"]},
                {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]},
            ]
            await ask("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "some"}, "rules": rules})
            user = {"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"}
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "some"}
            bound = {"metadata": {"name": "s"}, "subjects": [user], "roleRef": reference}
            await ask("POST", f"{RBAC}/clusterrolebindings", bound)
            await ask.server.cache.current()
            codes = []
            for number, path, names, more in (
                (1, "/api/v1/namespaces/b/secrets", ("one", "two"), ""),
                (1, "/api/v1/namespaces", ("a", "b"), ""),
                (1, "/api/v1/namespaces/a/configmaps", ("one", "two"), "Accept: application/yaml\r\n"),
                (0, "/api/v1/namespaces/b/configmaps", ("one", "two"), "Impersonate-User: alice\r\n"),
                (0, "/api/v1/namespaces/a/configmaps", ("one", "two"), "Impersonate-User: alice\r\n"),
                (3, "/api/v1/nodes", ("n1", "n2"), ""),
            ):
                for name in names:
                    request = get(f"{path}/{name}", more)
                    for _ in range(3):
                        expected = await world.pairs[number][1].send(request)
                        assert await world.pairs[number][0].send(request) == expected, request
                    codes.append(int(expected[9:12]))
            assert codes == [200, 403, 200, 403, 200, 200, 403, 403, 200, 200, 200, 403]

    clock.run(main)


WIDGETS = "/apis/x.io/v1/widgets"
WIDGET = {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "one"}}
SIZED = {"type": "object", "properties": {"size": {"type": "integer", "default": 7}}}


class Widgets:
    """A kind that is defined, changed and deleted while the pair of one user's connections asks for its objects."""

    def __init__(self, world: World, counted: list[int]) -> None:
        self.world, self.ask, self.counted = world, world.ask, counted
        self.short, self.long = world.pairs[0]

    async def both(self, name: str) -> bytes:
        """The reply of the short way, which must be that of the long way."""
        reply = await self.short.send(get(f"{WIDGETS}/{name}"))
        assert reply == await self.long.send(get(f"{WIDGETS}/{name}"))
        return reply

    async def define(self, version: Tree) -> None:
        names = {"plural": "widgets", "kind": "Widget"}
        spec = {"group": "x.io", "scope": "Cluster", "names": names, "versions": [version]}
        await self.ask("POST", CRDS, {"metadata": {"name": "widgets.x.io"}, "spec": spec})
        await self.world.settle()
        await self.ask("POST", WIDGETS, WIDGET)

    async def check_first(self, deprecated: bool) -> None:
        """A version that is deprecated has a warning, and goes the long way."""
        before = self.counted[0]
        for _ in range(3):
            reply = await self.both("one")
            assert reply.startswith(b"HTTP/1.1 200") and (b"warning:" in reply) == deprecated
        assert (self.counted[0] > before) != deprecated

    async def change(self, version: Tree) -> None:
        """The other of deprecated and not, with a default in the schema; waits until that is what the short way says."""
        deprecated = not version["deprecated"]
        other = version | {"deprecated": deprecated, "schema": {"openAPIV3Schema": SIZED}}
        await self.ask("PATCH", f"{CRDS}/widgets.x.io", {"spec": {"versions": [other]}})
        for _ in range(200):
            reply = await self.short.send(get(f"{WIDGETS}/one"))
            if (b"warning:" in reply) == deprecated:
                break
            await asyncio.sleep(0.01)
        assert (b"warning:" in reply) == deprecated and reply == await self.long.send(get(f"{WIDGETS}/one"))

    async def check_changed(self) -> None:
        await self.ask("POST", WIDGETS, WIDGET | {"metadata": {"name": "two"}})
        for name in ("two", "two", "one", "two"):  # "one" was stored before there was a default
            assert b'"size":7' in await self.both(name)

    async def go(self) -> None:
        await self.ask("DELETE", f"{WIDGETS}/two")
        await self.ask("DELETE", f"{WIDGETS}/one")
        await self.world.drop_kind()
        await self.world.settle()
        assert (await self.both("one")).startswith(b"HTTP/1.1 404")


def test_a_kind_that_goes_or_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = counts(monkeypatch)
    clock = Clock()

    async def main() -> None:
        async with served(clock) as ask:
            widgets = Widgets(World(ask, clock, 0), counted)
            for deprecated in (False, True, False):
                version = {"name": "v1", "served": True, "storage": True, "deprecated": deprecated,
                           "schema": {"openAPIV3Schema": {"type": "object"}}}  # fmt: skip
                await widgets.define(version)
                await widgets.check_first(deprecated)
                await widgets.change(version)
                await widgets.check_changed()
                await widgets.go()

    clock.run(main)


def test_a_token_ends_with_what_it_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, counted = Clock(), counts(monkeypatch)

    async def main() -> None:
        async with served(clock) as ask:
            world = World(ask, clock, 0)
            await world.begin()
            spec = {"serviceAccountName": "one", "containers": [{"name": "c", "image": "i"}]}
            pod = {"metadata": {"name": "p"}, "spec": spec}
            made = await ask("POST", "/api/v1/namespaces/a/pods", pod)
            bond = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
            answer = await ask("POST", f"{ACCOUNTS}/one/token", {"spec": {"boundObjectRef": bond}})
            client = world.bearers[0]
            client.token = answer["status"]["token"].encode()

            async def codes() -> list[bytes]:
                await ask.server.cache.current()
                before = counted[2]
                replies = [await client.send(request) for request in (ONE, ONE, ALL, ALL)]
                return [*(reply[9:12] for reply in replies), b"%d short" % (counted[2] - before)]

            assert await codes() == [b"200"] * 4 + [b"2 short"]
            assert await codes() == [b"200"] * 4 + [b"4 short"]
            await ask("PATCH", "/api/v1/namespaces/a/pods/p", {"metadata": {"labels": {"a": "b"}}})
            assert await codes() == [b"200"] * 4 + [b"2 short"], "another state of the pod is looked at once"
            await ask("DELETE", "/api/v1/namespaces/a/pods/p", {"gracePeriodSeconds": 0})
            assert await codes() == [b"401"] * 4 + [b"0 short"]
            await ask("POST", "/api/v1/namespaces/a/pods", pod)
            assert await codes() == [b"401"] * 4 + [b"0 short"], "of the same name, but another one"

    clock.run(main)


def test_a_list_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ask: Asker, client: Client, counted: list[int]) -> None:
        async def size() -> int:
            await ask.server.cache.current()
            return (await client.send(ALL)).count(b'"uid"')

        first = await size()
        assert await size() == first and counted[1] == 1
        for n in range(64):
            await ask("POST", "/api/v1/namespaces/a/configmaps", {"metadata": {"name": f"n{n}"}})
            if n in (10, 63):
                assert await size() == first + n + 1
        assert counted[1] == 2 and await size() == first + 64 and counted[1] == 2
        await ask("DELETE", "/api/v1/namespaces/a/configmaps/n1")
        await ask("DELETE", "/api/v1/namespaces/a/configmaps/n2")
        assert await size() == first + 62 and counted[1] == 2
        assert await size() == first + 62 and counted[1] == 3, "it is small again"

    on_connection(body, monkeypatch)


def test_one_write_and_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ask: Asker, client: Client, counted: list[int]) -> None:
        client.wire.sent = b""
        client.protocol.data_received(ONE)
        assert client.wire.sent.endswith(b"}") and not client.state.tasks
        metrics = ask.server.metrics.text()
        assert 'verb="GET",group="",version="v1",resource="configmaps",subresource="",code="200"} 3' in metrics

    on_connection(body, monkeypatch)


def test_a_body_that_looks_like_a_request_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes before all of the body leaves the rest of it to come: it is no request."""

    async def body(ask: Asker, client: Client, counted: list[int]) -> None:
        head = f"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ONE)}\r\n\r\n".encode()
        assert (await client.send(head)).startswith(b"HTTP/1.1 405")
        client.wire.sent = b""
        client.protocol.data_received(ONE)  # the body
        await asyncio.sleep(0.01)
        assert client.wire.sent == b"" and counted[0] == 1
        assert (await client.send(ONE)).startswith(b"HTTP/1.1 200") and counted[0] == 2

    on_connection(body, monkeypatch)


def test_requests_that_come_together_are_answered_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ask: Asker, client: Client, counted: list[int]) -> None:
        client.wire.sent = b""
        two = get("/api/v1/namespaces/a/configmaps/two")
        for data in (ONE + two, two, ONE):
            client.protocol.data_received(data)
        for _ in range(200):
            await asyncio.sleep(0.005)
            if client.wire.sent.count(b"HTTP/1.1 200") == 4:
                break
        assert re.findall(rb'"name":"(\w+)"', client.wire.sent) == [b"one", b"two", b"two", b"one"]

    on_connection(body, monkeypatch)


def test_it_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that lags, a level without a seat, a client that reads slowly, a server that stops: the long way."""

    async def body(ask: Asker, client: Client, counted: list[int]) -> None:
        server, flows = ask.server, ask.server.gates.flows
        server.cache.acknowledged(server.cache.revision + 1)
        client.protocol.data_received(ONE)
        assert counted[0] == 1
        await ask("POST", "/api/v1/namespaces", {"metadata": {"name": "more"}})
        await asyncio.sleep(0.05)
        client.wire.sent = b""
        assert (await client.send(ONE)).startswith(b"HTTP/1.1 200") and counted[0] == 2
        monkeypatch.setattr(type(flows), "at_once", lambda *_: None)
        assert (await client.send(ONE)).startswith(b"HTTP/1.1 200") and counted[0] == 2
        monkeypatch.undo()
        client.protocol.pause_writing()
        client.protocol.data_received(ONE)
        client.wire.sent = b""
        await asyncio.sleep(0.01)
        assert client.wire.sent == b""
        client.protocol.resume_writing()
        await asyncio.sleep(0.05)
        assert client.wire.sent.startswith(b"HTTP/1.1 200")
        server.app.turn_away(True)
        assert (await client.send(ONE)).startswith(b"HTTP/1.1 429")

    on_connection(body, monkeypatch)


def test_connections_live_on_by_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(ask: Asker, client: Client, counted: list[int]) -> None:
        protocol = client.protocol
        protocol._last = protocol.loop.time() - protocol.timeout_keep_alive / 2
        protocol.timeout_keep_alive_handler()
        assert not client.wire.closed and protocol.timeout_keep_alive_task is not None
        protocol._last = protocol.loop.time() - protocol.timeout_keep_alive - 1
        protocol.timeout_keep_alive_handler()
        assert client.wire.closed

    on_connection(body, monkeypatch)
