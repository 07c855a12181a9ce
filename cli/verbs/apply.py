"""``navarch apply`` and ``navarch create``: objects from files to the server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from cli import manifests
from cli.errors import CommandError, Failures, warn, with_source
from cli.manifests import Manifest
from cli.objectchanges import DRY_RUN, check_dry_run
from cli.options import App, Option
from cli.output import printing
from cli.session import Resource, Session
from cli.targets import namespace_of, resource_of
from cli.threewayapply import CLIENT_SIDE_MANAGER, LAST_APPLIED, Patch, annotated, go_json, last_applied, three_way
from cli.verb import DryRun, FieldManager, Filenames, Output, Recursive, Selector, Where, verb
from navarch.api import selectors
from navarch.api.errors import Conflict, NotFound, StatusError

app = App()

Tree = dict[str, Any]
CONFLICT_RETRIES = 5

Validate = Annotated[
    str, Option("--validate", metavar="strict|warn|ignore", help="What unknown fields are.", show_default=True)
]


@dataclass
class Options:
    output: str = ""
    dry_run: str = ""  # "", client, server
    manager: str = ""
    validation: str = "Strict"
    server_side: bool = False
    force_conflicts: bool = False
    force: bool = False
    save_config: bool = False

    @property
    def suffix(self) -> str:
        return DRY_RUN[self.dry_run]


def _validation(value: str) -> str:
    levels = {"strict": "Strict", "true": "Strict", "warn": "Warn", "ignore": "Ignore", "false": "Ignore"}
    if value.lower() not in levels:
        raise CommandError(
            f"invalid - validate option '{value}'; must be one of: strict (or true), warn, ignore (or false)"
        )
    return levels[value.lower()]


@verb(app)
def apply(
    where: Where,
    filename: Filenames = None,
    recursive: Recursive = False,
    output: Output = "",
    dry_run: DryRun = "",
    selector: Selector = "",
    server_side: Annotated[
        bool, Option("--server-side", help="Let the server merge (server-side apply).")
    ] = False,
    force_conflicts: Annotated[
        bool, Option("--force-conflicts", help="Take over fields that others own.")
    ] = False,
    field_manager: FieldManager = "",
    validate: Validate = "strict",
    force: Annotated[bool, Option("--force", help="Delete and create again what cannot be changed.")] = False,
) -> None:
    """Make the cluster match the objects in files: creates, changes, and says what it did."""

    async def main(session: Session) -> None:
        options = Options(
            output,
            check_dry_run(dry_run),
            field_manager,
            _validation(validate),
            server_side,
            force_conflicts,
            force,
        )
        if options.force_conflicts and not server_side:
            raise CommandError("--force-conflicts only works with --server-side")
        if options.dry_run == "client" and server_side:
            raise CommandError(
                "--dry-run=client doesn't work with --server-side (did you mean --dry-run=server instead?)"
            )
        await _each(session, filename or (), recursive, selector, options, "apply", _apply)

    where.run(main)


@verb(app)
def create(
    where: Where,
    filename: Filenames = None,
    recursive: Recursive = False,
    output: Output = "",
    dry_run: DryRun = "",
    selector: Selector = "",
    save_config: Annotated[bool, Option("--save-config", help="Keep it as last applied, for apply.")] = False,
    field_manager: FieldManager = "kubectl-create",
    validate: Validate = "strict",
) -> None:
    """Create the objects in files; those that exist are an error."""

    async def main(session: Session) -> None:
        options = Options(output, check_dry_run(dry_run), field_manager, _validation(validate), save_config=save_config)
        await _each(session, filename or (), recursive, selector, options, "create", _create)

    where.run(main)


async def _each(
    session: Session,
    filenames: list[str] | tuple[str, ...],
    recursive: bool,
    selector: str,
    options: Options,
    command: str,
    act: Any,
) -> None:
    """Does one thing to every object of the files; goes on after errors and reports them at the end."""
    printing.check_format(options.output)
    if not filenames:
        raise CommandError("must specify one of -f and -k")
    chosen = selectors.parse_label_selector(selector)
    selected = [m for m in manifests.read(filenames, recursive) if chosen.matches(m.metadata.get("labels") or {})]
    if not selected:
        raise CommandError(f"no objects passed to {command}")
    failures, done = Failures(), []
    for manifest in selected:
        with failures.collect():
            resource = await resource_of(session, manifest)
            namespace = namespace_of(session, resource, manifest)
            tree = dict(manifest.tree)
            tree["metadata"] = dict(manifest.metadata) | ({"namespace": namespace} if namespace else {})
            tree_, outcome = await act(session, resource, Manifest(manifest.source, tree), namespace, options)
            typed = {"apiVersion": resource.kind.api_version, "kind": resource.kind.kind} | tree_
            name = f"{resource.typed}/{typed['metadata'].get('name', '')}"
            if options.output:
                done.append((name, printing.bare(typed)))
            else:
                print(f"{name} {outcome}{options.suffix}", flush=True)
    if done:
        tree = done[0][1] if len(selected) == 1 else printing.as_list([tree for _, tree in done])
        printing.emit(printing.rendered(tree, options.output, [name for name, _ in done]), options.output)
    failures.raise_any()


async def _create(
    session: Session, resource: Resource, manifest: Manifest, namespace: str | None, options: Options
) -> tuple[Tree, str]:
    tree = annotated(manifest.tree) if options.save_config else manifest.tree
    if options.dry_run == "client":
        return tree, "created"
    try:
        created = await session.of(resource).create(
            tree,
            namespace,
            dry_run=options.dry_run == "server",
            field_manager=options.manager,
            field_validation=options.validation,
        )
    except StatusError as error:
        raise with_source(error, "creating", manifest.source) from None
    return created, "created"


async def _apply(
    session: Session, resource: Resource, manifest: Manifest, namespace: str | None, options: Options
) -> tuple[Tree, str]:
    if not manifest.name:
        generated = manifest.metadata.get("generateName")
        if generated:
            raise CommandError(f"from {generated}: cannot use generate name with apply")
        raise CommandError(
            f'error when retrieving current configuration of "{manifest.source}": resource name may not be empty'
        )
    if options.server_side:
        return await _apply_on_server(session, resource, manifest, namespace, options)
    modified = annotated(manifest.tree)
    client = session.of(resource)
    for attempt in range(CONFLICT_RETRIES + 1):
        try:
            current = await client.get(manifest.name, namespace)
        except NotFound:
            return await _create_annotated(session, resource, modified, manifest, namespace, options)
        except StatusError as error:
            raise with_source(error, "retrieving current configuration of", manifest.source) from None
        original = last_applied(current)
        if original is None and attempt == 0:
            warn(
                f"resource {resource.kind.resource}/{manifest.name} is missing the {LAST_APPLIED} annotation which is "
                "required by kubectl apply. kubectl apply should only be used on resources created declaratively by "
                "either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically."
            )
        if current["metadata"].get("deletionTimestamp") and attempt == 0:
            warn(f"Detected changes to resource {manifest.name} which is currently being deleted.")
        patch = three_way(resource, original, modified, current)
        if patch is None:
            return current, "unchanged"
        if options.dry_run == "client":
            return current, "configured"
        try:
            patched = await client.patch(
                manifest.name,
                namespace,
                patch.tree,
                patch.type,
                dry_run=options.dry_run == "server",
                field_manager=options.manager or CLIENT_SIDE_MANAGER,
                field_validation=options.validation,
            )
            return patched, "configured"
        except Conflict as error:
            if attempt == CONFLICT_RETRIES:
                raise _patch_error(error, resource, manifest, namespace, patch) from None
        except StatusError as error:
            if options.force and error.http_code == 422:
                return await _replace(session, resource, modified, manifest, namespace, options)
            raise _patch_error(error, resource, manifest, namespace, patch) from None
    raise AssertionError("unreachable")


async def _create_annotated(
    session: Session,
    resource: Resource,
    modified: Tree,
    manifest: Manifest,
    namespace: str | None,
    options: Options,
) -> tuple[Tree, str]:
    inner = Options(
        dry_run=options.dry_run, manager=options.manager or CLIENT_SIDE_MANAGER, validation=options.validation
    )
    return await _create(session, resource, Manifest(manifest.source, modified), namespace, inner)


async def _replace(
    session: Session, resource: Resource, modified: Tree, manifest: Manifest, namespace: str | None, options: Options
) -> tuple[Tree, str]:
    """--force: the object again from nothing, once the old one is gone."""
    from cli.objectwait import wait_for_deletion

    if not options.dry_run:
        deleted = await session.of(resource).delete(manifest.name, namespace, propagation_policy="Background")
        if deleted is not None:
            await wait_for_deletion(session, resource, manifest.name, namespace, deleted["metadata"].get("uid", ""))
    created, _ = await _create_annotated(session, resource, modified, manifest, namespace, options)
    return created, "configured"


def _patch_error(
    error: StatusError, resource: Resource, manifest: Manifest, namespace: str | None, patch: Patch
) -> StatusError:
    kind = resource.kind
    text = (
        f"error when applying patch:\n{go_json(patch.tree)}\nto:\n"
        f'Resource: "{kind.group + "/" if kind.group else ""}{kind.version}, Resource={kind.resource}", '
        f'GroupVersionKind: "{kind.api_version}, Kind={kind.kind}"\n'
        f'Name: "{manifest.name}", Namespace: "{namespace or ""}"\n'
        f'for: "{manifest.source}": error when patching "{manifest.source}": {error.message}'
    )
    return type(error)(text, error.details, code=error.http_code, reason=error.status_reason)


async def _apply_on_server(
    session: Session, resource: Resource, manifest: Manifest, namespace: str | None, options: Options
) -> tuple[Tree, str]:
    try:
        patched = await session.of(resource).patch(
            manifest.name,
            namespace,
            json.dumps(manifest.tree).encode(),
            "apply",
            dry_run=options.dry_run == "server",
            field_manager=options.manager or "kubectl",
            field_validation=options.validation,
            force=options.force_conflicts,
        )
    except Conflict as error:
        raise CommandError(_conflict_text(error)) from None
    except StatusError as error:
        raise with_source(error, "patching", manifest.source) from None
    return patched, "serverside-applied"


def _conflict_text(error: StatusError) -> str:
    """Our own words: what the conflict is, and the three ways out of it."""
    return (
        f"{error.message}\n"
        "Other managers own these fields. Either run it again with --force-conflicts and own them from now on, or take\n"
        "the fields out of the manifest and leave them to their owners, or write the value they have and own them together."
    )
