"""A real lab: brings it up, takes it down, and changes its nodes. What `navarch up`, `down` and `node` do.

Everything here is synchronous and runs in the caller's process; the long-lived part is the supervisor. Every step can
be repeated: `up` after `up`, after `down`, after a crash or a reboot ends in the same place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import Any

from lab import cgroups, components, nodenamespaces, supervisor, switch
from lab.addons import apply_addons
from lab.addresses import FIRST_INDEX, Addresses, claim_index, holds_index, release_index
from lab.apiclient import Api
from lab.certificates import Authority
from lab.health import Health
from lab.hollow import Fleet, HollowNodes
from lab.lab import Lab
from lab.namespaces import ProcessId
from lab.nodes import Nodes
from lab.paths import LabError, LabPaths, LabRecord, private_directory
from lab.ports import FIRST_PORT, RANGE, take_port
from lab.progress import Progress
from nodeagent.hollow.roster import HOST as HOLLOW_HOST

MASTERS = ("system:masters",)


class Cluster(Lab):
    """What is done with a lab. ``certificates`` of all components are written anew whenever it is called."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        super().__init__(name, progress)
        self.health = Health(self)
        self.api = Api(self, self.health)
        self.hollow = Fleet(self, self.api)
        self.nodes = Nodes(self, self.api, self.hollow, self.certificates)

    def status(self) -> dict[str, Any]:
        """The lab as `navarch status -o json` prints it."""
        record = self.known
        store: dict[str, Any] = {"kind": record.store}
        if record.store == "etcd":
            store["endpoint"] = f"unix:{self.paths.etcd / components.ETCD_SOCKET}"
        else:
            store["path"] = str(self.paths.database)
        return {
            "lab": record.name,
            "running": self.running(),
            "kubeconfig": str(self.paths.kubeconfig),
            "server": self.server,
            "store": store,
            "nodes": [self.nodes.status(n) for n in record.nodes],
            "hollow": self.hollow.status(),
            "processes": self.health.listed(),
            "logs": str(self.paths.logs),
            "settings": record.settings,
        }

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
                self.nodes.plan(wanted, node_cpu, node_memory)
            with_nodes = bool(record.nodes) or switch.exists(self.paths.id)
            if with_nodes and os.geteuid() != 0:
                raise LabError("real nodes need root; without it use: navarch up --nodes 0")
            self._plan_hollow(hollow, with_nodes)
            self.health.revive()
            sockets = self._take_port()
            self.certificates()
            self.save()
            root = os.geteuid() == 0
            if root:
                cgroups.make(components.control_group(self.paths.id))
            if with_nodes:
                self.progress("network")
                switch.create(self.paths.id, self.addresses)
            if not self.running():
                self.progress("control plane")
                supervisor.spawn(self.paths, components.control_group(self.paths.id), sockets)
            self.health.note()
            specs = [components.etcd(self.paths)] if record.store == "etcd" else []
            specs.append(components.apiserver(self.paths, record, with_nodes))
            self.start(specs)
            on = [entry for entry in record.nodes if not entry.stopped]
            for entry in on:
                self.progress(f"node {entry.name}")
                self.nodes.boot(entry)
            self.save()
            self.progress("components")
            specs = [components.controllers(self.paths, record), components.scheduler(self.paths, record)]
            self.start([*specs, *(spec for entry in on for spec in self.nodes.components(entry))])
        self.api.wait_ready(wait)
        apply_addons(self.addresses, self.api, bool(self.hollow.roster.groups))
        self.hollow.start()
        self.nodes.wait([n.name for n in self.known.nodes if not n.stopped and not n.partitioned], wait)
        self.hollow.wait(wait)
        self.health.wait(wait)

    def _take_port(self) -> list[socket.socket]:
        """Sockets on the API server's port; on another port than before if somebody else has that one now."""
        record = self.known
        served = any(e["spec"]["name"] == "apiserver" and p.alive() for e, p in self.health.recorded())
        if self.running() or served:
            return []  # it is ours
        taken = record.port
        record.port, sockets = take_port(components.listen_addresses(record, False), taken)
        return sockets

    def _prepare(self, nodes: int | None, store: str | None, failover: str | None, settings: dict[str, str]) -> None:
        self.paths.make()
        if self.record is None:
            chosen = store or ("etcd" if shutil.which("etcd") else "sqlite")
            index = claim_index(str(self.paths.root))
            self.record = LabRecord(self.paths.name, index, FIRST_PORT + (index - FIRST_INDEX) * RANGE, chosen)
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

    def certificates(self) -> None:
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
                        nodenamespaces.power_off(self.paths.id, entry.name, ProcessId.load(entry.init))
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
        left = [p for _, p in self.health.recorded() if p.alive()]
        own = supervisor.identity(self.paths)
        if own is not None:
            left.insert(0, own)
        for process in left:
            process.kill(15)
        for process in left:
            if not process.wait_gone(10):
                process.kill()
                process.wait_gone(5)

    # Nodes

    def add_node(self, name: str = "", cpu: str = "", memory: str = "") -> str:
        """Adds a node and starts it; returns its name once it is Ready."""
        self._need_running()
        with self.locked():
            entry = self.nodes.add(name, cpu, memory)
        self.nodes.wait([entry.name], 60)
        return entry.name

    def add_hollow(self, wanted: HollowNodes) -> tuple[str, str]:
        """Adds simulated nodes; the names of the first and the last, once all are Ready."""
        self._need_running()
        with self.locked():
            first, last = self.hollow.plan(wanted, bool(self.known.nodes) or switch.exists(self.paths.id))
            self.certificates()
        apply_addons(self.addresses, self.api, bool(self.hollow.roster.groups))
        self.hollow.start()
        self.hollow.wait(60)
        return first, last

    def remove_node(self, name: str) -> None:
        """Power off for good: the lab forgets the node. Its Node object is the caller's to delete."""
        with self.locked():
            (self.hollow if name in self.hollow else self.nodes).remove(name)

    def stop_node(self, name: str) -> None:
        """Power loss."""
        self._need_running()
        with self.locked():
            (self.hollow if name in self.hollow else self.nodes).stop(name)

    def start_node(self, name: str, wait: float = 60) -> None:
        """Returns once it is Ready; at once if it is partitioned, for then it can't say so."""
        self._need_running()
        with self.locked():
            if name in self.hollow:
                self.hollow.start_node(name)
            else:
                entry = self.nodes.start(name)
        if name not in self.hollow:
            if not entry.partitioned:
                self.nodes.wait([name], wait)
        elif name not in self.hollow.roster.cut:
            self.hollow.wait_node(name, wait)

    def partition_node(self, name: str, heal: bool = False) -> None:
        """Cuts a node off that keeps running, or connects it again."""
        self._need_running()
        with self.locked():
            (self.hollow if name in self.hollow else self.nodes).partition(name, heal)

    def _need_running(self) -> None:
        self.known  # noqa: B018 - says which lab is missing
        if not self.running():
            raise LabError(f'lab "{self.paths.name}" is not up; start it with: navarch up{self.lab_flag}')


def component_log(paths: LabPaths, component: str) -> Path:
    return paths.logs / f"{component.replace('/', '-')}.log"
