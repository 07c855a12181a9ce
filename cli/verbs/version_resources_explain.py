"""``navarch version``, ``api-resources``, ``api-versions``, ``cluster-info`` and ``explain``: what is there to talk to,
and in what words."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Annotated, Any

from cli.errors import CommandError, Failures
from cli.options import App, Argument, Option
from cli.output import printing
from cli.output.tables import Columns
from cli.session import Resource, Session
from cli.verb import Where, verb
from navarch.api import wellknown
from navarch.api.kinds import BY_GVK

app = App()

Tree = dict[str, Any]


def own_version() -> str:
    try:
        return "v" + metadata.version("navarch")
    except metadata.PackageNotFoundError:
        return "v0.0.0-source"


@verb(app)
def version(
    where: Where,
    client: Annotated[bool, Option("--client", help="Only this program's version; asks no server.")] = False,
    output: Annotated[str, Option("-o", "--output", metavar="json|yaml", help="json or yaml.")] = "",
) -> None:
    """Show the versions of this program and of the server."""
    if output not in ("", "json", "yaml"):
        raise SystemExit("--output must be 'yaml' or 'json'")
    own = {"clientVersion": {"gitVersion": own_version()}}
    if client:
        _print_version(own, output)
        return

    async def main(session: Session) -> None:
        _print_version(own | {"serverVersion": await session.client.get_json("/version")}, output)

    where.run(main)


def _print_version(versions: dict[str, Tree], output: str) -> None:
    if output:
        print(json.dumps(versions, indent=2) if output == "json" else printing.rendered(versions, "yaml"))
        return
    print(f"Client Version: {versions['clientVersion']['gitVersion']}")
    if "serverVersion" in versions:
        print(f"Server Version: {versions['serverVersion']['gitVersion']}")


@verb(app, "api-resources")
def api_resources(
    where: Where,
    output: Annotated[str, Option("-o", "--output", metavar="name|wide", help="name or wide.")] = "",
    namespaced: Annotated[
        str, Option("--namespaced", metavar="true|false", help="Only those with (or without) a namespace.")
    ] = "",
    api_group: Annotated[str | None, Option("--api-group", metavar="GROUP", help="Only of this group.")] = None,
    verbs: Annotated[str, Option("--verbs", metavar="VERB,...", help="Only with all of these verbs.")] = "",
    no_headers: Annotated[bool, Option("--no-headers", help="Without the line of column names.")] = False,
) -> None:
    """List the types of objects that the server serves, with their short names."""

    async def main(session: Session) -> None:
        if output not in ("", "name", "wide"):
            raise CommandError(f"--output {output} is not available")
        required_verbs = [v for v in verbs.split(",") if v]
        # Of a type that is served in several versions the preferred one, which comes first.
        every = {(each.kind.group, each.kind.resource): each for each in reversed((await session.resources()).listed)}
        chosen = [
            each
            for each in every.values()
            if (not namespaced or each.kind.namespaced == (namespaced.lower() != "false"))
            and (api_group is None or each.kind.group == api_group)
            and all(v in each.verbs for v in required_verbs)
        ]
        # Of several versions the one that the server prefers, which it lists first.
        chosen = list({each.full: each for each in reversed(chosen)}.values())
        # The core group first, then by group and name.
        chosen.sort(key=lambda r: (r.kind.group, r.kind.resource))
        if output == "name":
            print("\n".join(each.full for each in chosen))
            return
        rows = [] if no_headers else [["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]]
        if output == "wide" and rows:
            rows[0] += ["VERBS", "CATEGORIES"]
        rows += [_row(each, output == "wide") for each in chosen]
        print("\n".join(Columns().lines(rows)))

    where.run(main)


def _row(each: Resource, wide: bool) -> list[str]:
    kind = each.kind
    row = [kind.resource, ",".join(kind.short_names), kind.api_version, str(kind.namespaced).lower(), kind.kind]
    return [*row, ",".join(sorted(each.verbs)), ",".join(kind.categories)] if wide else row


@verb(app, "api-versions")
def api_versions(where: Where) -> None:
    """List the API versions that the server serves, as group/version."""

    async def main(session: Session) -> None:
        core = await session.client.get_json("/api")
        groups = (await session.client.get_json("/apis")).get("groups") or ()
        versions = {*core["versions"], *(v["groupVersion"] for g in groups for v in g["versions"])}
        print("\n".join(sorted(versions)))

    where.run(main)


@verb(app, "cluster-info")
def cluster_info(where: Where) -> None:
    """Show where the cluster's services are."""

    async def main(session: Session) -> None:
        green, yellow, plain = ("\x1b[32m", "\x1b[33m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")

        def line(name: str, url: str) -> None:
            print(f"{green}{name}{plain} is running at {yellow}{url}{plain}")

        line("Kubernetes control plane", session.config.server)
        services = session.client.tree(BY_GVK["", "v1", "Service"])
        page = await services.list("kube-system", label_selector="kubernetes.io/cluster-service=true")
        for service in page.items:
            meta, ports = service["metadata"], service["spec"].get("ports") or ()
            name = (meta.get("labels") or {}).get(wellknown.SERVICE_SHOWN_AS) or meta["name"]
            target = meta["name"] + (f":{ports[0]['name']}" if ports and ports[0].get("name") else "")
            line(name, f"{session.config.server}/api/v1/namespaces/{meta['namespace']}/services/{target}/proxy")
        print("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.")

    where.run(main)


@verb(app)
def explain(
    where: Where,
    path: Annotated[str, Argument("TYPE[.FIELD...]")],
    recursive: Annotated[bool, Option("--recursive", help="Names and types of all fields below.")] = False,
) -> None:
    """Show what fields a type of object has: navarch explain pods.spec.containers."""

    async def main(session: Session) -> None:
        from cli.output.explaining import lines

        failures = Failures()
        word, *fields = path.split(".")
        resource = await session.resource(word)
        kind = resource.kind
        group = f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"
        with failures.collect():
            document = await session.client.get_json(f"/openapi/v3/{group}")
            print("\n".join(lines(document, kind, fields, recursive)))
        failures.raise_any()

    where.run(main)
