"""Implements `navarch up`: brings a lab, or what of it does not run, to life, or says why it cannot.

Every step can be repeated: `up` after `up`, after `down`, after a crash or a reboot ends in the same place. What people
asked for is checked before anything is changed; settings that a component refuses only when it starts are taken back.
"""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import (
    cgroups,
    components,
    containerd,
    custommetrics,
    gatewayapi,
    networknamespace,
    supervisor,
    verticalautoscaler,
    wayout,
)
from lab import settings as labsettings
from lab.addons import apply_addons, remove_ingress
from lab.addresses import FIRST_INDEX, claim_index
from lab.cluster import Cluster
from lab.health import ComponentRefused
from lab.hollow import HollowNodes
from lab.paths import LabError, LabRecord, write_private
from lab.ports import FIRST_ADAPTER_PORT, FIRST_PORT, FIRST_REGISTRY_PORT, FIRST_VPA_PORT, RANGE, free_port, take_port
from lab.reach import certificate_names, local_addresses
from navarch import egress


@dataclass
class Wishes:
    """A person's wishes on the command line. None means: as the lab is, or as usual for a new one."""

    nodes: int | None = None
    store: str | None = None
    node_cpu: str = ""
    node_memory: str = ""
    listed: list[dict[str, Any]] = field(default_factory=list)
    """Instead of so many alike, the nodes of a new lab one by one: name, cpu, memory, and other fields of NodeRecord."""
    failover: str | None = None
    settings: dict[str, str] = field(default_factory=dict)
    unset: list[str] = field(default_factory=list)
    hollow: HollowNodes | None = None
    listen: list[str] | None = None  # addresses beside the lab's own; [] is none
    ingress: bool | None = None  # an ingress controller on the real nodes
    gateway: bool | None = None  # the Gateway API: its kinds, and a controller on the real nodes
    custom_metrics: bool | None = None  # an adapter for custom and external metrics
    vpa: bool | None = None  # the VerticalPodAutoscaler: its kinds, and who serves them
    names: list[str] | None = None  # further names in the API server's certificate
    egress: bool | None = None  # whether nodes and pods reach what the machine reaches
    registry: bool | None = None  # whether the lab has an image registry
    runtime: str | None = None  # what runs containers on real nodes


def bring_up(cluster: Cluster, wishes: Wishes | None = None, wait: float = 60.0) -> None:
    """Starts the lab; returns once the API is ready, the nodes are Ready and all components answer.

    ``wait`` is in seconds, for each of these. Raises LabError.
    """
    Start(cluster, wishes or Wishes(), wait).run()


class Start:
    def __init__(self, cluster: Cluster, wishes: Wishes, wait: float) -> None:
        self.cluster, self.wishes, self.wait = cluster, wishes, wait
        self.paths, self.progress = cluster.paths, cluster.progress
        self.before: dict[str, str] = {}

    def run(self) -> None:
        self.settings(self.cluster.record)  # refused before there is anything to undo
        if self.wishes.listen:
            local_addresses(self.wishes.listen)
        try:
            with self.cluster.locked():
                self.start()
            self.cluster.api.wait_ready(self.wait)
            self.addons()
            self.cluster.hollow.start()
            nodes = [n.name for n in self.cluster.required_record.nodes if not n.stopped and not n.partitioned]
            self.cluster.nodes.wait(nodes, self.wait)
            self.cluster.hollow.wait(self.wait)
            self.cluster.health.wait(self.wait)
        except ComponentRefused as error:
            if not self.undo():
                raise
            raise LabError(f"{error}\nthe settings are again what they were before") from error

    def addons(self) -> None:
        cluster = self.cluster
        if self.wishes.ingress is False:
            remove_ingress(cluster.api)
        if self.wishes.gateway is False:
            gatewayapi.remove(cluster.api)
        if self.wishes.custom_metrics is False:
            custommetrics.remove(cluster.api)
        if self.wishes.vpa is False:
            verticalautoscaler.remove(cluster.api)
        apply_addons(cluster.addresses, cluster.api, bool(cluster.hollow.roster.groups), cluster.required_record)

    def settings(self, record: LabRecord | None) -> dict[str, str]:
        """The lab's settings as they shall be. Raises LabError."""
        labsettings.checked(self.wishes.settings)
        old_settings = labsettings.without(record.settings if record else {}, self.wishes.unset)
        return labsettings.checked(old_settings | self.wishes.settings)

    def undo(self) -> bool:
        """Takes the settings back that this `up` brought, if it brought any, and starts the control plane with the old."""
        with self.cluster.locked():
            record = self.cluster.required_record
            if record.settings == self.before:
                return False
            record.settings = self.before
            self.cluster.save()
            self.start_components()
        return True

    def start(self) -> None:
        """Everything that needs the lab's lock."""
        cluster = self.cluster
        fresh = cluster.record is None
        renamed = self.prepare()
        record = cluster.required_record
        nodes = (3 if fresh else 0) if self.wishes.nodes is None else self.wishes.nodes
        if not record.nodes and record.next_number == 1:
            if self.wishes.listed:
                for node in self.wishes.listed:
                    cluster.nodes.new(**node)
            else:
                cluster.nodes.plan(nodes, self.wishes.node_cpu, self.wishes.node_memory)
        if self.with_nodes and os.geteuid() != 0:
            raise LabError("real nodes need root; without it use: navarch up --nodes 0")
        self.plan_hollow()
        self.take_registry_port()
        wish = self.wishes
        record.custom_metrics = self.own_port(
            "custom-metrics", record.custom_metrics, wish.custom_metrics, FIRST_ADAPTER_PORT
        )
        record.vpa = self.own_port("vpa", record.vpa, wish.vpa, FIRST_VPA_PORT)
        cluster.health.revive()
        sockets = self.take_port()
        cluster.certificates()
        cluster.save()
        if os.geteuid() == 0:
            cgroups.make(components.control_group(self.paths.id))
        if self.with_nodes:
            self.progress("network")
            networknamespace.create(self.paths.id, cluster.addresses)
            self.way_out()
        if not cluster.running():
            self.progress("control plane")
            supervisor.spawn(self.paths, components.control_group(self.paths.id), sockets)
        elif renamed:
            supervisor.request(self.paths, "stop", names=["apiserver"])  # it reads its certificate when it starts
        cluster.health.note()
        if not record.registry and cluster.running():
            supervisor.request(self.paths, "stop", names=["registry"])
        self.start_components()

    def way_out(self) -> None:
        """Opens or closes the lab's way out, as far as it is the machine's; the nodes' routes follow when they boot."""
        record, addresses = self.cluster.required_record, self.cluster.addresses
        if not record.way_out:
            wayout.close(addresses)
            return
        wayout.open_(addresses)
        try:
            machine = Path("/etc/resolv.conf").read_text()
        except OSError:
            machine = ""
        self.paths.resolv_conf.write_text(wayout.resolv_conf(machine, addresses))

    def take_registry_port(self) -> None:
        """A port for the lab's registry: images have it in their names, so it stays."""
        record, wish = self.cluster.required_record, self.wishes.registry
        if wish is False:
            record.registry = 0
        elif wish and not record.registry:
            if shutil.which("docker-registry") is None:
                raise LabError("docker-registry is not installed: run deploy/setup, or leave out --registry")
            first = FIRST_REGISTRY_PORT + record.index - FIRST_INDEX
            record.registry = free_port("127.0.0.1", first, first + RANGE * RANGE)

    def own_port(self, component: str, before: int, wish: bool | None, first: int) -> int:
        """The loopback port of a component beside the API server; another one than before if somebody else has that now. 0 if
        nobody wants the component (any more); it is stopped then."""
        running = self.cluster.running()
        if wish is False and before and running:
            supervisor.request(self.paths, "stop", names=[component], timeout=10)
        if wish is False or not (wish or before):
            return 0
        if before and any(e["spec"]["name"] == component and p.alive() for e, p in self.cluster.health.recorded()):
            return before
        start = before or first + self.cluster.required_record.index - FIRST_INDEX
        return free_port("127.0.0.1", start, start + RANGE * RANGE)

    @property
    def with_nodes(self) -> bool:
        return bool(self.cluster.required_record.nodes) or networknamespace.exists(self.paths.id)

    def start_components(self) -> None:
        cluster, record = self.cluster, self.cluster.required_record
        specs = [components.etcd(self.paths)] if record.store == "etcd" else []
        cluster.start([*specs, components.apiserver(self.paths, record, self.with_nodes)])
        on = [entry for entry in record.nodes if not entry.stopped]
        for entry in on:
            self.progress(f"node {entry.name}")
            cluster.nodes.boot(entry)
        cluster.save()
        self.progress("components")
        specs = [components.controllers(self.paths, record, self.with_nodes), components.scheduler(self.paths, record)]
        write_private(self.paths.registries, components.registries_conf(record))
        if record.registry:
            specs.append(components.registry(self.paths, record))
        if record.custom_metrics:
            specs.append(components.custom_metrics(self.paths, record))
        if record.vpa:
            specs.append(components.vertical_autoscaler(self.paths, record))
        if self.with_nodes:
            specs.append(components.gateway(self.paths, record, cluster.lab_flag))
        cluster.start([*specs, *(spec for entry in on for spec in cluster.nodes.components(entry))])

    def prepare(self) -> bool:
        """Brings the lab's record up to date; whether the API server has other names than before."""
        cluster, wishes = self.cluster, self.wishes
        if cluster.record is None:
            self.paths.make()
            chosen = wishes.store or ("etcd" if shutil.which("etcd") else "sqlite")
            index = claim_index(str(self.paths.root))
            cluster.record = LabRecord(self.paths.name, index, FIRST_PORT + (index - FIRST_INDEX) * RANGE, chosen)
        record = cluster.record
        if wishes.store is not None and wishes.store != record.store:
            raise LabError(
                f'lab "{record.name}" keeps its data in {record.store}; '
                f"to start anew with {wishes.store}: navarch down --purge{cluster.lab_flag}"
            )
        if wishes.nodes is not None and record.next_number > 1 and wishes.nodes != len(record.nodes):
            raise LabError(
                f'lab "{record.name}" has {len(record.nodes)} nodes; '
                f"use navarch node add or remove, or start anew: navarch down --purge{cluster.lab_flag}"
            )
        self.paths.make()
        claim_index(str(self.paths.root), record.index)
        if wishes.failover is not None:
            record.failover = wishes.failover
        if wishes.egress is not None:
            record.egress = wishes.egress
        record.way_out = record.egress and egress.machine_allows()
        record.ingress = self.choose_proxy("ingress", record.ingress, self.wishes.ingress, record)
        record.gateway = self.choose_proxy("gateways", record.gateway, self.wishes.gateway, record)
        self.choose_runtime(record)
        self.before = record.settings
        record.settings = self.settings(record)
        was = set(components.apiserver_hosts(record))
        if wishes.listen is not None:
            record.listen = wishes.listen
            record.names = certificate_names(wishes.listen)
        if wishes.names:
            record.names = [*record.names, *(n for n in wishes.names if n not in record.names)]
        return set(components.apiserver_hosts(record)) != was

    def choose_proxy(self, component: str, before: bool, wish: bool | None, record: LabRecord) -> bool:
        """Whether nodes have this component, which drives nginx; one that nobody wants any more is stopped."""
        if wish is None:
            return before
        if wish and shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            raise LabError("Ingresses and Gateways need nginx: run deploy/setup, or apt-get install nginx-light")
        if before and not wish and self.cluster.running():
            names = [f"{component}/{entry.name}" for entry in record.nodes]
            supervisor.request(self.paths, "stop", names=names, timeout=10)
        return wish

    def choose_runtime(self, record: LabRecord) -> None:
        if self.wishes.runtime is not None and self.wishes.runtime != record.runtime:
            if record.next_number > 1:
                raise LabError(
                    f'the nodes of lab "{record.name}" run {record.runtime}; to start anew with {self.wishes.runtime}: '
                    f"navarch down --purge{self.cluster.lab_flag}"
                )
            record.runtime = self.wishes.runtime
        containerd.check(record.runtime)

    def plan_hollow(self) -> None:
        hollow, wishes = self.cluster.hollow, self.wishes.hollow
        count = len(hollow.roster)
        if wishes is None or wishes.count == count:
            return
        if count:
            raise LabError(
                f'lab "{self.cluster.required_record.name}" has {count} hollow nodes; '
                f"use navarch node add --hollow or navarch node remove{self.cluster.lab_flag}"
            )
        hollow.plan(wishes, self.with_nodes)

    def take_port(self) -> list[socket.socket]:
        """Sockets on the API server's port; on another port than before if somebody else has that one now."""
        record = self.cluster.required_record
        served = any(e["spec"]["name"] == "apiserver" and p.alive() for e, p in self.cluster.health.recorded())
        if self.cluster.running() or served:
            return []  # it is ours
        old_port = record.port
        record.port, sockets = take_port(components.listen_addresses(record, False), old_port)
        return sockets
