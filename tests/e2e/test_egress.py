"""A lab's way out, on a machine whose internet is a namespace of this test's own; nothing reaches the real network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import FRONTEND
from tests.e2e.harness import ROOT, Lab, fetch, wait_for
from tests.e2e.test_down import down_at_last

# The internet: a web server that tells who asks, and a resolver that knows one name. Both at 203.0.113.1.
INTERNET = """
import http.server, socket, socketserver, threading
from dnslib import RR, QTYPE, A, DNSRecord

class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass

class Names(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        request = DNSRecord.parse(data)
        reply = request.reply()
        if str(request.q.qname) == "web.example." and request.q.qtype == QTYPE.A:
            reply.add_answer(RR("web.example", QTYPE.A, rdata=A("203.0.113.1"), ttl=5))
        sock.sendto(reply.pack(), self.client_address)

web = http.server.ThreadingHTTPServer(("203.0.113.1", 80), Web)
names = socketserver.ThreadingUDPServer(("203.0.113.1", 53), Names)
threading.Thread(target=web.serve_forever, daemon=True).start()
print("ready", flush=True)
names.serve_forever()
"""
# The machine: its default route leads to the internet, and its resolver is there.
MACHINE = """
set -e
mount -t tmpfs none /run
echo 'nameserver 203.0.113.1' > /run/resolv.conf
mount --bind /run/resolv.conf $(readlink -f /etc/resolv.conf)
ip link set lo up
read pid
ip link add wan type veth peer name eth0 netns $pid
ip addr add 203.0.113.2/24 dev wan
ip link set wan up
ip route add default via 203.0.113.1
echo 0 > /proc/sys/net/ipv4/ip_forward
echo ready
exec sleep infinity
"""


@pytest.fixture
def machine() -> Iterator[tuple[list[str], list[str]]]:
    """The words that lead into a machine, and into its internet."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    host = subprocess.Popen(["unshare", "-n", "-m", "sh", "-c", MACHINE], **pipes)
    wire = "ip link set lo up; read _; ip addr add 203.0.113.1/24 dev eth0; ip link set eth0 up; exec \"$@\""
    far = subprocess.Popen(["unshare", "-n", "sh", "-c", wire, "sh", sys.executable, "-c", INTERNET], **pipes)
    try:
        assert host.stdin and host.stdout and far.stdin and far.stdout
        own = Path("/proc/self/ns/net").readlink()
        wait_for(lambda: Path(f"/proc/{far.pid}/ns/net").readlink() != own, "the internet has a namespace")
        host.stdin.write(f"{far.pid}\n")
        host.stdin.flush()
        assert host.stdout.readline() == "ready\n"
        far.stdin.write("\n")
        far.stdin.flush()
        assert far.stdout.readline() == "ready\n"
        yield ["nsenter", "-t", str(host.pid), "-n", "-m", f"--wd={ROOT}"], ["nsenter", "-t", str(far.pid), "-n"]
    finally:
        for process in (host, far):
            process.kill()
            process.wait()


def forwarding(lab: Lab) -> str:
    return lab.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip()


def asks(where: Lab, url: str) -> str:
    """What a pod gets from an address; "" if nothing."""
    return where.run("kubectl", "exec", "web", "--", "/usr/bin/python3", *fetch(url)[1:], check=False).stdout


def one_leads_out(lab: Lab, closed: Lab) -> None:
    for each in (lab, closed):
        each.kubectl("run", "web", f"--image={FRONTEND}:v1")
        each.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    assert asks(lab, "http://203.0.113.1/") == "203.0.113.2", "the internet sees the machine, not the pod"
    assert asks(lab, "http://web.example/") == "203.0.113.2", "the cluster's DNS asks the machine's resolver"
    assert lab.in_node("node-1", *fetch("http://203.0.113.1/")) == "203.0.113.2"
    assert asks(closed, "http://203.0.113.1/") == asks(closed, "http://web.example/") == ""


def own_ranges_stay_closed(lab: Lab, closed: Lab, internet: list[str]) -> None:
    """The labs' addresses are closed to each other, and to whoever is outside; the machine itself reaches them."""
    other = closed.get("pod", "web")["status"]["podIP"]
    assert asks(lab, f"http://{other}:8080/version") == ""
    pod = lab.get("pod", "web")["status"]["podIP"]
    assert lab.run(*fetch(f"http://{pod}:8080/version")).stdout.startswith("v1"), "the machine reaches the pod"
    for address in (pod, other):
        network = address.rsplit(".", 2)[0] + ".0.0/16"
        subprocess.run([*internet, "ip", "route", "add", network, "via", "203.0.113.2"], check=True)
        assert subprocess.run([*internet, *fetch(f"http://{address}:8080/version")], capture_output=True).returncode != 0


def closes_and_opens(lab: Lab) -> None:
    lab.environment["NAVARCH_EGRESS"] = "off"
    assert "Egress is off on this machine" in lab.up()
    assert asks(lab, "http://203.0.113.1/") == "" and forwarding(lab) == "0"
    del lab.environment["NAVARCH_EGRESS"]
    lab.up()
    wait_for(lambda: asks(lab, "http://web.example/") == "203.0.113.2", "it is open again", 30)


def test_a_way_out_and_none(home: Path, machine: tuple[list[str], list[str]], tmp_path: Path) -> None:
    enter, internet = machine
    elsewhere = tmp_path / "home"
    elsewhere.mkdir()
    (elsewhere / "images").symlink_to(home / "images")
    lab, closed = Lab(elsewhere, "out", enter), Lab(elsewhere, "closed", enter)
    for each in (lab, closed):
        each.environment.pop("NAVARCH_EGRESS", None)
    with down_at_last(closed), down_at_last(lab):
        closed.up("--nodes", "1", "--egress", "off")
        assert forwarding(lab) == "0"
        lab.up("--nodes", "1")
        assert forwarding(lab) == "1" and lab.status()["egress"] and not closed.status()["egress"]
        one_leads_out(lab, closed)
        own_ranges_stay_closed(lab, closed, internet)
        closes_and_opens(lab)
    assert forwarding(lab) == "0", "as it was before"
