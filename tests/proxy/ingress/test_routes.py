"""From Ingresses to routes, and what nginx makes of them: a real nginx on loopback, asked for hosts and paths."""

from __future__ import annotations

import http.client
import http.server
import os
import signal
import socket
import socketserver
import ssl
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch.api.types import discovery_v1, meta_v1, networking_v1
from navarch.world import RealWorld
from proxy.ingress.actions import is_text, quoted
from proxy.ingress.config import Place, render
from proxy.ingress.nginx import Nginx, NginxError, fallback_pair
from proxy.ingress.routes import CONTROLLER, is_ours, site
from tests.e2e.harness import wait_for
from tests.proxy.ingress.objects import World, backend, ingress, pair, path, secret, service

PLACE = Place("127.0.0.1", 18180, 18543, "/run/x")


def problems(made):
    return [(p.owner, p.reason) for p in made.problems]


def targets(location):
    return location.choices[0].split[0][0].targets


def test_whose_ingress_it_is():
    classes = {}
    for name, controller in (("navarch", CONTROLLER), ("second", CONTROLLER), ("other", "example.com/x")):
        spec = networking_v1.IngressClassSpec(controller=controller)
        classes[name] = networking_v1.IngressClass(metadata=meta_v1.ObjectMeta(name=name), spec=spec)
    wanted = {"navarch": True, "second": True, "other": False, "absent": False, None: False}
    assert {name: is_ours(ingress("i", class_name=name), classes) for name in wanted} == wanted
    old = ingress("i", class_name=None)
    old.metadata.annotations = {"kubernetes.io/ingress.class": "second"}
    assert is_ours(old, classes)


def test_the_oldest_wins_and_the_other_is_told():
    world = World(service("a"), service("b", "10.9.192.6"))
    young = ingress("a-young", {"x.test": [path("/same", "b"), path("/own", "b")]}, at="2026-01-02T00:00:00Z")
    old = ingress("z-old", {"x.test": [path("/same", "a")]})
    made = site([young, old], *world.lookups())
    host = made.hosts[0]
    found = {loc.path: targets(loc) for loc in host.locations}
    assert found == {"/same": ("10.9.192.5:80",), "/own": ("10.9.192.6:80",)}
    assert problems(made) == [("default/a-young", "Conflict")]


def test_what_cannot_be_served_is_left_out_and_named():
    good, bad = pair("x.test"), pair("y.test")
    world = World(
        service("a", port=8000), service("a2", "None"),
        secrets=[secret("good", *good), secret("mixed", good[0], bad[1]), secret("junk", b"x", b"y")],
        slices={"default/a2": [discovery_v1.EndpointSlice(
            address_type="IPv4", ports=[discovery_v1.EndpointPort(name="http", port=8080)],
            endpoints=[discovery_v1.Endpoint(addresses=["10.9.1.2"]), discovery_v1.Endpoint(addresses=["10.9.1.3"])])]},
    )  # fmt: skip
    evil = ingress("evil", {"x.test": [path('/a"; return 200', "a", port=8000), path("/line\nfeed", "a", port=8000),
                                       path("/" + '"' * 1499, "a", port=8000), path("/" + "l" * 1500, "a", port=8000)]})
    lost = ingress("lost", {"y.test": [path("/", "absent"), path("/port", "a", port=81), path("/word", "a", port="http")]})
    odd = ingress("odd", {"z.test": [networking_v1.HTTPIngressPath(
        path="/", path_type="Prefix", backend=networking_v1.IngressBackend(resource={"kind": "B", "name": "b"}))]})  # fmt: skip
    headless = ingress("headless", {"h.test": [path("/", "a2", port="http")]})
    locked = ingress("locked", {"x.test": [path("/l", "a", port=8000)]}, tls={"mixed": ["x.test"], "junk": [], "none": ["q"]})
    open_ = ingress("open", {"x.test": [path("/o", "a", port=8000)]}, tls={"good": []})
    made = site([evil, lost, odd, headless, locked, open_], *world.lookups())
    assert sorted(problems(made)) == [
        ("default/evil", "Rejected"), ("default/evil", "Rejected"),
        ("default/locked", "BadCertificate"), ("default/locked", "BadCertificate"),
        ("default/locked", "SecretNotFound"), ("default/lost", "BackendNotFound"), ("default/lost", "BackendNotFound"),
        ("default/odd", "Rejected"),
    ]  # fmt: skip
    by_name = {host.name: host for host in made.hosts}
    assert targets(by_name["h.test"].locations[0]) == ("10.9.1.2:8080", "10.9.1.3:8080")
    assert {loc.path: targets(loc) for loc in by_name["y.test"].locations} == {
        "/": (), "/port": (), "/word": ("10.9.192.5:8000",)}  # fmt: skip
    assert list(made.certificates.values()) == [good] and by_name["x.test"].certificates[0] in made.certificates
    text = render(made, PLACE)
    assert r'location = "/a\"; return 200"' in text and "feed" not in text and "upstream endpoints-" in text


@given(st.text())
def test_a_quoted_text_is_one_word(text):
    try:
        word = quoted(text)
    except ValueError:
        assert not is_text(text)
        return
    inner, place = word[1:-1], 0
    while place < len(inner):
        assert inner[place] != '"'
        place += 2 if inner[place] == "\\" else 1
    assert place == len(inner)


class Answers(http.server.BaseHTTPRequestHandler):
    """Says its port, the path, and the headers that matter."""

    def do_GET(self):
        told = {h: self.headers.get(h) for h in ("Host", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP")}
        body = f"{self.server.server_port} {self.path} {told}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Backend(socketserver.ThreadingTCPServer):
    """An HTTP server that does not ask a resolver for its own name."""

    daemon_threads = True

    @property
    def server_port(self):
        return self.server_address[1]


@pytest.fixture(scope="module")
def backends():
    servers = [Backend(("127.0.0.1", 0), Answers) for _ in range(3)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [s.server_port for s in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def running(tmp_path):
    made = []

    def start(text_of, certificates=(), at="run"):
        place = Place("127.0.0.1", free_port(), free_port(), str(tmp_path / at), user="root root")
        nginx = Nginx(Path(place.directory), tmp_path / f"{at}.log")
        nginx.write_pairs({"fallback": fallback_pair(RealWorld().now()), **dict(certificates)})
        made.append(nginx)
        text = text_of(place)
        assert nginx.refusal(text) == ""
        nginx.apply(text)
        return nginx, place

    yield start
    for nginx in made:
        nginx.stop()


def free_port():
    with socketserver.TCPServer(("127.0.0.1", 0), None) as server:
        return server.server_address[1]


def get(place, host, target, tls=None):
    if tls:
        context = ssl.create_default_context(cadata=tls)
        raw = http.client.HTTPSConnection("127.0.0.1", place.https, timeout=5, context=context)
        raw.sock = context.wrap_socket(
            socket.create_connection(("127.0.0.1", place.https), 5), server_hostname=host
        )
    else:
        raw = http.client.HTTPConnection("127.0.0.1", place.http, timeout=5)
    try:
        raw.request("GET", target, headers={"Host": host})
        answer = raw.getresponse()
        return answer.status, answer.read().decode()
    finally:
        raw.close()


def test_hosts_and_paths_as_nginx_understands_them(backends, running):
    a, b, c = backends
    world = World(*(service(n, "127.0.0.1", p) for n, p in zip("abc", backends, strict=True)))
    rules = ingress("rules", {
        "x.test": [path("/foo", "a", port=a), path("/foo/bar", "b", port=b), path("/foo", "c", "Exact", port=c),
                   path("/tail/", "b", port=b), path("/e/", "c", "Exact", port=c), path("/a%20b", "c", port=c),
                   path("/im", "a", "ImplementationSpecific", port=a)],
        "*.x.test": [path("/", "b", port=b)],
        "": [path("/any", "a", port=a)],
        "d.test": [path("/d", "a", port=a)],
    })  # fmt: skip
    rules.spec.default_backend = backend("c", c)
    made = site([rules], *world.lookups())
    assert not made.problems
    _, place = running(lambda place: render(made, place))
    wanted = {
        ("x.test", "/foo"): c, ("x.test", "/foo/"): a, ("x.test", "/foo/x"): a, ("x.test", "/foobar"): c,
        ("x.test", "/foo/bar"): b, ("x.test", "/foo/bar/z?q=1"): b, ("x.test", "/foo/barz"): a,
        ("x.test", "/tail"): b, ("x.test", "/tail/x"): b, ("x.test", "/tailx"): c, ("x.test", "/e/"): c, ("x.test", "/im/x"): a,
        ("x.test", "/a%20b/c"): c, ("x.test", "//foo"): c, ("x.test:8080", "/foo/x"): a, ("X.TEST", "/foo/x"): a,
        ("one.x.test", "/q"): b, ("one.two.x.test", "/any"): a, ("one.two.x.test", "/q"): c,
        ("y.test", "/any/x"): a, ("y.test", "/q"): c, ("d.test", "/any"): c, ("d.test", "/d"): a,
    }  # fmt: skip
    found = {}
    for host, target in wanted:
        status, body = get(place, host, target)
        assert status == 200
        assert body.split()[1] == target or target.startswith("//"), "the path goes on as it came (Python merges slashes)"
        found[host, target] = int(body.split()[0])
    assert found == wanted
    body = get(place, "x.test", "/foo/x")[1]
    assert "'Host': 'x.test'" in body and "'X-Forwarded-For': '127.0.0.1'" in body and "'X-Forwarded-Proto': 'http'" in body


def test_without_a_rule_404_and_without_an_endpoint_503(backends, running):
    made = site([ingress("i", {"x.test": [path("/gone", "gone")]})], *World().lookups())
    _, place = running(lambda place: render(made, place))
    assert get(place, "x.test", "/")[0] == 404 and get(place, "y.test", "/gone")[0] == 404
    status, body = get(place, "x.test", "/gone")
    assert status == 503 and "Service" in body


def test_many_hosts_have_more_time_and_the_longest_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("proxy.ingress.nginx.PATIENCE", 0.0)
    monkeypatch.setattr("proxy.ingress.nginx.PATIENCE_OF_HOST", 1.0)
    nginx = Nginx(tmp_path / "run", tmp_path / "log")
    nginx.write_pairs({"fallback": fallback_pair(RealWorld().now())})
    world = World(service("a", port=8000))
    longest = path("/" + '"' * 1499, "a", port=8000)
    made = site([ingress("i", {f"{n}.test": [longest] for n in range(30)})], *world.lookups())
    place = Place("127.0.0.1", free_port(), free_port(), str(tmp_path / "run"), user="root root")
    assert not made.problems and nginx.refusal(render(made, place)) == ""
    with pytest.raises(NginxError, match="did not answer within 0 s"):
        nginx.refusal("events {}")


def test_certificates_by_name(backends, running):
    one, wild = pair("x.test"), pair("*.x.test")
    world = World(service("a", "127.0.0.1", backends[0]), secrets=[secret("one", *one), secret("wild", *wild)])
    rules = {host: [path("/", "a", port=backends[0])] for host in ("x.test", "in.x.test", "plain.test")}
    made = site([ingress("i", rules, tls={"one": ["x.test"], "wild": ["*.x.test"]})], *world.lookups())
    _, place = running(lambda place: render(made, place), made.certificates.items())
    for host, (certificate, _) in (("x.test", one), ("in.x.test", wild)):
        status, body = get(place, host, "/", tls=certificate.decode())
        assert status == 200 and "'X-Forwarded-Proto': 'https'" in body
    with pytest.raises(ssl.SSLCertVerificationError):
        get(place, "plain.test", "/", tls=one[0].decode())


def test_a_reload_drops_nothing_and_nginx_outlives_us(backends, running):
    world = World(service("a", "127.0.0.1", backends[0]))
    everything = [path("/", "a", port=backends[0])]
    hosts = [{f"x{n}.test": everything, "x.test": everything} for n in range(8)]
    versions = [site([ingress("i", rules)], *world.lookups()) for rules in hosts]
    nginx, place = running(lambda place: render(versions[0], place))
    failures, count, end = [], [0], threading.Event()

    def load():
        while not end.is_set():
            try:
                assert get(place, "x.test", "/")[0] == 200
                count[0] += 1
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    pid = nginx.pid()
    again = Nginx(nginx.directory, nginx.log)  # as after a restart of ours
    for made in versions[1:]:
        again.apply(render(made, place))
        time.sleep(0.1)
    end.set()
    for thread in threads:
        thread.join()
    assert not failures and count[0] > 50 and again.pid() == pid != 0
    assert "unexpected" in again.refusal("http { junk")


def test_a_master_that_is_killed_leaves_nobody_in_the_way(backends, running):
    world = World(service("a", "127.0.0.1", backends[0]))
    made = site([ingress("i", {"x.test": [path("/", "a", port=backends[0])]})], *world.lookups())
    nginx, place = running(lambda place: render(made, place))
    pid = nginx.pid()
    os.kill(pid, signal.SIGKILL)
    while nginx.pid():
        time.sleep(0.01)
    wait_for(nginx.orphans, "its workers have no master")
    nginx.apply(render(made, place))
    assert nginx.pid() not in (0, pid) and get(place, "x.test", "/")[0] == 200
    wait_for(lambda: not nginx.orphans(), "they have gone")


def test_orphans_of_another_nginx_are_not_ended(backends, running):
    world = World(service("a", "127.0.0.1", backends[0]))
    made = site([ingress("i", {"x.test": [path("/", "a", port=backends[0])]})], *world.lookups())
    (killed, _), (other, place) = running(lambda place: render(made, place)), running(lambda place: render(made, place), at="b")
    os.kill(killed.pid(), signal.SIGKILL)
    orphans = wait_for(killed.orphans, "its workers have no master")
    assert other.orphans() == []
    other.stop()
    other.apply(render(made, place))
    assert killed.orphans() == orphans
    for pid in orphans:
        os.kill(pid, signal.SIGTERM)
