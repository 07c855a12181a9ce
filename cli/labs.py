"""Lab verbs: up, down, status, node, kubeconfig. They import the room ``lab`` when they run, not before."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from cli.common import LabOption, Progress, fail, reported

app = typer.Typer()
node = typer.Typer(help="Add, remove, stop, start, partition and heal nodes of a lab.", no_args_is_help=True)

NodeName = Annotated[str, typer.Argument(metavar="NAME")]


NODES_HELP = "How many nodes a new lab gets; 0 is the control plane alone."
STORE_HELP = "etcd or sqlite; default: etcd if it is installed."
FAILOVER_HELP = "fast: pods of a dead node are replaced in seconds; default: as Kubernetes, minutes."
SET_HELP = "A component's flag, such as controllers.node-monitor-grace-period=20s."
CPU_HELP = "CPU of each node, such as 500m; default: a share of the machine."


@app.command()
def up(
    lab: LabOption = "default",
    nodes: Annotated[int | None, typer.Option(help=NODES_HELP, show_default="3", min=0)] = None,
    store: Annotated[str | None, typer.Option(help=STORE_HELP)] = None,
    node_cpu: Annotated[str, typer.Option(help=CPU_HELP)] = "",
    node_memory: Annotated[str, typer.Option(help="Memory of each node, such as 2Gi.")] = "",
    failover: Annotated[str | None, typer.Option(help=FAILOVER_HELP)] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="COMPONENT.FLAG=VALUE", help=SET_HELP)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Start a lab, or what of it does not run."""
    from lab.cluster import Cluster

    if store not in (None, "etcd", "sqlite"):
        fail(f'--store {store}: use "etcd" or "sqlite"')
    if failover not in (None, "fast", "default"):
        fail(f'--failover {failover}: use "fast" or "default"')
    settings = {}
    for pair in set_ or ():
        key, equals, value = pair.partition("=")
        if not equals:
            fail(f"--set {pair}: say COMPONENT.FLAG=VALUE")
        settings[key] = value
    progress = Progress(quiet)
    with reported(progress):
        cluster = Cluster(lab, progress)
        cluster.up(
            nodes, store, node_cpu, node_memory, None if failover is None else failover.replace("default", ""), settings
        )
        progress.finish()
        if not quiet:
            count, flag = len(cluster.known.nodes), cluster.lab_flag
            what = f"{count} node{'' if count == 1 else 's'}, {cluster.known.store}, {cluster.server}"
            print(f'lab "{lab}" is up: {what} ({progress.total:.1f} s)\n')
            print(f"  export KUBECONFIG={cluster.paths.kubeconfig}\n  kubectl get nodes\n")
            print(f"or, without kubectl:  navarch get nodes{flag}")


@app.command()
def down(
    lab: LabOption = "default",
    purge: Annotated[bool, typer.Option("--purge", help="Also delete the lab's data.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Stop a lab and remove every trace of it from the machine; its data stays unless --purge."""
    from lab.cluster import Cluster

    progress = Progress(quiet)
    with reported(progress):
        cluster = Cluster(lab, progress)
        was_running = cluster.down(purge)
        progress.finish()
        if not quiet:
            what = "is down" if was_running else "was not running"
            kept = (
                "its data is deleted"
                if purge
                else f"its data is kept; start it again with: navarch up{cluster.lab_flag}"
            )
            print(f'lab "{lab}" {what}; {kept}')


@app.command()
def status(
    lab: LabOption = "default",
    output: Annotated[str, typer.Option("-o", "--output", help="json, or empty for people.")] = "",
) -> None:
    """Show what a lab consists of and whether it runs."""
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
        found = cluster.status()
    if output == "json":
        print(json.dumps(found, indent=2))
        return
    print(f"lab {found['lab']}: {'running' if found['running'] else 'down'}")
    for label, value in (
        ("server", found["server"]),
        ("store", found["store"]["kind"]),
        ("kubeconfig", found["kubeconfig"]),
        ("logs", found["logs"]),
    ):
        print(f"{label:12}{value}")
    print()
    table(["NODE", "POWER", "LINK", "ADDRESS", "PODS", "CPU", "MEMORY"], [
        [n["name"], n["power"], "partitioned" if n["partitioned"] else "up", n["address"], n["podCIDR"], n["cpu"], n["memory"]]
        for n in found["nodes"]
    ])  # fmt: skip
    print()
    table(["PROCESS", "PID", "RESTARTS"], [[p["name"], p["pid"], p["restarts"]] for p in found["processes"]])


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Prints left-aligned columns three spaces apart, as kubectl does."""
    text = [header, *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    for row in text:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@app.command()
def kubeconfig(
    lab: LabOption = "default",
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the lab into ~/.kube/config and make it current.")
    ] = False,
) -> None:
    """Print the path of the lab's kubeconfig."""
    from lab.cluster import Cluster

    with reported():
        cluster = Cluster(lab)
        cluster.known  # noqa: B018 - says so if there is no such lab
        path = cluster.paths.kubeconfig
        if merge:
            from lab.kubeconfigs import merge_into_user_config

            target = merge_into_user_config(path)
            print(f'merged into {target}; the current context is now "navarch-{lab}"', file=sys.stderr)
        print(path)


def _cluster(lab: str, progress: Progress) -> Any:
    from lab.cluster import Cluster

    return Cluster(lab, progress)


@node.command("add")
def node_add(
    name: Annotated[str, typer.Argument(metavar="[NAME]")] = "",
    lab: LabOption = "default",
    cpu: Annotated[str, typer.Option(help="CPU, such as 500m; default: as the other nodes.")] = "",
    memory: Annotated[str, typer.Option(help="Memory, such as 2Gi.")] = "",
) -> None:
    """Add a node and wait until it is Ready."""
    progress = Progress()
    with reported(progress):
        made = _cluster(lab, progress).add_node(name, cpu, memory)
        progress.finish()
        print(f"node/{made} added")


@node.command("remove")
def node_remove(name: NodeName, lab: LabOption = "default") -> None:
    """Remove a node for good, with its Node object."""
    progress = Progress()
    with reported(progress):
        cluster = _cluster(lab, progress)
        cluster.remove_node(name)
        if cluster.running():
            cluster.call("DELETE", f"/api/v1/nodes/{name}")
        progress.finish()
        print(f"node/{name} removed")


@node.command("stop")
def node_stop(name: NodeName, lab: LabOption = "default") -> None:
    """Cut a node's power: everything on it is dead at once."""
    progress = Progress()
    with reported(progress):
        cluster = _cluster(lab, progress)
        cluster.stop_node(name)
        print(f"node/{name} is off; watch what happens:  kubectl get nodes,pods -o wide -w")
        print(f"start it again with:  navarch node start {name}{cluster.lab_flag}")


@node.command("start")
def node_start(name: NodeName, lab: LabOption = "default") -> None:
    """Start a stopped node and wait until it is Ready."""
    progress = Progress()
    with reported(progress):
        _cluster(lab, progress).start_node(name)
        progress.finish()
        print(f"node/{name} is on")


@node.command("partition")
def node_partition(name: NodeName, lab: LabOption = "default") -> None:
    """Cut a node off the network; it keeps running."""
    progress = Progress()
    with reported(progress):
        cluster = _cluster(lab, progress)
        cluster.partition_node(name)
        print(f"node/{name} is partitioned; heal it with:  navarch node heal {name}{cluster.lab_flag}")


@node.command("heal")
def node_heal(name: NodeName, lab: LabOption = "default") -> None:
    """Connect a partitioned node again."""
    progress = Progress()
    with reported(progress):
        _cluster(lab, progress).partition_node(name, heal=True)
        print(f"node/{name} is healed")


app.add_typer(node, name="node")
