"""A real lab: brings it up, takes it down, and changes its nodes. What `navarch up`, `down` and `node` do.

Everything here is synchronous and runs in the caller's process; the long-lived part is the supervisor. Every step can
be repeated: `up` after `up`, after `down`, after a crash or a reboot ends in the same place.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import orjson

from lab import cgroups, components, node, supervisor, switch
from lab.addons import apply_addons
from lab.addresses import Addresses, claim_index, free_port, holds_index, release_index
from lab.certificates import Authority
from lab.hollow import Fleet, HollowNodes
from lab.namespaces import ProcessId
from lab.paths import LabError, LabPaths, LabRecord, NodeRecord, private_directory
from navarch.api import quantity, times
from nodeagent.hollow.roster import HOST as HOLLOW_HOST
from nodeagent.hollow.roster import number_of


class Progress(Protocol):
    """Called with a few words at the start of each step; ``detail`` adds how far the step has come."""

    def __call__(self, step: str, /) -> None: ...

    def detail(self, text: str) -> None: ...


class Silence:
    """Progress for nobody."""

    def __call__(self, step: str, /) -> None:
        pass

    def detail(self, text: str) -> None:
        pass


MASTERS = ("system:masters",)
MEMORY_RESERVE = 1 << 30  # bytes kept for the host and the control plane


class Cluster:
    """One lab of this machine."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        self.paths = LabPaths(name)
        self.progress = progress or Silence()
        self.hollow = Fleet(self)
        self.record = LabRecord.load(self.paths.config)

    # What there is

    @property
    def known(self) -> LabRecord:
        if self.record is None:
            raise LabError(f'there is no lab "{self.paths.name}"; start it with: navarch up{self.lab_flag}')
        return self.record

    @property
    def lab_flag(self) -> str:
        """What to add to a command so that it means this lab."""
        return "" if self.paths.name == os.environ.get("NAVARCH_LAB", "default") else f" --lab {self.paths.name}"

    @property
    def addresses(self) -> Addresses:
        return Addresses(self.known.index)

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.known.port}"

    def running(self) -> bool:
        return supervisor.identity(self.paths) is not None

    def status(self) -> dict[str, Any]:
        """The lab as `navarch status -o json` prints it."""
        record = self.known
        listed = supervisor.request(self.paths, "list") if self.running() else []
        processes = [{"name": p["name"], "pid": p["pid"], "restarts": p["restarts"]} for p in listed if p["pid"]]
        own = supervisor.identity(self.paths)
        if own:
            processes.insert(0, {"name": "supervisor", "pid": own.pid, "restarts": 0})
        store: dict[str, Any] = {"kind": record.store}
        if record.store == "etcd":
            store["endpoint"] = f"unix:{self.paths.etcd / components.ETCD_SOCKET}"
        else:
            store["path"] = str(self.paths.database)
        return {
            "lab": record.name,
            "running": own is not None,
            "kubeconfig": str(self.paths.kubeconfig),
            "server": self.server,
            "store": store,
            "nodes": [self._node_status(n) for n in record.nodes],
            "hollow": self.hollow.status(),
            "processes": processes,
            "logs": str(self.paths.logs),
            "settings": record.settings,
        }

    def _node_status(self, record: NodeRecord) -> dict[str, Any]:
        init = ProcessId.load(record.init)
        on = init is not None and init.enterable()
        return {
            "name": record.name,
            "address": self.addresses.node(record.number),
            "podCIDR": self.addresses.pod_range(record.number),
            "power": "on" if on else "off",
            "partitioned": record.partitioned,
            "pid": init.pid if on and init else 0,
            "cpu": record.cpu,
            "memory": record.memory,
        }

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time; reads the record anew."""
        private_directory(self.paths.root)
        with self.paths.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.progress("another navarch command is changing this lab; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            self.record = LabRecord.load(self.paths.config)
            yield

    def save(self) -> None:
        self.known.save(self.paths.config)

    # Up

    def up(
        self,
        nodes: int | None = None,
        store: str | None = None,
        node_cpu: str = "",
        node_memory: str = "",
        failover: str | None = None,
        settings: dict[str, str] | None = None,
        wait: float = 60.0,
        hollow: HollowNodes | None = None,
    ) -> None:
        """Starts the lab, or what of it does not run; waits until the API is ready and the nodes are Ready.

        ``nodes``, ``hollow`` and ``store`` of a lab that exists must agree with what it has; None means as it is.
        """
        components.check_settings(settings or {})
        with self.locked():
            fresh = self.record is None
            self._prepare(nodes, store, failover, settings or {})
            record = self.known
            wanted = (3 if fresh else 0) if nodes is None else nodes
            if not record.nodes and record.next_number == 1:
                self._plan_nodes(wanted, node_cpu, node_memory)
            with_nodes = bool(record.nodes) or switch.exists(self.paths.id)
            if with_nodes and os.geteuid() != 0:
                raise LabError("real nodes need root; without it use: navarch up --nodes 0")
            self._plan_hollow(hollow, with_nodes)
            self._certificates()
            self.save()
            root = os.geteuid() == 0
            if root:
                cgroups.make(components.control_group(self.paths.id))
            if with_nodes:
                self.progress("network")
                switch.create(self.paths.id, self.addresses)
            if not self.running():
                self.progress("control plane")
                supervisor.spawn(self.paths, components.control_group(self.paths.id))
            specs = [components.etcd(self.paths)] if record.store == "etcd" else []
            specs.append(components.apiserver(self.paths, record, with_nodes))
            self._start(specs)
            on = [entry for entry in record.nodes if not entry.stopped]
            for entry in on:
                self.progress(f"node {entry.name}")
                self._boot(entry)
            self.save()
            self.progress("components")
            specs = [components.controllers(self.paths, record), components.scheduler(self.paths, record)]
            self._start([*specs, *(spec for entry in on for spec in self._node_components(entry))])
        self.wait_ready(wait)
        apply_addons(self)
        self.hollow.start()
        self.wait_nodes([n.name for n in self.known.nodes if not n.stopped and not n.partitioned], wait)
        self.hollow.wait(wait)

    def _prepare(self, nodes: int | None, store: str | None, failover: str | None, settings: dict[str, str]) -> None:
        self.paths.make()
        if self.record is None:
            chosen = store or ("etcd" if shutil.which("etcd") else "sqlite")
            index = claim_index(str(self.paths.root))
            port = free_port(6443 + (index - 200) * 10)
            self.record = LabRecord(self.paths.name, index, port, chosen)
        record = self.record
        if store is not None and store != record.store:
            raise LabError(
                f'lab "{record.name}" keeps its data in {record.store}; '
                f"to start anew with {store}: navarch down --purge{self.lab_flag}"
            )
        if nodes is not None and record.next_number > 1 and nodes != len(record.nodes):
            raise LabError(
                f'lab "{record.name}" has {len(record.nodes)} nodes; '
                f"use navarch node add or remove, or start anew: navarch down --purge{self.lab_flag}"
            )
        claim_index(str(self.paths.root), record.index)
        if failover is not None:
            record.failover = failover
        record.settings |= settings

    def _plan_nodes(self, count: int, cpu: str, memory: str) -> None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        share = max(count, 1)
        cpu = cpu or f"{max(100, (os.cpu_count() or 1) * 1000 // share // 10 * 10)}m"
        memory = memory or f"{max(256, (total - MEMORY_RESERVE) // share // (1 << 20))}Mi"
        for _ in range(count):
            self._new_node("", cpu, memory)

    def _plan_hollow(self, wanted: HollowNodes | None, real: bool) -> None:
        count = len(self.hollow.roster)
        if wanted is None or wanted.count == count:
            return
        if count:
            raise LabError(
                f'lab "{self.known.name}" has {count} hollow nodes; '
                f"use navarch node add --hollow or navarch node remove{self.lab_flag}"
            )
        self.hollow.plan(wanted, real)

    def _new_node(self, name: str, cpu: str, memory: str) -> NodeRecord:
        record = self.known
        number = record.next_number
        self.addresses.node(number)  # checks that there is room
        entry = NodeRecord(name or f"node-{number}", number, cpu, memory)
        if number_of(entry.name):
            raise LabError(f"{entry.name} is the name of a simulated node; to add one: navarch node add --hollow 1")
        if any(n.name == entry.name for n in record.nodes):
            raise LabError(f'lab "{record.name}" already has a node "{entry.name}"')
        record.nodes.append(entry)
        record.next_number += 1
        return entry

    def _certificates(self) -> None:
        record, pki = self.known, self.paths.pki
        authority = Authority(pki, f"navarch-{record.name}")
        authority.issue("apiserver", "kube-apiserver", hosts=components.apiserver_hosts(self.addresses))
        authority.issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", MASTERS)
        authority.signing_key("service-account")
        front = Authority(private_directory(pki / "front-proxy"), "front-proxy-ca")
        front.issue(components.FRONT_PROXY, components.FRONT_PROXY)
        inside = f"https://{self.addresses.host}:{record.port}"
        clients = {
            "admin": ("kubernetes-admin", MASTERS, self.server),
            "scheduler": ("system:kube-scheduler", (), self.server),
            "controllers": ("system:kube-controller-manager", (), self.server),
            "proxy": ("system:kube-proxy", (), inside),
        }
        for file, (user, groups, server) in clients.items():
            authority.issue(file, user, groups)
            path = self.paths.kubeconfig if file == "admin" else self.paths.component_kubeconfig(file)
            authority.kubeconfig(path, file, server, f"navarch-{record.name}", user)
        if self.hollow.roster.groups:
            authority.issue("hollow", components.HOLLOW_USER, (), (HOLLOW_HOST, "127.0.0.1"))
            path = self.paths.component_kubeconfig("hollow")
            authority.kubeconfig(path, "hollow", self.server, f"navarch-{record.name}", components.HOLLOW_USER)
        for entry in record.nodes:
            user = f"system:node:{entry.name}"
            authority.issue(entry.name, user, ("system:nodes",), (self.addresses.node(entry.number), entry.name))
            path = self.paths.component_kubeconfig(entry.name)
            authority.kubeconfig(path, entry.name, inside, f"navarch-{record.name}", user)

    def _start(self, specs: list[supervisor.Spec]) -> None:
        supervisor.request(self.paths, "start", specs=[asdict(s) for s in specs])

    def _power_on(self, entry: NodeRecord) -> None:
        self._boot(entry)
        self._start(self._node_components(entry))

    def _boot(self, entry: NodeRecord) -> None:
        init = ProcessId.load(entry.init)
        if init is None or not init.enterable():
            self._power_off(entry)
            entry.booted = time.time()
            memory = int(quantity.value(entry.memory))
            init = node.power_on(self.paths.id, entry.name, quantity.milli(entry.cpu) / 1000, memory)
            entry.init = init.dump()
            self.save()
            switch.plug(self.paths.id, self.addresses, entry.number, init)
            if entry.partitioned:
                switch.set_port(self.paths.id, entry.number, up=False)

    def _node_components(self, entry: NodeRecord) -> list[supervisor.Spec]:
        init = ProcessId.load(entry.init)
        assert init is not None, "the node was booted"
        return [make(self.paths, self.known, entry, init) for make in (components.agent, components.proxy)]

    def _power_off(self, entry: NodeRecord) -> None:
        node.power_off(self.paths.id, entry.name, ProcessId.load(entry.init))
        entry.init = None
        switch.unplug(self.paths.id, entry.number)

    # Waiting

    def call(self, method: str, path: str, body: Any = None, timeout: float = 5.0) -> tuple[int, bytes]:
        """One request as the lab's administrator: status and body. Raises OSError."""
        context = ssl.create_default_context(cafile=str(self.paths.pki / "ca.crt"))
        context.load_cert_chain(self.paths.pki / "admin.crt", self.paths.pki / "admin.key")
        connection = http.client.HTTPSConnection("127.0.0.1", self.known.port, timeout=timeout, context=context)
        try:
            data = None if body is None else orjson.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def wait_ready(self, timeout: float) -> None:
        """Waits until /readyz says so."""
        self.progress("waiting for the API server")
        self.wait_for(
            lambda: self.call("GET", "/readyz")[0] == 200, timeout, "the API server did not become ready", "apiserver"
        )

    def wait_nodes(self, names: list[str], timeout: float) -> None:
        """Waits until the nodes are Ready."""
        if not names:
            return
        self.progress(f"waiting for {len(names)} nodes")
        what = f"not all of the nodes {', '.join(names)} became Ready"
        self.wait_for(lambda: set(names) <= self.ready_nodes(), timeout, what, f"agent-{names[0]}")

    def ready_nodes(self) -> set[str]:
        """The nodes that are Ready, and have said so since they were switched on."""
        leases_path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        if len(self.hollow.roster):  # their Leases are too many to ask for
            lease_paths = [f"{leases_path}?fieldSelector=metadata.name%3D{entry.name}" for entry in self.known.nodes]
        else:
            lease_paths = [leases_path]
        answers = [self.call("GET", path) for path in ("/api/v1/nodes?labelSelector=type%21%3Dhollow", *lease_paths)]
        if any(status != 200 for status, _ in answers):
            return set()
        nodes, *found = (orjson.loads(body)["items"] for _, body in answers)
        leases = [lease for items in found for lease in items]
        renewed = {item["metadata"]["name"]: times.parse_time(item["spec"]["renewTime"]) for item in leases}
        booted = {entry.name: entry.booted for entry in self.known.nodes}
        return {
            name
            for name, status in ((item["metadata"]["name"], item.get("status", {})) for item in nodes)
            for condition in status.get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
            if renewed.get(name, 0.0) >= booted.get(name, 0.0)
        }

    def wait_for(self, condition: Callable[[], bool], timeout: float, failure: str, log: str) -> None:
        """Raises LabError with the end of component ``log``'s log. A request that fails is no answer."""
        end, delay = time.monotonic() + timeout, 0.01
        while True:
            try:
                if condition():
                    return
            except OSError:
                pass
            if time.monotonic() > end:
                raise LabError(f"{failure} within {timeout:.0f} s; see {self.paths.logs / log}.log\n{self._tail(log)}")
            time.sleep(delay)
            delay = min(0.1, delay * 1.3)

    def _tail(self, log: str) -> str:
        try:
            lines = (self.paths.logs / f"{log}.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        return "\n".join("    " + line for line in lines[-5:])

    # Down

    def down(self, purge: bool = False) -> bool:
        """Stops everything and removes every trace from the machine; data stays unless ``purge``.

        Works whatever was killed before. Returns False if nothing was running.
        """
        with self.locked():
            record = self.record
            was_running = self.running()
            if was_running:
                self.progress("components")
                with contextlib.suppress(LabError):
                    supervisor.request(self.paths, "shutdown", timeout=30)
            self._end_leftovers()
            if os.geteuid() == 0:
                if record is not None:
                    self.progress("nodes and network")
                    for entry in record.nodes:
                        node.power_off(self.paths.id, entry.name, ProcessId.load(entry.init))
                        entry.init = None
                    holds = holds_index(str(self.paths.root), record.index)
                    switch.destroy(self.paths.id, Addresses(record.index) if holds else None)
                cgroups.destroy(f"navarch/{self.paths.id}")
                cgroups.remove_if_empty("navarch")
            if record is not None:
                record.save(self.paths.config)
                self.hollow.went_down()
            shutil.rmtree(self.paths.run, ignore_errors=True)
            for leftover in self.paths.nodes.glob("*/pods") if self.paths.nodes.exists() else ():
                shutil.rmtree(leftover, ignore_errors=True)
            if purge:
                self.record = None
        if purge:
            release_index(str(self.paths.root))  # not before: certificates and stored services hold its addresses
            shutil.rmtree(self.paths.root, ignore_errors=True)
        return was_running

    def _end_leftovers(self) -> None:
        """Ends what a killed supervisor left behind, gently first (etcd and the store close their files)."""
        left = [p for p in self._recorded_processes() if p.alive()]
        own = supervisor.identity(self.paths)
        if own is not None:
            left.insert(0, own)
        for process in left:
            process.kill(15)
        for process in left:
            if not process.wait_gone(10):
                process.kill()
                process.wait_gone(5)

    def _recorded_processes(self) -> list[ProcessId]:
        try:
            entries = orjson.loads(self.paths.processes.read_bytes())
        except (FileNotFoundError, ValueError):
            return []
        return [p for p in (ProcessId.load(e["process"]) for e in entries) if p is not None]

    # Nodes

    def add_node(self, name: str = "", cpu: str = "", memory: str = "") -> str:
        """Adds a node and starts it; returns its name once it is Ready."""
        self._need_running()
        with self.locked():
            if os.geteuid() != 0:
                raise LabError("real nodes need root")
            if not switch.exists(self.paths.id):
                raise LabError(
                    "this lab was started without nodes, so its API server does not listen on the lab's network; "
                    f"start anew: navarch down --purge{self.lab_flag} and navarch up"
                )
            record = self.known
            model = record.nodes[0] if record.nodes else None
            default_cpu, default_memory = (model.cpu, model.memory) if model else ("1", "1Gi")
            entry = self._new_node(name, cpu or default_cpu, memory or default_memory)
            self._certificates()
            self.save()
            self._power_on(entry)
            self.save()
        self.wait_nodes([entry.name], 60)
        return entry.name

    def add_hollow(self, wanted: HollowNodes) -> tuple[str, str]:
        """Adds simulated nodes; the names of the first and the last, once all are Ready."""
        self._need_running()
        with self.locked():
            first, last = self.hollow.plan(wanted, bool(self.known.nodes) or switch.exists(self.paths.id))
            self._certificates()
        apply_addons(self)
        self.hollow.start()
        self.hollow.wait(60)
        return first, last

    def remove_node(self, name: str) -> None:
        """Power off for good: the lab forgets the node. Its Node object is the caller's to delete."""
        with self.locked():
            if name in self.hollow:
                return self.hollow.remove(name)
            entry = self.known.node(name)
            self._stop_components(entry)
            self._power_off(entry)
            self.known.nodes.remove(entry)
            self.save()
            shutil.rmtree(self.paths.nodes / name, ignore_errors=True)
            for file in (f"{name}.crt", f"{name}.key", f"{name}.kubeconfig"):
                (self.paths.pki / file).unlink(missing_ok=True)

    def stop_node(self, name: str) -> None:
        """Power loss."""
        self._need_running()
        with self.locked():
            if name in self.hollow:
                return self.hollow.stop(name)
            entry = self.known.node(name)
            node.power_off(self.paths.id, name, ProcessId.load(entry.init))  # first: nobody gets to say goodbye
            self._stop_components(entry)
            self._power_off(entry)
            entry.stopped = True
            self.save()

    def start_node(self, name: str, wait: float = 60) -> None:
        self._need_running()
        if name in self.hollow:
            return self._start_hollow(name, wait)
        with self.locked():
            entry = self.known.node(name)
            entry.stopped = False
            self._power_on(entry)
            self.save()
        if not entry.partitioned:
            self.wait_nodes([name], wait)

    def _start_hollow(self, name: str, wait: float) -> None:
        with self.locked():
            self.hollow.start_node(name)
        if name not in self.hollow.roster.cut:
            self.hollow.wait_node(name, wait)

    def partition_node(self, name: str, heal: bool = False) -> None:
        """Takes the node's switch port down (the node itself keeps running), or up again."""
        self._need_running()
        with self.locked():
            if name in self.hollow:
                return self.hollow.partition(name, heal)
            entry = self.known.node(name)
            if ProcessId.load(entry.init) is None:
                raise LabError(f"node {name} is off; start it with: navarch node start {name}{self.lab_flag}")
            switch.set_port(self.paths.id, entry.number, up=heal)
            entry.partitioned = not heal
            self.save()

    def _stop_components(self, entry: NodeRecord) -> None:
        if self.running():
            names = [f"agent/{entry.name}", f"proxy/{entry.name}"]
            supervisor.request(self.paths, "stop", names=names, timeout=10)

    def _need_running(self) -> None:
        self.known  # noqa: B018 - says which lab is missing
        if not self.running():
            raise LabError(f'lab "{self.paths.name}" is not up; start it with: navarch up{self.lab_flag}')


def component_log(paths: LabPaths, component: str) -> Path:
    return paths.logs / f"{component.replace('/', '-')}.log"
