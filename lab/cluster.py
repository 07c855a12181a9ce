"""A real lab: brings it up, takes it down, and changes its nodes. What `navarch up`, `down` and `node` do.

Everything here is synchronous and runs in the caller's process; the long-lived part is the supervisor. Every step can
be repeated: `up` after `up`, after `down`, after a crash or a reboot ends in the same place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from lab import cgroups, components, networknamespace, nodenamespaces, supervisor
from lab.addons import apply_addons
from lab.addresses import Addresses, holds_index, release_index
from lab.apiclient import Api
from lab.health import Health
from lab.hollow import Fleet, HollowNodes
from lab.identities import issue_all
from lab.lab import Lab
from lab.namespaces import ProcessId
from lab.nodes import Nodes
from lab.paths import MIN_ROOM, LabError, LabPaths, free_bytes
from lab.progress import Progress


class Cluster(Lab):
    """The operations on a lab. ``certificates`` of all components are written anew whenever it is called."""

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        super().__init__(name, progress)
        self.health = Health(self)
        self.api = Api(self, self.health)
        self.hollow = Fleet(self, self.api)
        self.nodes = Nodes(self, self.api, self.hollow, self.certificates)

    def status(self) -> dict[str, Any]:
        """The lab as `navarch status -o json` prints it."""
        record = self.required_record
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
            "registry": record.registry,
            "egress": record.way_out,
            "disk": f"full: {free >> 20} MiB are left" if (free := free_bytes(self.paths.root)) < MIN_ROOM else "",
        }

    def certificates(self) -> None:
        """Makes the certificates and kubeconfigs that are missing, or do not name all of the lab's addresses."""
        issue_all(self.paths, self.required_record, bool(self.hollow.roster.groups))

    # Down

    def down(self, purge: bool = False) -> bool:
        """Stops everything and removes every trace from the machine; data stays unless ``purge``.

        Works whatever was killed before. Returns False if nothing was running.
        """
        if not self.paths.root.exists():
            return False
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
                    networknamespace.destroy(self.paths.id, Addresses(record.index) if holds else None)
                cgroups.destroy(f"navarch/{self.paths.id}")
                cgroups.remove_if_empty("navarch")
            shutil.rmtree(self.paths.run, ignore_errors=True)
            for leftover in self.paths.nodes.glob("*/pods") if self.paths.nodes.exists() else ():
                shutil.rmtree(leftover, ignore_errors=True)
            if record is not None and not purge:
                with contextlib.suppress(OSError):  # a disk that is full: the next `up` sees by itself what does not run
                    record.save(self.paths.config)
                    self.hollow.went_down()
            if purge:
                self.record = None
        if purge:
            release_index(str(self.paths.root))  # not before: certificates and stored services hold its addresses
            shutil.rmtree(self.paths.root, ignore_errors=True)
        return was_running

    def _end_leftovers(self) -> None:
        """Ends what a killed supervisor left behind, gently first (etcd and the store close their files)."""
        leftovers = [p for _, p in self.health.recorded() if p.alive()]
        own = supervisor.identity(self.paths)
        if own is not None:
            leftovers.insert(0, own)
        for process in leftovers:
            process.kill(15)
        for process in leftovers:
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

    def add_hollow(self, new_nodes: HollowNodes) -> tuple[str, str]:
        """Adds simulated nodes; the names of the first and the last, once all are Ready."""
        self._need_running()
        with self.locked():
            real = bool(self.required_record.nodes) or networknamespace.exists(self.paths.id)
            first, last = self.hollow.plan(new_nodes, real)
            self.certificates()
        apply_addons(self.addresses, self.api, bool(self.hollow.roster.groups), self.required_record)
        self.hollow.start()
        self.hollow.wait(60)
        return first, last

    def remove_node(self, name: str) -> None:
        """Power off for good: the lab forgets the node. Its Node object is the caller's to delete."""
        with self.locked():
            (self.hollow if name in self.hollow else self.nodes).remove(name)

    def stop_node(self, name: str, graceful: bool = False, timeout: float = 600) -> None:
        """Power loss; if ``graceful``, after the node's agent has ended its pods, within ``timeout`` seconds."""
        self._need_running()
        if graceful and name in self.hollow:
            raise LabError(f"{name} is simulated: it has no graceful shutdown; cut its power: navarch node stop {name}")
        with self.locked():
            if graceful:
                self.nodes.shut_down(name, timeout)
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
        self.required_record  # noqa: B018 - says which lab is missing
        if not self.running():
            raise LabError(f'lab "{self.paths.name}" is not up; start it with: navarch up{self.lab_flag}')


def component_log(paths: LabPaths, component: str) -> Path:
    return paths.logs / f"{component.replace('/', '-')}.log"
