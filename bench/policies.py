"""Measures how long a node's proxy takes from a change to nftables, with many NetworkPolicies, and what a policy costs traffic.

    python -m bench.policies [--policies N ...] [--pods N] [--rounds N]

Everything happens in a network namespace of its own, as root. Pods are in ten namespaces, a tenth of them on this node; each
policy selects the pods of one of 50 applications and lets those of another ask port 8080. Prints the median CPU time, the
median time and the slowest of ``rounds`` changes, in ms: a pod that comes or goes, a pod whose labels change, a policy that
changes; and all of it loaded anew. Then the throughput of one TCP stream between two pods on this node, in Gbit/s, without
policies and with ten that select the pod that is asked.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from lab.namespaces import in_child
from navarch.api.networkpolicies import Member, Policy, policy_of
from navarch.api.types import meta_v1, networking_v1
from navarch.linux.nftables import Nftables
from navarch.linux.syscalls import CLONE_NEWNET, setns, unshare
from proxy.policyrules import LAYOUT, Compiler, Here
from proxy.programmer import Programmer

NAMESPACES, APPLICATIONS = 10, 50


def policy(number: int, port: int = 8080, app: str = "") -> Policy:
    asking = meta_v1.LabelSelector(match_labels={"app": f"a{(number + 1) % APPLICATIONS}"})
    peer = networking_v1.NetworkPolicyPeer(pod_selector=asking)
    rule = networking_v1.NetworkPolicyIngressRule(from_=[peer], ports=[networking_v1.NetworkPolicyPort(port=port)])
    return policy_of(
        networking_v1.NetworkPolicy(
            metadata=meta_v1.ObjectMeta(name=f"p{number}", namespace=f"n{number % NAMESPACES}"),
            spec=networking_v1.NetworkPolicySpec(
                pod_selector=meta_v1.LabelSelector(match_labels={"app": app or f"a{number % APPLICATIONS}"}), ingress=[rule]
            ),
        )
    )


def pod(number: int, version: int = 0) -> Member:
    node = number % 10 + 1
    labels = {"app": f"a{number % APPLICATIONS}", "version": str(version)}
    return Member(f"n{number % NAMESPACES}", f"pod{number}", f"10.9.{node}.{number // 10 % 250 + 2}", f"node-{node}", labels)


def prepared(policies: int, pods: int) -> tuple[Compiler, Programmer]:
    compiler = Compiler(Here("node-1", "10.9.1.0/24", "10.9.128.11"))
    for number in range(NAMESPACES):
        compiler.put_namespace(f"n{number}", {})
    for number in range(policies):
        compiler.put_policy(policy(number).key, policy(number))
    for number in range(pods):
        compiler.put_pod(pod(number).key, pod(number))
    return compiler, Programmer(Nftables(), LAYOUT)


def latency(policies: int, pods: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    compiler, programmer = prepared(policies, pods)

    def timed(change: Callable[..., None], *arguments: object) -> tuple[float, float]:
        began, used = time.perf_counter(), time.process_time()
        change(*arguments)
        assert programmer.program(compiler.changes()) == {}
        return (time.process_time() - used) * 1000, (time.perf_counter() - began) * 1000

    out: dict[str, list[tuple[float, float]]] = {"all": [timed(lambda: None)], "come": [], "labels": [], "policy": []}
    for turn in range(rounds):
        fresh = pod(pods + turn * 10)  # on this node
        out["come"] += [timed(compiler.put_pod, fresh.key, member) for member in (fresh, None)]
        moved = pod(turn * 10, turn + 1)
        other = replace(moved, labels={**moved.labels, "app": f"a{turn % APPLICATIONS}"})
        out["labels"].append(timed(compiler.put_pod, other.key, other))
        new = policy(turn, 9000 + turn)
        out["policy"].append(timed(compiler.put_policy, new.key, new))
    return {
        name: (*(statistics.median(column) for column in zip(*values, strict=True)), max(wall for _, wall in values))
        for name, values in out.items()
    }


def pairs() -> Iterator[tuple[str, int]]:
    """Two pods' namespaces, routed by this one: (address, descriptor of the namespace)."""
    for number in (2, 3):
        process = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        while os.readlink(f"/proc/{process.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        fd = os.open(f"/proc/{process.pid}/ns/net", os.O_RDONLY)
        inside, address = ("nsenter", f"--net=/proc/{process.pid}/ns/net", "ip"), f"10.9.1.{number}"
        for words in (
            ("ip", "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", str(process.pid)),
            ("ip", "link", "set", f"v{number}", "up"),
            ("ip", "route", "add", address, "dev", f"v{number}"),
            ("ip", "addr", "add", "169.254.1.1/32", "dev", f"v{number}"),
            (*inside, "link", "set", "eth0", "up"),
            (*inside, "addr", "add", f"{address}/32", "dev", "eth0"),
            (*inside, "route", "add", "169.254.1.1", "dev", "eth0"),
            (*inside, "route", "add", "default", "via", "169.254.1.1"),
        ):
            subprocess.run(words, check=True)
        yield address, fd
        process.kill()
        process.wait()


def opened(fd: int) -> socket.socket:
    made: list[socket.socket] = []

    def work() -> None:
        setns(fd, CLONE_NEWNET)
        made.append(socket.socket())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return made[0]


def throughput(server: int, client: int, address: str, seconds: float = 2.0) -> float:
    """Gbit/s of one TCP stream."""
    listener, sender = opened(server), opened(client)
    listener.bind((address, 8080))
    listener.listen()
    sender.settimeout(5)
    sender.connect((address, 8080))
    receiver, _ = listener.accept()
    got, data = [0], bytes(1 << 20)

    def receive() -> None:
        buffer = bytearray(1 << 20)
        while size := receiver.recv_into(buffer):
            got[0] += size

    thread = threading.Thread(target=receive)
    thread.start()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        sender.send(data)
    sender.close()
    thread.join()
    for one in (listener, receiver):
        one.close()
    return got[0] * 8 / (time.perf_counter() - began) / 1e9


def traffic() -> dict[str, float]:
    unshare(CLONE_NEWNET)
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    made = pairs()
    (one, server), (_, client) = next(made), next(made)
    out = {"without": throughput(server, client, one)}
    compiler, programmer = prepared(0, 0)
    compiler.put_pod("n0/server", Member("n0", "server", one, "node-1", {"app": "a0"}))
    compiler.put_pod("n0/client", Member("n0", "client", "10.9.1.3", "node-1", {"app": "a1"}))
    for number in range(10):
        other = policy(number * NAMESPACES, 8080 if number == 9 else 9000, "a0")
        compiler.put_policy(other.key, other)
    allowed = policy(0, 8080)
    compiler.put_policy("n0/allowed", allowed)
    assert programmer.program(compiler.changes()) == {}
    out["with ten policies"] = throughput(server, client, one)
    list(made)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policies", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    for count in options.policies:

        def work(count: int = count) -> dict[str, tuple[float, float, float]]:
            unshare(CLONE_NEWNET)
            return latency(count, options.pods, options.rounds)

        found = in_child(work)
        print(f"{count} policies, {options.pods} pods: CPU, median and slowest, ms")
        names = {"come": "a pod comes or goes", "labels": "a pod's labels change", "policy": "a policy changes"}
        names["all"] = "all anew"
        for name, text in names.items():
            print(f"  {text:24}" + "".join(f" {value:8.2f}" for value in found[name]))
    for name, rate in in_child(traffic).items():
        print(f"one TCP stream, {name}: {rate:.1f} Gbit/s")


if __name__ == "__main__":
    main()
