"""``navarch why POD``: why it runs where it runs, or nowhere; with ``--container`` what its node agent saw and did; with
``--to`` whether NetworkPolicies let it open a connection.
``navarch what-if -f FILE``: where a pod would go.

The scheduler itself answers, over the socket that the lab gave it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

from cli import reach
from cli.errors import CommandError
from cli.options import App, Argument, Option
from cli.output import printing
from cli.output.tables import Columns
from cli.podjournal import journal_lines, journal_of
from cli.verb import Where, verb

if TYPE_CHECKING:
    from cli.session import Session

app = App()
Tree = dict[str, Any]

Address = Annotated[
    str,
    Option("--scheduler", metavar="ADDR", help="127.0.0.1:PORT or socket of the scheduler; default: the lab's."),
]
TO_HELP = "May it reach this pod or address, by NetworkPolicies: web-1:80, other/db-0:5432, 192.0.2.1:53/UDP."
NodeOption = Annotated[str, Option("--node", metavar="NAME", help="What about this node?")]
Format = Annotated[str, Option("-o", "--output", metavar="FORMAT", help="json or yaml: all there is to know.")]


@verb(app)
def why(
    where: Where,
    pod: Annotated[str, Argument("POD")],
    node: NodeOption = "",
    container: Annotated[
        bool, Option("--container", help="What the node agent observed and decided about its containers.")
    ] = False,
    to: Annotated[str, Option("--to", metavar="TARGET:PORT", help=TO_HELP)] = "",
    now: Annotated[bool, Option("--now", help="What would be decided now, instead of what was.")] = False,
    output: Format = "",
    scheduler: Address = "",
) -> None:
    """Why is a pod where it is, or nowhere: navarch why web-1; navarch why web-1 --node n2."""

    async def main(session: Session) -> None:
        name = pod.removeprefix("pod/").removeprefix("pods/")
        if container:
            journal = await journal_of(session, name)
            print(printing.rendered(journal, output) if output else "\n".join(journal_lines(journal["journal"])))
            return
        if to:
            reachable = await reach.explain(session, name, to)
            print(printing.rendered(reachable, output) if output else "\n".join(reach.lines(reachable)))
            return
        query = {"namespace": session.namespace, "pod": name, "node": node}
        if now:
            query["live"] = "1"
        answer = await ask(socket_of(where, scheduler), "/explain", query, session.client.transport)
        print(printing.rendered(answer, output) if output else "\n".join(lines(answer)))

    where.run(main)


@verb(app, "what-if")
def what_if(
    where: Where,
    filename: Annotated[str, Option("-f", "--filename", metavar="FILE", help="A manifest with a Pod.")],
    node: NodeOption = "",
    output: Format = "",
    scheduler: Address = "",
) -> None:
    """Where would a pod go, whom would it displace, what would make it fit: navarch what-if -f pod.yaml."""

    async def main(session: Session) -> None:
        pod = read_pod(filename)
        pod["metadata"].setdefault("namespace", session.namespace)
        packed = base64.urlsafe_b64encode(zlib.compress(json.dumps(pod).encode())).decode()
        query = {"pod": packed, "node": node}
        answer = await ask(socket_of(where, scheduler), "/what-if", query, session.client.transport)
        print(printing.rendered(answer, output) if output else "\n".join(lines(answer)))

    where.run(main)


def read_pod(filename: str) -> Tree:
    """The first pod of a manifest, or the pod that its first workload would make."""
    import sys

    from navarch.api.serialization import decode_yaml

    text = sys.stdin.read() if filename == "-" else Path(filename).read_text()
    for tree in decode_yaml(text):
        if tree.get("kind") == "Pod":
            pod: Tree = tree | {"metadata": dict(tree.get("metadata") or {})}
            return pod
        template = (tree.get("spec") or {}).get("template")
        if isinstance(template, dict) and template.get("spec"):
            meta = dict(template.get("metadata") or {})
            meta.setdefault("name", tree["metadata"].get("name", "pod"))
            if namespace := tree["metadata"].get("namespace"):
                meta["namespace"] = namespace
            return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
    raise CommandError(f"no Pod, and nothing that makes pods, in {filename}")


def socket_of(where: Where, address: str) -> str:
    """Where the scheduler listens: as given, else beside the kubeconfig that the command uses."""
    if address or os.environ.get("NAVARCH_SCHEDULER"):
        return address or os.environ["NAVARCH_SCHEDULER"]
    path = where.kubeconfig_path() or os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    socket = Path(path).absolute().parent / "run" / "scheduler.sock" if path else None
    if socket is None or not socket.exists():
        raise CommandError("no scheduler socket beside the kubeconfig: is this a lab? Else say --scheduler ADDR")
    return str(socket)


async def ask(address: str, path: str, query: dict[str, str], transport: object = None) -> Tree:
    """A page of the scheduler. Raises CommandError with what it says. Over TCP the kubeconfig's token says who asks."""
    token = getattr(getattr(transport, "config", None), "token", "")
    proof = f"Authorization: Bearer {token}\r\n" if token and "/" not in address else ""
    target = path + "?" + urlencode({k: v for k, v in query.items() if v})
    if len(target) > 15_000:
        raise CommandError("the pod is too large to ask about")
    try:
        if "/" in address:
            reader, writer = await asyncio.open_unix_connection(address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError) as error:
        raise CommandError(f"the scheduler does not answer at {address}: {error}") from error
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: scheduler\r\n{proof}Connection: close\r\n\r\n".encode())
        answer = await reader.read(-1)
    finally:
        writer.close()
    _, _, body = answer.partition(b"\r\n\r\n")
    try:
        tree: Tree = json.loads(body)
    except ValueError:
        raise CommandError(body.decode(errors="replace").strip() or "the scheduler said nothing") from None
    if "error" in tree:
        raise CommandError(tree["error"])
    return tree


def lines(answer: Tree) -> list[str]:
    """An explanation for people."""
    name = f"{answer['namespace']}/{answer.get('pod') or 'pod'}"
    verb_, live = ("would go", True) if answer.get("live") else ("was put", False)
    out: list[str] = []
    nodes, feasible = answer["nodes"], answer["feasible"]
    if gate := (answer.get("queue") or {}).get("gate"):
        out.append(f"{name} is not scheduled: {gate}")
    if answer["node"]:
        out.append(f"{name} {verb_} on {answer['node']}: {feasible} of {nodes} nodes could take it")
        if "runnerUp" in answer and answer["ties"] > 1:
            out[-1] += f"; {answer['ties']} were equally good, and chance decided"
        elif "runnerUp" in answer:
            out[-1] += f"; {answer['margin']:g} points before {answer['runnerUp']}"
    elif answer.get("failed"):
        out.append(f"{name} could not be decided on: {answer['message']}")
    elif not gate:
        out.append(f"{name} {'fits nowhere' if live else 'fitted nowhere'}: none of {nodes} nodes can take it")
    if permit := answer.get("waitsFor"):
        out.append(f"Its room on {permit['node']} is kept; it is bound once {' and '.join(permit['plugins'])} lets it go.")
    if others := answer.get("notAsked"):
        out.append(f"Extenders were not asked: {', '.join(others)}")
    if answer.get("boundTo") and answer["boundTo"] != answer["node"]:
        out.append(f"It is on {answer['boundTo']}.")
    if queue := answer.get("queue"):
        out.append(f"It is in the queue ({queue['place']}), tried {queue['attempts']} times.")
    if answer["refused"]:
        out += ["", "Refused:"]
        rows = [["NODES", "PLUGIN", "REASON"]]
        rows += [[str(r["nodes"]), r["plugin"], r["reason"]] for r in answer["refused"]]
        out += ["  " + line for line in Columns().lines(rows)]
    if answer["best"]:
        out += ["", "Scores (each 0 to 100, times its weight):", *_scores(answer["best"])]
    if "asked" in answer:
        out += ["", *_node(answer["asked"])]
    if plan := answer.get("preemption"):
        out += ["", f"Room is made on {plan['node']} by taking away: {', '.join(plan['victims'])}"]
    if answer.get("changes"):
        out += ["", "What would change it:"] + [f"  {c['change']}" for c in answer["changes"]]
    return out


def _scores(best: list[Tree]) -> list[str]:
    plugins = [n for n in best[0]["scores"] if any(b["scores"][n]["score"] for b in best)]
    heads = [f"{n.upper()} x{best[0]['scores'][n]['weight']:g}" for n in plugins]
    rows = [["NODE", "TOTAL", *heads]]
    rows += [[b["node"], f"{b['total']:g}", *(str(b["scores"][n]["score"]) for n in plugins)] for b in best]
    return ["  " + line for line in Columns().lines(rows)]


def _node(verdict: Tree) -> list[str]:
    if verdict.get("unknown"):
        return [f"{verdict['node']}: the scheduler did not know this node"]
    if "refused" in verdict:
        return [f"{verdict['node']} was refused:"] + [f"  {r['plugin']}: {r['reason']}" for r in verdict["refused"]]
    return [f"{verdict['node']} could take it:", *_scores([verdict])]
