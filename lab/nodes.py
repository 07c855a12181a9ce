"""A lab's real nodes: namespaces and control groups with an agent and a proxy in each, plugged into the lab's switch."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import orjson

from lab import components, containerd, networknamespace, nodenamespaces, supervisor, wayout
from lab.apiclient import Api
from lab.forking import Spec
from lab.hollow import Fleet
from lab.lab import Lab
from lab.namespaces import ProcessId
from lab.paths import LabError, NodeRecord
from navarch.api import quantity, times
from nodeagent.hollow.roster import number_of
from nodeagent.node.shutdownperiods import STATE_FILE

MEMORY_RESERVE = 1 << 30  # bytes kept for the host and the control plane


class Nodes:
    """The real nodes of a lab. What changes them needs the lab's lock."""

    def __init__(self, lab: Lab, api: Api, hollow: Fleet, certificates: Callable[[], None]) -> None:
        """``certificates``: issues those that are missing."""
        self.lab, self.api, self.hollow, self._certificates = lab, api, hollow, certificates
        self.paths = lab.paths

    def status(self, record: NodeRecord) -> dict[str, Any]:
        init = ProcessId.load(record.init)
        on = init is not None and init.enterable()
        return {
            "name": record.name,
            "address": self.lab.addresses.node(record.number),
            "podCIDR": self.lab.addresses.pod_range(record.number),
            "power": "on" if on else "off",
            "partitioned": record.partitioned,
            "pid": init.pid if on and init else 0,
            "cpu": record.cpu,
            "memory": record.memory,
        }

    def plan(self, count: int, cpu: str, memory: str) -> None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        share = max(count, 1)
        cpu = cpu or f"{max(100, (os.cpu_count() or 1) * 1000 // share // 10 * 10)}m"
        memory = memory or f"{max(256, (total - MEMORY_RESERVE) // share // (1 << 20))}Mi"
        for _ in range(count):
            self.new("", cpu, memory)

    def new(self, name: str, cpu: str, memory: str, **more: Any) -> NodeRecord:
        """Notes one more node; ``more``: other fields of NodeRecord."""
        record = self.lab.required_record
        number = record.next_number
        self.lab.addresses.node(number)  # checks that there is room
        entry = NodeRecord(name or f"node-{number}", number, cpu, memory, **more)
        if number_of(entry.name):
            raise LabError(f"{entry.name} is the name of a simulated node; to add one: navarch node add --hollow 1")
        if any(n.name == entry.name for n in record.nodes):
            raise LabError(f'lab "{record.name}" already has a node "{entry.name}"')
        record.nodes.append(entry)
        record.next_number += 1
        return entry

    def power_on(self, entry: NodeRecord) -> None:
        self.boot(entry)
        self.lab.start(self.components(entry))

    def boot(self, entry: NodeRecord) -> None:
        """Switches the node on if it is off; its way out is as the lab's afterwards."""
        init, out = ProcessId.load(entry.init), self.lab.required_record.way_out
        if init is None or not init.enterable():
            self.power_off(entry)
            entry.booted = time.time()
            memory = int(quantity.value(entry.memory))
            init = nodenamespaces.power_on(self.paths.id, entry.name, quantity.milli(entry.cpu) / 1000, memory)
            entry.init = init.dump()
            self.lab.save()
            networknamespace.plug(self.paths.id, self.lab.addresses, entry.number, init, out)
            if entry.partitioned:
                networknamespace.set_port(self.paths.id, entry.number, up=False)
        else:
            wayout.route_node(self.lab.addresses, init, out)

    def components(self, entry: NodeRecord) -> list[Spec]:
        init = ProcessId.load(entry.init)
        assert init is not None, "the node was booted"
        record = self.lab.required_record
        makers = [components.agent, components.proxy, *([components.ingress] if record.ingress else [])]
        makers += [components.gateways] if record.gateway else []
        first = [containerd.containerd(self.paths, entry, init)] if record.runtime == containerd.CONTAINERD else []
        return [*first, *(make(self.paths, record, entry, init) for make in makers)]

    def power_off(self, entry: NodeRecord) -> None:
        nodenamespaces.power_off(self.paths.id, entry.name, ProcessId.load(entry.init))
        entry.init = None
        networknamespace.unplug(self.paths.id, entry.number)

    def wait(self, names: list[str], timeout: float) -> None:
        """Waits until the nodes are Ready."""
        if not names:
            return
        self.lab.progress(f"waiting for {len(names)} nodes")
        what = f"not all of the nodes {', '.join(names)} became Ready"
        self.api.wait_for(lambda: set(names) <= self.ready(), timeout, what, f"agent-{names[0]}")

    def ready(self) -> set[str]:
        """The nodes that are Ready, and have said so since they were switched on."""
        leases_path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        if len(self.hollow.roster):  # their Leases are too many to ask for
            names = [entry.name for entry in self.lab.required_record.nodes]
            lease_paths = [f"{leases_path}?fieldSelector=metadata.name%3D{name}" for name in names]
        else:
            lease_paths = [leases_path]
        paths = ["/api/v1/nodes?labelSelector=type%21%3Dhollow", *lease_paths]
        answers = [self.api.call("GET", path) for path in paths]
        if any(status != 200 for status, _ in answers):
            return set()
        nodes, *lease_lists = (orjson.loads(body)["items"] for _, body in answers)
        leases = [lease for items in lease_lists for lease in items]
        renewed = {item["metadata"]["name"]: times.parse_time(item["spec"]["renewTime"]) for item in leases}
        booted = {entry.name: entry.booted for entry in self.lab.required_record.nodes}
        return {
            name
            for name, status in ((item["metadata"]["name"], item.get("status", {})) for item in nodes)
            for condition in status.get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
            if renewed.get(name, 0.0) >= booted.get(name, 0.0)
        }

    def add(self, name: str, cpu: str, memory: str) -> NodeRecord:
        """Makes and starts a node; by default it is as large as the first."""
        if os.geteuid() != 0:
            raise LabError("real nodes need root")
        if not networknamespace.exists(self.paths.id):
            raise LabError(
                "this lab was started without nodes, so its API server does not listen on the lab's network; "
                f"start anew: navarch down --purge{self.lab.lab_flag} and navarch up"
            )
        others = self.lab.required_record.nodes
        default_cpu, default_memory = (others[0].cpu, others[0].memory) if others else ("1", "1Gi")
        entry = self.new(name, cpu or default_cpu, memory or default_memory)
        self._certificates()
        self.lab.save()
        self.power_on(entry)
        self.lab.save()
        return entry

    def remove(self, name: str) -> None:
        entry = self.lab.required_record.node(name)
        self._stop_components(entry)
        self.power_off(entry)
        self.lab.required_record.nodes.remove(entry)
        self.lab.save()
        shutil.rmtree(self.paths.nodes / name, ignore_errors=True)
        for file in (f"{name}.crt", f"{name}.key", f"{name}.kubeconfig"):
            (self.paths.pki / file).unlink(missing_ok=True)

    def shut_down(self, name: str, timeout: float) -> None:
        """Has the node's agent end all pods of the node, and waits until it has. The node stays on.

        Raises LabError if the agent does not run, or takes longer than ``timeout`` seconds."""
        self.lab.required_record.node(name)
        state = self.paths.nodes / name / STATE_FILE
        state.unlink(missing_ok=True)
        if not supervisor.request(self.paths, "signal", name=f"agent/{name}", number=int(signal.SIGPWR)):
            raise LabError(f"the agent of node {name} does not run: only its power can be cut: navarch node stop {name}")
        end = time.monotonic() + timeout
        while "endTime" not in (state.read_text() if state.exists() else ""):
            if time.monotonic() > end:
                hint = f"cut its power: navarch node stop {name}"
                raise LabError(f"the pods of node {name} have not ended within {timeout:g} s; {hint}")
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        """Power loss."""
        entry = self.lab.required_record.node(name)
        nodenamespaces.power_off(self.paths.id, name, ProcessId.load(entry.init))  # first: nobody gets to say goodbye
        self._stop_components(entry)
        self.power_off(entry)
        entry.stopped = True
        self.lab.save()

    def start(self, name: str) -> NodeRecord:
        entry = self.lab.required_record.node(name)
        entry.stopped = False
        self.power_on(entry)
        self.lab.save()
        return entry

    def partition(self, name: str, heal: bool) -> None:
        """Takes the node's switch port down (the node itself keeps running), or up again."""
        entry = self.lab.required_record.node(name)
        if ProcessId.load(entry.init) is None:
            raise LabError(f"node {name} is off; start it with: navarch node start {name}{self.lab.lab_flag}")
        networknamespace.set_port(self.paths.id, entry.number, up=heal)
        entry.partitioned = not heal
        self.lab.save()

    def _stop_components(self, entry: NodeRecord) -> None:
        if self.lab.running():
            names = [f"agent/{entry.name}", f"proxy/{entry.name}", f"ingress/{entry.name}", f"gateways/{entry.name}"]
            names.append(containerd.component(entry.name))
            supervisor.request(self.paths, "stop", names=names, timeout=10)
