"""Steps of verbs that change objects: finding them, sending the change, and saying what was done in kubectl's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cli.errors import CommandError
from cli.output import printing
from cli.session import Resource, Session, Tree
from cli.targets import LiveObject, Query, find

DRY_RUN = {"": "", "client": " (dry run)", "server": " (server dry run)"}


def check_dry_run(value: str) -> str:
    """``client``, ``server`` or ``""``. Raises CommandError for others."""
    if value in ("none", "false"):
        return ""
    if value not in DRY_RUN:
        raise CommandError(f'Invalid dry-run value ({value}). Must be "none", "server", or "client".')
    return value


@dataclass
class Change:
    """How a verb changes objects and tells of it. Raises CommandError for options that are wrong."""

    output: str = ""
    dry_run: str = ""
    manager: str = ""
    shown: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        printing.check_format(self.output)
        self.dry_run = check_dry_run(self.dry_run)

    async def patch(
        self, session: Session, live: LiveObject, body: Any, kind: str = "merge", *, subresource: str = ""
    ) -> Tree:
        """The patched object; with a client-side dry run a merge patch is only tried here."""
        if self.dry_run == "client":
            from navarch.api.patch.merge import apply_merge

            return dict(apply_merge(live.tree, body)) if kind == "merge" else live.tree
        return await session.of(live.resource).patch(
            live.name,
            live.namespace,
            body,
            kind,
            subresource=subresource or None,
            dry_run=self.dry_run == "server",
            field_manager=self.manager or None,
        )

    async def create(self, session: Session, resource: Resource, tree: Tree) -> Tree:
        if self.dry_run == "client":
            return tree
        namespace = session.scope(resource)
        return await session.of(resource).create(
            tree, namespace, dry_run=self.dry_run == "server", field_manager=self.manager or None
        )

    def say(self, resource: Resource, tree: Tree, outcome: str, *, dry: bool = True) -> None:
        """One line, ``deployment.apps/web OUTCOME``, or with ``-o`` the object. ``dry``: says so if it was a dry run."""
        name = f"{resource.typed}/{tree['metadata'].get('name', '')}"
        if not self.output:
            print(f"{name} {outcome}{DRY_RUN[self.dry_run] if dry else ''}", flush=True)
            return
        if self.shown and self.output == "yaml":
            print("---")
        self.shown += 1
        typed = {"apiVersion": resource.kind.api_version, "kind": resource.kind.kind} | tree
        printing.emit(printing.rendered(printing.bare(typed), self.output, [name]), self.output)


async def chosen(session: Session, query: Query) -> list[LiveObject]:
    """The objects that a command line names; a type alone is not enough. Raises CommandError."""
    bare_type = query.arguments and not query.filenames and "/" not in query.arguments[0] and len(query.arguments) == 1
    if bare_type and not (query.selector or query.field_selector or query.every or query.default_type):
        raise CommandError("resource(s) were provided, but no name was specified")
    return await find(session, query)
