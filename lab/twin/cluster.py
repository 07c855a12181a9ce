"""The twin itself: a simulation that begins with the objects of a snapshot, its pods running, at the time of the snapshot."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from apiserver.cache.encoded import encode
from apiserver.config import SETTINGS as APISERVER
from apiserver.config import Config as APIServerConfig
from apiserver.storage.memory import MemoryStore
from apiserver.storage.store import Put
from controllers.config import Config as ControllersConfig
from lab.experiments.state import condition
from lab.simulation.cluster import POD_RANGE, Simulation
from lab.twin.learning import Learned, workload_of
from lab.twin.snapshot import Snapshot, Tree
from navarch.api import wellknown
from navarch.api.types import core_v1
from navarch.api.volumes import NO_PROVISIONER
from nodeagent.hollow import objects
from nodeagent.hollow.fleet import Config as FleetConfig
from nodeagent.hollow.fleet import HollowFleet
from nodeagent.hollow.objects import NodeSpec
from scheduler.framework.config import SchedulerConfig

MODELLED = (
    "namespaces", "nodes", "pods", "services", "endpoints", "endpointslices", "configmaps", "serviceaccounts",
    "persistentvolumes", "persistentvolumeclaims", "podtemplates", "replicationcontrollers", "resourcequotas", "limitranges",
    "replicasets", "deployments", "statefulsets", "daemonsets", "controllerrevisions", "jobs", "cronjobs",
    "poddisruptionbudgets", "storageclasses", "csinodes", "csidrivers", "csistoragecapacities", "runtimeclasses",
    "priorityclasses", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
)  # fmt: skip
"""Resources whose objects the twin has: it has a controller for them, or its scheduler and admission read them."""
OWN = {
    "/registry/services/default/kubernetes", "/registry/endpoints/default/kubernetes",
    "/registry/endpointslices/default/kubernetes",
}  # fmt: skip
"""Objects that the twin's own API server makes."""
HARMLESS = {
    "leases", "events", "secrets", "apiservices", "clusterroles", "clusterrolebindings", "roles", "rolebindings",
    "flowschemas", "prioritylevelconfigurations", "certificatesigningrequests", "volumeattachments", "ingresses",
    "ingressclasses", "networkpolicies", "servicecidrs", "ipaddresses", "customresourcedefinitions",
    "volumeattributesclasses", "horizontalpodautoscalers", "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
}  # fmt: skip
"""Resources that change nothing about pods, or that :func:`unknown` tells of in words of their own."""
SCHEDULER = "default-scheduler"
LEASES = "agent.node-lease-duration-seconds"


@dataclass
class Settings:
    """Settings of the twin's components."""

    scheduler: SchedulerConfig | None = None
    values: dict[str, str] = field(default_factory=dict)  # component.name -> value
    assumed: bool = False  # nobody said what the cluster's settings are

    def of(self, component: str) -> list[str]:
        """``name=value`` of one component."""
        return [f"{k.partition('.')[2]}={v}" for k, v in self.values.items() if k.partition(".")[0] == component]

    def check(self) -> None:
        """Raises ValueError for a setting that no component of the twin has."""
        for name in self.values:
            if name.partition(".")[0] not in ("controllers", "apiserver") and name != LEASES:
                raise ValueError(f"{name}: the twin's settings are controllers.*, apiserver.* and {LEASES}")
        ControllersConfig().with_settings(self.of("controllers"))
        APISERVER.read_all(self.of("apiserver"))


class Twin(Simulation):
    """See the module. The pods behave as was ``learned`` of them; what is drawn follows from the seed."""

    def __init__(self, snapshot: Snapshot, learned: Learned, seed: int, settings: Settings | None = None) -> None:
        self.snapshot, self.learned = snapshot, learned
        settings = settings or Settings()
        low, high = _node_ports(snapshot)
        lease = int(settings.values.get(LEASES, FleetConfig.lease_duration))
        values: dict[str, Any] = {
            k.replace("-", "_"): v for k, v in APISERVER.read_all(settings.of("apiserver")).items()
        }
        own = APIServerConfig(
            store="memory",
            service_cluster_ip_range=service_range(snapshot),
            service_node_port_range=f"{low}-{high}",
        )
        # Far from the seeds that people take: new pods would get the uids of a simulation that was recorded with the same seed.
        super().__init__(
            int.from_bytes(hashlib.sha256(f"twin {seed}".encode()).digest()[:8], "big"),
            nodes=[node_spec(tree) for tree in snapshot.of("nodes")],
            start=snapshot.now,
            apiserver=replace(own, **values),
            controllers=ControllersConfig(
                cluster_cidr=POD_RANGE, controllers="*,-horizontal-pod-autoscaler-controller"
            ).with_settings(settings.of("controllers")),
            scheduler=replace(settings.scheduler) if settings.scheduler else None,
            fleet=FleetConfig(
                seed=str(seed), behaviour=learned.behaviour, lease_duration=lease, lease_period=lease / 4
            ),
            heartbeats=False,
            history=False,
        )

    async def prepare(self, store: MemoryStore) -> None:
        for key, tree in seeds(self.snapshot):
            await store.txn([], [Put(key, encode(tree))])

    def arrange(self, fleet: HollowFleet) -> None:
        for tree in self.snapshot.of("nodes"):
            name = tree["metadata"]["name"]
            fleet.add_images(name, self.learned.present.get(name, ()))
            if condition(tree, "Ready") != "True":
                fleet.power_off(name)

    async def settle(self) -> None:
        """Waits until the components know what there is."""

        def components_know() -> bool:
            rows = self.scheduler.table.rows if hasattr(self, "scheduler") else {}
            return self.fleet.synced and all(spec.name in rows for spec in self.nodes)

        await self.run_until(components_know, 120, "the twin's components know its nodes")
        await self.sleep(1.0)


def seeds(snapshot: Snapshot) -> Iterator[tuple[str, Tree]]:
    """The twin's first objects with their keys: owners before what they own, so that nothing looks orphaned."""
    modelled = {key: tree for key, tree in snapshot.objects.items() if _is_taken(key, tree)}
    uids = {tree["metadata"].get("uid") for tree in modelled.values()}
    order = {resource: n for n, resource in enumerate(MODELLED)}
    for key in sorted(modelled, key=lambda k: (order[k.split("/")[2]], k)):
        tree = dict(modelled[key])
        meta = dict(tree["metadata"])
        if owners := meta.get("ownerReferences"):
            meta["ownerReferences"] = [o for o in owners if o.get("uid") in uids]
        tree["metadata"] = meta
        if key.startswith("/registry/nodes/"):
            status = dict(tree.get("status") or {})
            spec = node_spec(tree)
            status["nodeInfo"] = {**(status.get("nodeInfo") or {}), "bootID": objects.boot_id(spec, spec.boot)}
            tree["status"] = status
        yield key, tree


def _is_taken(key: str, tree: Tree) -> bool:
    resource = key.split("/")[2]
    if resource not in MODELLED or key in OWN:
        return False
    if resource == "endpointslices" and key.startswith("/registry/endpointslices/default/kubernetes"):
        return False
    if resource == "validatingadmissionpolicies":
        return not tree["spec"].get("paramKind")
    return True


def node_spec(tree: Tree) -> NodeSpec:
    """A simulated node with the labels, taints and allocatable resources of a real one."""
    meta, spec, status = tree["metadata"], tree.get("spec") or {}, tree.get("status") or {}
    amounts = dict(status.get("allocatable") or status.get("capacity") or {})
    addresses = {a["type"]: a["address"] for a in status.get("addresses") or ()}
    taints = tuple(
        core_v1.Taint(key=t["key"], value=t.get("value"), effect=t["effect"])
        for t in spec.get("taints") or ()
        if not t["key"].startswith("node.kubernetes.io/")
    )
    return NodeSpec(
        meta["name"],
        cpu=str(amounts.pop("cpu", "0")),
        memory=str(amounts.pop("memory", "0")),
        pods=int(amounts.pop("pods", 110)),
        address=addresses.get("InternalIP", "10.0.0.1"),
        labels=dict(meta.get("labels") or {}),
        taints=taints,
        pod_cidr=spec.get("podCIDR") or "",
        resources={k: str(v) for k, v in amounts.items()},
    )


def service_range(snapshot: Snapshot) -> str:
    """The smallest range, of at least a /16, that holds all service addresses."""
    texts = [s["spec"].get("clusterIP") or "" for s in snapshot.of("services")]
    matches = [ipaddress.IPv4Address(t) for t in texts if t and t != "None" and ":" not in t]
    if not matches:
        return "10.96.0.0/16"
    for prefix in range(16, 7, -1):
        network = ipaddress.IPv4Network((min(matches), prefix), strict=False)
        if max(matches) in network:
            return str(network)
    raise ValueError(f"service addresses {min(matches)} to {max(matches)} are in no common range")


def _node_ports(snapshot: Snapshot) -> tuple[int, int]:
    ports = [p["nodePort"] for s in snapshot.of("services") for p in s["spec"].get("ports") or () if p.get("nodePort")]
    return min([30000, *ports]), max([32767, *ports])


def unknown(snapshot: Snapshot) -> list[str]:
    """Lists what the twin cannot know of this cluster, a line each."""
    out = [f"not listed: {what}" for what in snapshot.missing]
    strange: dict[str, int] = {}
    for key in snapshot.objects:
        resource = key.split("/")[2]
        if resource not in MODELLED and resource not in HARMLESS:
            name = ".".join(reversed(key.split("/")[2:4])) if "." in resource else resource
            strange[name] = strange.get(name, 0) + 1
    if strange:
        listed = ", ".join(f"{name} ({n})" for name, n in sorted(strange.items()))
        out.append(f"kinds without a controller in the twin: {listed}")
    for resource in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations"):
        if matches := [w["metadata"]["name"] for w in snapshot.of(resource)]:
            out.append(f"webhooks are not asked: {', '.join(matches)}")
    for policy in snapshot.of("validatingadmissionpolicies"):
        if policy["spec"].get("paramKind"):
            out.append(f"admission policy {policy['metadata']['name']} is left out: it has parameters")
    if matches := [h["metadata"]["name"] for h in snapshot.of("horizontalpodautoscalers")]:
        out.append(f"load is not known, so autoscalers keep the sizes of now: {', '.join(matches)}")
    pods = snapshot.of("pods")
    uids = {t["metadata"].get("uid") for k, t in snapshot.objects.items() if _is_taken(k, t)}
    lost: dict[str, int] = {}
    for pod in pods:
        owner = next((o for o in pod["metadata"].get("ownerReferences") or () if o.get("controller")), None)
        if owner is not None and owner["uid"] not in uids and owner["kind"] != "Node":
            lost[f"{owner['kind']} {owner['name']}"] = lost.get(f"{owner['kind']} {owner['name']}", 0) + 1
    for name, count in lost.items():
        out.append(f"{name} owns {count} pods and is not simulated: nobody makes new ones for it")
    if others := sorted({p["spec"].get("schedulerName", SCHEDULER) for p in pods} - {SCHEDULER}):
        out.append(f"pods of other schedulers are not scheduled: {', '.join(others)}")
    drivers = sorted({c.get("provisioner", "") for c in snapshot.of("storageclasses")} - {NO_PROVISIONER})
    if drivers:
        out.append(f"new claims stay Pending, for their drivers are not simulated: {', '.join(drivers)}")
    endless = sorted({workload_of(p) for p in pods if _may_end(p) and p.get("status", {}).get("phase") == "Running"})
    ended = {workload_of(p) for p in pods if p.get("status", {}).get("phase") == "Succeeded"}
    if never := [w for w in endless if w not in ended]:
        out.append(f"nothing of these has been seen to end, so they run on: {', '.join(never[:10])}")
    return out


def _may_end(pod: Tree) -> bool:
    return str(pod["spec"].get("restartPolicy", "Always")) != "Always"


def is_daemon(pod: Tree) -> bool:
    owners: list[dict[str, Any]] = pod["metadata"].get("ownerReferences") or []
    static = wellknown.MIRROR_POD in (pod["metadata"].get("annotations") or {})
    return static or any(o.get("kind") == "DaemonSet" for o in owners)
