"""HTTPRoutes as a real nginx on loopback understands them: a table of requests, where they go and what is told."""

from __future__ import annotations

import http.client
import http.server
import json
import socketserver
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from navarch.api.types import discovery_v1
from navarch.world import RealWorld
from proxy.ingress.config import Place, render
from proxy.ingress.nginx import Nginx, fallback_pair
from tests.proxy.gateway.objects import exact, findings, gateway, listener, planned, prefix, route, rule, to
from tests.proxy.ingress.objects import World, service


class Answers(http.server.BaseHTTPRequestHandler):
    """Says its port, and what it was asked."""

    def do_GET(self):
        length = int(self.headers.get("Content-Length") or 0)
        told = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps([self.server.server_address[1], self.command, self.path, told, self.rfile.read(length).decode()])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Own", "backend")
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_PUT = do_GET

    def log_message(self, *_):
        pass


class Backend(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def world():
    """Services a, b and c on loopback, with an endpoint each."""
    servers = [Backend(("127.0.0.1", 0), Answers) for _ in range(3)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ports = dict(zip("abc", (s.server_address[1] for s in servers), strict=True))
    slices = {f"default/{name}": [discovery_v1.EndpointSlice(
        address_type="IPv4", ports=[discovery_v1.EndpointPort(name="http", port=port)],
        endpoints=[discovery_v1.Endpoint(addresses=["127.0.0.1"])])] for name, port in ports.items()}  # fmt: skip
    made = World(*(service(name, "127.0.0.1", port) for name, port in ports.items()), slices=slices)
    made.ports = ports
    yield made
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nginx")
    place = Place("127.0.0.1", 0, 0, str(folder / "run"), user="root root")
    made = Nginx(Path(place.directory), folder / "nginx.log")
    made.write_pairs({"fallback": fallback_pair(RealWorld().now())})
    made.place = place
    yield made
    made.stop()


@pytest.fixture
def serving(nginx, world):
    """Serves routes at one port; returns a function that asks."""

    def start(*routes, listeners=()):
        with socketserver.TCPServer(("127.0.0.1", 0), None) as free:
            port = free.server_address[1]
        built = planned([gateway(*listeners)], routes, world, inside={"default/edge": {80: port}})
        assert all(findings(p)["Accepted"] == (True, "Accepted") for ps in built.parents.values() for p in ps), built.parents
        text = render(built.site, nginx.place)
        assert nginx.refusal(text) == ""
        nginx.apply(text)
        asker = Asker(port, {number: name for name, number in world.ports.items()})
        asker.wait()
        return asker

    return start


class Asker:
    def __init__(self, port, names):
        self.port, self.names = port, names

    def wait(self):
        """Until the reload's workers listen."""
        while True:
            try:
                return self("/", host="none.test")
            except ConnectionRefusedError:
                pass

    def __call__(self, target, method="GET", host="x.test", body=None, **headers):
        """Status, the backend's name, what it was asked, and the answer's headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            fields = {"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body=body, headers=fields)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                return answer.status, answer.headers.get("Location"), None, answer.headers
            port, *asked = json.loads(text)
            return 200, self.names[port], asked, answer.headers
        finally:
            connection.close()

    def where(self, *words, **more):
        status, name, _, _ = self(*words, **more)
        return name if status == 200 else status


@pytest.fixture
def to_all(world):
    return {name: to(name, port) for name, port in world.ports.items()}


def test_precedence(serving, to_all):
    a, b, c = to_all.values()
    ask = serving(
        route(rule(a, matches=[prefix("/")]), rule(b, matches=[prefix("/foo")]), rule(c, matches=[exact("/foo")]),
              rule(c, matches=[prefix("/foo", method="POST")]), name="paths"),
        route(rule(b, matches=[prefix("/h", headers=[{"name": "X-Env", "value": "a.b"}])]),
              rule(c, matches=[prefix("/h", headers=[{"name": "X-Env", "value": "a.b"}, {"name": "x-two", "value": "2"}])]),
              rule(b, matches=[prefix("/q", queryParams=[{"name": "v", "value": "a b"}])]),
              rule(c, matches=[exact("/q", queryParams=[{"name": "v", "value": "1"}])]), name="tests"),
        route(rule(b, matches=[prefix("/deep/er")]), hosts=["*.wild.test"], name="wild"),
        route(rule(c), hosts=["one.wild.test"], name="one"),
    )  # fmt: skip
    table = [
        (("/",), {}, "a"), (("/foobar",), {}, "a"), (("/foo",), {}, "c"), (("/foo/x",), {}, "b"), (("/foo/",), {}, "b"),
        (("/foo/x", "POST"), {"body": "some"}, "c"), (("/h/1",), {}, "a"), (("/h/1",), {"X_Env": "a.b"}, "b"),
        (("/h",), {"X_Env": "aXb"}, "a"), (("/h",), {"X_Env": "a.b", "X_Two": "2"}, "c"), (("/h",), {"X_Env": "A.B"}, "a"),
        (("/q?v=a+b",), {}, "b"), (("/q/z?u=1&v=a%20%62",), {}, "b"), (("/q?v=1",), {}, "c"), (("/q/z?v=1",), {}, "a"),
        (("/q?v=12",), {}, "a"), (("/q?V=1",), {}, "a"), (("/deep/er/x",), {"host": "a.b.wild.test"}, "b"),
        (("/deep",), {"host": "a.wild.test"}, 404), (("/x",), {"host": "one.wild.test"}, "c"),
    ]  # fmt: skip
    found = [(words, more, ask.where(*words, **more)) for words, more, _ in table]
    assert found == table
    assert ask("/foo/y", "POST", body="some")[2][3] == "some", "the jump keeps the body"


def test_listeners_keep_to_themselves(serving, to_all):
    a, b, _ = to_all.values()
    ask = serving(
        route(rule(a), hosts=["a.x.test", "other.test"], name="wide", parents=[{"name": "edge", "sectionName": "wide"}]),
        route(rule(b), name="narrow", parents=[{"name": "edge", "sectionName": "narrow"}]),
        listeners=(listener("wide"), listener("narrow", hostname="*.x.test")),
    )
    assert ask.where("/", host="a.x.test") == "b", "the name is the narrow listener's, though the route of the other has it"
    assert ask.where("/", host="other.test") == "a" and ask.where("/", host="none.test") == 404


def test_redirects(serving):
    def redirect(path, target, **more):
        return {"matches": [path], "filters": [{"type": "RequestRedirect", "requestRedirect": {**target, **more}}]}

    def part(kind, text):
        return {"path": {"type": kind, "replaceFullPath" if kind == "ReplaceFullPath" else "replacePrefixMatch": text}}

    ask = serving(route(
        redirect(prefix("/tls"), {"scheme": "https"}, statusCode=301), redirect(prefix("/host"), {"hostname": "y.test"}),
        redirect(prefix("/port"), {"port": 8080}), redirect(prefix("/old"), part("ReplacePrefixMatch", "/new/$host")),
        redirect(prefix("/full"), part("ReplaceFullPath", "/all"), statusCode=301),
        redirect(prefix("/cut"), part("ReplacePrefixMatch", "/")),
    ))  # fmt: skip
    table = {
        "/tls/a?b=c": (301, "https://x.test/tls/a?b=c"), "/host/a": (302, "http://y.test/host/a"),
        "/port": (302, "http://x.test:8080/port"), "/old/a%20b?c=d": (302, "http://x.test/new/$host/a%20b?c=d"),
        "/old": (302, "http://x.test/new/$host"), "/full/x?q=1": (301, "http://x.test/all?q=1"),
        "/cut": (302, "http://x.test/"), "/cut/b": (302, "http://x.test/b"),
        "/old/a%0d%0aSet-Cookie:x": (302, "http://x.test/new/$host/a%0D%0ASet-Cookie:x"),
    }  # fmt: skip
    assert {target: ask(target)[:2] for target in table} == table


def test_rewrites_and_headers(serving, to_all):
    def rewrite(match, **value):
        return {"matches": [match], "filters": [{"type": "URLRewrite", "urlRewrite": value}], "backendRefs": [to_all["a"]]}

    put, more = {"name": "X-Set", "value": 'v$host"; }'}, {"name": "X-Add", "value": "two"}
    request = {"set": [put], "add": [more], "remove": ["x-gone"]}
    reply = {"set": [{"name": "X-Own", "value": "route"}], "add": [{"name": "X-More", "value": "$uri"}]}
    ask = serving(route(
        rewrite(prefix("/api"), path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/v%201"}, hostname="in.test"),
        rewrite(prefix("/all"), path={"type": "ReplaceFullPath", "replaceFullPath": "/one"}),
        {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": request},
                     {"type": "ResponseHeaderModifier", "responseHeaderModifier": reply}], "backendRefs": [to_all["b"]]},
    ))  # fmt: skip
    _, _, asked, _ = ask("/api/x%20y?q=1")
    assert asked[1] == "/v%201/x%20y?q=1" and asked[2]["host"] == "in.test"
    assert [ask(path)[2][1] for path in ("/api", "/all/x?q=2")] == ["/v%201", "/one?q=2"]
    _, name, asked, told = ask("/other", X_Add="one", X_Gone="here", X_Set="client")
    assert name == "b" and asked[2]["x-set"] == 'v$host"; }' and asked[2]["x-add"] == "one,two" and "x-gone" not in asked[2]
    assert asked[2]["x-forwarded-port"] == "80" and asked[2]["host"] == "x.test"
    assert told.get_all("X-Own") == ["route"] and told["X-More"] == "$uri"
    assert ask("/other")[2][2]["x-add"] == "two"


def test_weights_and_those_who_are_not_there(serving, to_all):
    ask = serving(
        route(rule(to_all["a"] | {"weight": 1}, to_all["b"] | {"weight": 3}, to_all["c"] | {"weight": 0})),
        route(rule(to_all["a"] | {"weight": 1}, to("none") | {"weight": 1}), name="half", hosts=["half.test"]),
        route(rule(to("none")), name="none", hosts=["none.test"]),
        route({"matches": [prefix("/")]}, name="nobody", hosts=["nobody.test"]),
    )
    found = Counter(ask.where("/") for _ in range(200))
    assert set(found) == {"a", "b"} and 20 <= found["a"] <= 90
    half = Counter(ask.where("/", host="half.test") for _ in range(100))
    assert set(half) == {"a", 500} and min(half.values()) > 20
    assert ask.where("/", host="none.test") == 500 and ask.where("/", host="nobody.test") == 500


words = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['"; }', "$host", "\\", '\\"', "a'b", "{", "}", ";", "\n", "~^x", "default", "#", "$(", "%0a", "${x}", "@a",
     "include /x;", "\x01"]
)


@given(st.lists(words, min_size=9, max_size=9))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_gets_out_of_its_place(nginx, world, texts):
    """Whatever is in a route: it is refused in a condition, or nginx takes the text and every line of it keeps its shape."""
    a, b, c, d, e, f, g, h, i = texts
    changes = {"set": [{"name": a or "X", "value": b}], "add": [{"name": "X-Y", "value": c}]}
    routes = [
        route(rule(to("a", world.ports["a"]), matches=[prefix("/" + d), exact("/" + e)]), name="paths"),
        route(rule(to("a", world.ports["a"]), matches=[{"headers": [{"name": "X-A", "value": f}], "method": "GET"}]), name="h"),
        route(rule(to("a", world.ports["a"]), matches=[{"queryParams": [{"name": g or "g", "value": h or "h"}]}]), name="q"),
        route(rule(filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": changes}]), name="c"),
        route(rule(filters=[{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "X", "value": b}]}}],
                   matches=[prefix("/r")]), name="d"),
        route(rule(filters=[{"type": "RequestRedirect", "requestRedirect": {"hostname": i, "path": {
            "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" + c}}}], matches=[prefix("/" + d)]), name="e"),
        route(rule(), hosts=[i or "i"], name="f"),
    ]  # fmt: skip
    built = planned([gateway()], routes, world)
    assert nginx.refusal(render(built.site, nginx.place)) == ""
    for parents in built.parents.values():
        assert findings(parents[0])["Accepted"] in (
            (True, "Accepted"), (False, "UnsupportedValue"), (False, "IncompatibleFilters"))  # fmt: skip
