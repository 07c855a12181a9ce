"""Lab verbs: up, down, status, node, kubeconfig. They import the room ``lab`` when they run, not before."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cli.common import LabOption, Progress, fail, reported
from cli.options import App, Argument, Option
from cli.output.columns import table

app = App()
node = App(help="Add, remove, stop, start, partition and heal nodes of a lab.")

NodeName = Annotated[str, Argument("NAME")]


NODES_HELP = "How many nodes a new lab gets; 0 is the control plane alone."
STORE_HELP = "etcd or sqlite; default: etcd if it is installed."
FAILOVER_HELP = "fast: pods of a dead node are replaced in seconds; default: as Kubernetes, minutes."
SET_HELP = "A component's flag, such as controllers.node-monitor-grace-period=20s."
UNSET_HELP = "Take back what --set said, such as scheduler.plugin. May be repeated."
LISTEN_HELP = "Let the API server also listen here, for other machines: an address of this one, 0.0.0.0; 127.0.0.1: no more."
NAME_HELP = "One more name or address in the API server's certificate. May be repeated."
SERVER_HELP = "Print a kubeconfig for other machines, where the API server is this (see: up --listen)."
HOLLOW_HELP = "How many simulated nodes a new lab gets: real API objects, pods that only seem to run; no root needed."
TAINT_HELP = "Keep away pods that do not tolerate simulated nodes; default: if the lab has real nodes, too."
HollowCPU = Annotated[str, Option(help="CPU of each simulated node.")]
HollowMemory = Annotated[str, Option(help="Memory of each simulated node.")]
HollowPods = Annotated[int, Option(help="Pods that each simulated node takes.", min=1)]
HollowZones = Annotated[int, Option(help="Spread them over so many zones.", min=0)]
HollowLabels = Annotated[str, Option(metavar="KEY=VALUE,...", help="Labels of the simulated nodes.")]
HollowTaint = Annotated[bool | None, Option("--hollow-taint/--no-hollow-taint", help=TAINT_HELP)]
EGRESS_HELP = "on: nodes and pods reach what this machine reaches; NAVARCH_EGRESS=off forbids it for the whole machine."
REGISTRY_HELP = "Start an image registry for the lab, at a port of localhost that images can have in their names."
PLUGIN_HELP = "A scheduler plugin of yours: policy.py:Class, module:Class, or an entry point's name. May be repeated."
INGRESS_HELP = "Serve Ingresses: nginx on each real node, behind a load balancer's address; class navarch. Stored with the lab."
GATEWAY_HELP = "Serve the Gateway API: its CRDs, class navarch, and nginx on each real node. Stored with the lab."
CUSTOM_METRICS_HELP = "Serve custom and external metrics from the Prometheus text of pods. Stored with the lab."
VPA_HELP = "Serve VerticalPodAutoscalers: their CRDs, recommendations, and changes of pods. Stored with the lab."
RUNTIME_HELP = "What runs containers on a new lab's real nodes; default: oci (crun, no daemon)."
CPU_HELP = "CPU of each node, such as 500m; default: a share of the machine."


@app.command()
def up(
    lab: LabOption = "default",
    nodes: Annotated[int | None, Option(help=NODES_HELP, show_default="3", min=0)] = None,
    store: Annotated[str | None, Option(help=STORE_HELP)] = None,
    node_cpu: Annotated[str, Option(help=CPU_HELP)] = "",
    node_memory: Annotated[str, Option(help="Memory of each node, such as 2Gi.")] = "",
    hollow: Annotated[int | None, Option(help=HOLLOW_HELP, show_default="0", min=0)] = None,
    hollow_cpu: HollowCPU = "4",
    hollow_memory: HollowMemory = "16Gi",
    hollow_pods: HollowPods = 110,
    hollow_zones: HollowZones = 0,
    hollow_labels: HollowLabels = "",
    hollow_taint: HollowTaint = None,
    failover: Annotated[str | None, Option(help=FAILOVER_HELP)] = None,
    set_: Annotated[list[str] | None, Option("--set", metavar="COMPONENT.FLAG=VALUE", help=SET_HELP)] = None,
    unset: Annotated[list[str] | None, Option("--unset", metavar="COMPONENT.FLAG", help=UNSET_HELP)] = None,
    listen: Annotated[list[str] | None, Option("--listen", metavar="ADDRESS", help=LISTEN_HELP)] = None,
    name: Annotated[list[str] | None, Option("--name", metavar="NAME", help=NAME_HELP)] = None,
    ingress: Annotated[bool | None, Option("--ingress/--no-ingress", help=INGRESS_HELP)] = None,
    gateway: Annotated[bool | None, Option("--gateway/--no-gateway", help=GATEWAY_HELP)] = None,
    custom_metrics: Annotated[bool | None, Option("--custom-metrics/--no-custom-metrics", help=CUSTOM_METRICS_HELP)] = None,
    vpa: Annotated[bool | None, Option("--vpa/--no-vpa", help=VPA_HELP)] = None,
    plugin: Annotated[list[str] | None, Option("--plugin", metavar="MODULE:CLASS", help=PLUGIN_HELP)] = None,
    egress: Annotated[str | None, Option("--egress", metavar="on|off", help=EGRESS_HELP, show_default="on")] = None,
    registry: Annotated[bool | None, Option("--registry/--no-registry", help=REGISTRY_HELP)] = None,
    runtime: Annotated[str | None, Option("--runtime", metavar="oci|containerd", help=RUNTIME_HELP)] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Start a lab, or what of it does not run."""
    from lab.cluster import Cluster
    from lab.starting import Wishes, bring_up
    from nodeagent.hollow.roster import TAINT

    if store not in (None, "etcd", "sqlite"):
        fail(f'--store {store}: use "etcd" or "sqlite"')
    if failover not in (None, "fast", "default"):
        fail(f'--failover {failover}: use "fast" or "default"')
    if egress not in (None, "on", "off"):
        fail(f'--egress {egress}: use "on" or "off"')
    settings = {}
    for pair in set_ or ():
        key, equals, value = pair.partition("=")
        if not equals:
            fail(f"--set {pair}: say COMPONENT.FLAG=VALUE")
        settings[key] = value
    if plugin:
        settings["scheduler.plugin"] = ",".join(_plugin(text) for text in plugin)
    simulated = None
    if hollow is not None:
        simulated = _hollow(hollow, hollow_cpu, hollow_memory, hollow_pods, hollow_zones, hollow_labels, hollow_taint)
    progress = Progress(quiet)
    with reported(progress):
        cluster = Cluster(lab, progress)
        wishes = Wishes(nodes, store, node_cpu, node_memory, settings=settings, unset=unset or [], hollow=simulated)
        wishes.failover = None if failover is None else failover.replace("default", "")
        wishes.names = name
        wishes.egress = None if egress is None else egress == "on"
        wishes.registry = registry
        wishes.ingress = ingress
        wishes.gateway = gateway
        wishes.custom_metrics = custom_metrics
        wishes.vpa = vpa
        wishes.runtime = runtime
        wishes.listen = None if listen is None else [a for a in listen if a != "127.0.0.1"]
        bring_up(cluster, wishes)
        progress.finish()
        if not quiet:
            count, flag, roster = len(cluster.required_record.nodes), cluster.lab_flag, cluster.hollow.roster
            what = f"{count} node{'' if count == 1 else 's'}"
            what += f" and {len(roster)} hollow" if len(roster) else ""
            what += f", {cluster.required_record.store}, {cluster.server}"
            print(f'lab "{lab}" is up: {what} ({progress.total:.1f} s)\n')
            first_look = "nodes" if count or len(roster) else "namespaces"
            print(f"  export KUBECONFIG={cluster.paths.kubeconfig}\n  kubectl get {first_look}\n")
            print(f"or, without kubectl:  navarch get {first_look}{flag}")
            if cluster.required_record.egress and not cluster.required_record.way_out:
                print("\nEgress is off on this machine: NAVARCH_EGRESS=off")
            if cluster.required_record.registry:
                print(f"\nRegistry:  navarch image push NAME localhost:{cluster.required_record.registry}/NAME{flag}")
            if any(group.tainted for group in roster.groups):
                print(f"\nOnly pods that tolerate {TAINT} are placed on hollow nodes.")


@app.command()
def down(
    lab: LabOption = "default",
    purge: Annotated[bool, Option("--purge", help="Also delete the lab's data.")] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Stop a lab and remove every trace of it from the machine; its data stays unless --purge."""
    from lab.cluster import Cluster

    progress = Progress(quiet)
    with reported(progress):
        cluster = Cluster(lab, progress)
        recorded = cluster.record is not None
        was_running = cluster.down(purge)
        progress.finish()
        if not quiet:
            if not (recorded or was_running):
                print(f'there is no lab "{lab}": nothing to do')
                return
            what = "is down" if was_running else "was not running"
            advice = (
                "its data is deleted"
                if purge
                else f"its data is kept; start it again with: navarch up{cluster.lab_flag}"
            )
            print(f'lab "{lab}" {what}; {advice}')


@app.command()
def status(
    lab: LabOption = "default",
    output: Annotated[str, Option("-o", "--output", help="json, or empty for people.")] = "",
) -> None:
    """Show what a lab consists of, how its components are, and why one is not well."""
    from lab.cluster import Cluster
    from lab.paths import list_labs

    if output not in ("", "json"):
        fail(f'-o {output}: only "json" is known here')
    with reported():
        cluster = Cluster(lab)
        if cluster.record is None and not output:
            labs = list_labs()
            print(
                f'there is no lab "{lab}"'
                + (f" (labs: {', '.join(labs)})" if labs else "")
                + "; start one with: navarch up"
            )
            raise SystemExit(1)
        report = cluster.status()
    if output == "json":
        print(json.dumps(report, indent=2))
        return
    print(f"lab {report['lab']}: {'running' if report['running'] else 'down'}")
    for label, value in (
        ("server", report["server"]),
        ("store", report["store"]["kind"]),
        ("kubeconfig", report["kubeconfig"]),
        ("logs", report["logs"]),
        *((("registry", f"localhost:{report['registry']}"),) if report["registry"] else ()),
        ("egress", "on" if report["egress"] else "off"),
        *((("disk", report["disk"]),) if report["disk"] else ()),
    ):
        print(f"{label:12}{value}")
    print()
    nodes_table(report)
    print()
    components_table(report["processes"])


def components_table(processes: list[dict[str, Any]]) -> None:
    """Each component, how it is, since when, and why it is not well or last ended."""
    from navarch.api.durations import human_duration
    from navarch.world import RealWorld

    now = RealWorld(brief=True).now()
    rows = []
    for each in processes:
        why = each["reason"] or (f"last: {each['lastExit']}" if each.get("lastExit") else "")
        age = human_duration(now - each["since"]) if each["since"] else "-"
        rows.append([each["name"], each["pid"] or "-", each["state"], age, each["restarts"], why])
    table(["COMPONENT", "PID", "STATE", "SINCE", "RESTARTS", "WHY"], rows)


def nodes_table(report: dict[str, Any]) -> None:
    """The lab's nodes: real ones each, simulated ones by the group."""
    if report["nodes"] or not report["hollow"]["count"]:
        table(["NODE", "POWER", "LINK", "ADDRESS", "PODS", "CPU", "MEMORY"], [
            [n["name"], n["power"], "partitioned" if n["partitioned"] else "up",
             n["address"], n["podCIDR"], n["cpu"], n["memory"]]
            for n in report["nodes"]
        ])  # fmt: skip
    hollow = report["hollow"]
    if not hollow["count"]:
        return
    if report["nodes"]:
        print()
    table(["HOLLOW NODES", "COUNT", "ZONES", "TAINTED", "CPU", "MEMORY", "MAX-PODS"], [
        [g["first"] if g["count"] == 1 else f"{g['first']}..{g['last']}", g["count"], g["zones"] or "-",
         "yes" if g["tainted"] else "no", g["cpu"], g["memory"], g["pods"]]
        for g in hollow["groups"]
    ])  # fmt: skip
    if report["running"]:
        print(
            f"{hollow['ready']} of {hollow['count']} Ready, {hollow['pods']} pods, Leases of {hollow['leaseSeconds']} s"
        )
    for state in ("off", "partitioned"):
        if names := hollow[state]:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            print(f"{state}: {', '.join(names[:10])}{more}")


@app.command()
def kubeconfig(
    lab: LabOption = "default",
    server: Annotated[str, Option("--server", metavar="ADDRESS", help=SERVER_HELP)] = "",
    merge: Annotated[
        bool, Option("--merge", help="Merge the lab into ~/.kube/config and make it current.")
    ] = False,
) -> None:
    """Print the path of the lab's kubeconfig; with --server a whole one, for another machine."""
    from lab.cluster import Cluster

    with reported():
        cluster = Cluster(lab)
        cluster.required_record  # noqa: B018 - says so if there is no such lab
        path = cluster.paths.kubeconfig
        if server:
            from lab.kubeconfigs import for_elsewhere

            return print(for_elsewhere(path, cluster.required_record, server))
        if merge:
            from lab.kubeconfigs import merge_into_user_config

            target = merge_into_user_config(path)
            print(f'merged into {target}; the current context is now "navarch-{lab}"', file=sys.stderr)
        print(path)


@contextlib.contextmanager
def _changing(lab: str) -> Iterator[Any]:
    """The lab, for a verb that changes it: progress is shown, errors become one line."""
    progress = Progress()
    with reported(progress):
        yield _cluster(lab, progress)


def _cluster(lab: str, progress: Progress | None) -> Any:
    from lab.cluster import Cluster

    return Cluster(lab, progress)


def _plugin(text: str) -> str:
    """A scheduler plugin as the scheduler, which runs elsewhere, can find it: a module of this folder by its file."""
    from navarch.settings import SettingError
    from scheduler.options import plugin_class

    module, colon, name = text.partition(":")
    file = Path(module if module.endswith(".py") else module.replace(".", "/") + ".py")
    plugin = f"{file.resolve()}:{name}" if colon and file.is_file() else text
    try:
        plugin_class(plugin)
    except SettingError as error:
        fail(str(error))
    return plugin


def _hollow(count: int, cpu: str, memory: str, pods: int, zones: int, labels: str, taint: bool | None) -> Any:
    """The HollowNodes that options describe."""
    from lab.hollow import HollowNodes
    from navarch.api import names, quantity

    for flag, amount in (("--hollow-cpu", cpu), ("--hollow-memory", memory)):
        try:
            quantity.value(amount)
        except ValueError:
            fail(f"{flag} {amount}: this is no quantity such as 500m or 2Gi")
    label_map = {}
    for pair in filter(None, labels.split(",")):
        key, equals, value = pair.partition("=")
        wrong = [*names.qualified_name(key), *names.label_value(value)]
        if not equals or wrong:
            fail(f"--hollow-labels {pair}: " + ("; ".join(wrong) or "say KEY=VALUE"))
        label_map[key] = value
    return HollowNodes(count, cpu, memory, pods, zones, label_map, taint)


@node.command("list")
def node_list(lab: LabOption = "default") -> None:
    """Show the nodes of a lab: real ones each, simulated ones by the group."""
    with reported():
        nodes_table(_cluster(lab, None).status())


@node.command("add")
def node_add(
    name: Annotated[str, Argument("[NAME]")] = "",
    lab: LabOption = "default",
    cpu: Annotated[str, Option(help="CPU, such as 500m; default: as the other nodes.")] = "",
    memory: Annotated[str, Option(help="Memory, such as 2Gi.")] = "",
    hollow: Annotated[int, Option(help="Add so many simulated nodes instead.", min=0)] = 0,
    hollow_cpu: HollowCPU = "4",
    hollow_memory: HollowMemory = "16Gi",
    hollow_pods: HollowPods = 110,
    hollow_zones: HollowZones = 0,
    hollow_labels: HollowLabels = "",
    hollow_taint: HollowTaint = None,
) -> None:
    """Add a node, or simulated ones, and wait until Ready."""
    progress = Progress()
    with reported(progress):
        if hollow:
            if name:
                fail(f"{name}: simulated nodes get their names by themselves")
            new_nodes = _hollow(
                hollow,
                cpu or hollow_cpu,
                memory or hollow_memory,
                hollow_pods,
                hollow_zones,
                hollow_labels,
                hollow_taint,
            )
            first, last = _cluster(lab, progress).add_hollow(new_nodes)
            progress.finish()
            return print(f"node/{first} added" if hollow == 1 else f"nodes {first} to {last} added")
        node_name = _cluster(lab, progress).add_node(name, cpu, memory)
        progress.finish()
        print(f"node/{node_name} added")


@node.command("remove")
def node_remove(name: NodeName, lab: LabOption = "default") -> None:
    """Remove a node for good, with its Node object."""
    with _changing(lab) as cluster:
        cluster.remove_node(name)
        if cluster.running():
            cluster.api.call("DELETE", f"/api/v1/nodes/{name}")
        cluster.progress.finish()
        print(f"node/{name} removed")


@node.command("stop")
def node_stop(
    name: NodeName,
    graceful: Annotated[bool, Option("--graceful", help="End its pods first, critical ones last.")] = False,
    lab: LabOption = "default",
) -> None:
    """Cut a node's power: everything on it is dead at once."""
    with _changing(lab) as cluster:
        cluster.stop_node(name, graceful)
        print(f"node/{name} is off; watch what happens:  kubectl get nodes,pods -o wide -w")
        print(f"start it again with:  navarch node start {name}{cluster.lab_flag}")


@node.command("start")
def node_start(name: NodeName, lab: LabOption = "default") -> None:
    """Start a stopped node and wait until it is Ready."""
    with _changing(lab) as cluster:
        cluster.start_node(name)
        cluster.progress.finish()
        print(f"node/{name} is on")


@node.command("partition")
def node_partition(name: NodeName, lab: LabOption = "default") -> None:
    """Cut a node off the network; it keeps running."""
    with _changing(lab) as cluster:
        cluster.partition_node(name)
        print(f"node/{name} is partitioned; heal it with:  navarch node heal {name}{cluster.lab_flag}")


@node.command("heal")
def node_heal(name: NodeName, lab: LabOption = "default") -> None:
    """Connect a partitioned node again."""
    with _changing(lab) as cluster:
        cluster.partition_node(name, heal=True)
        print(f"node/{name} is healed")


app.add_group(node, "node")
