"""``navarch replace``, ``navarch edit`` and ``navarch diff``: whole objects, from files or from an editor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cli import manifests
from cli.errors import CommandError, status_text, with_source
from cli.manifests import Manifest
from cli.objectchanges import Change, chosen
from cli.options import App, Option
from cli.output import printing
from cli.session import Resource, Session, Tree
from cli.targets import LiveObject, Query, namespace_of, resource_of
from cli.threewayapply import CLIENT_SIDE_MANAGER, annotated, last_applied, three_way, two_way
from cli.verb import DryRun, FieldManager, Filenames, Output, Recursive, Resources, Selector, Where, verb
from navarch.api import selectors
from navarch.api.errors import NotFound, StatusError
from navarch.api.serialization import DecodeError, decode_yaml, dump_yaml

app = App()

NO_FILES = "must specify one of -f and -k"


@verb(app)
def replace(
    where: Where,
    filename: Filenames = None,
    recursive: Recursive = False,
    force: Annotated[bool, Option("--force", help="Delete it and create it again.")] = False,
    grace_period: Annotated[int, Option("--grace-period", metavar="SECONDS", help="With --force.")] = -1,
    save_config: Annotated[bool, Option("--save-config", help="Keep it as last applied, for apply.")] = False,
    subresource: Annotated[
        str, Option("--subresource", metavar="NAME", help="Replace this: status, scale.")
    ] = "",
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-replace",
) -> None:
    """Replace objects by what is in files; they must exist (or use --force)."""

    async def main(session: Session) -> None:
        change = Change(output, dry_run, field_manager)
        query = Query(filenames=filename or ())
        if not filename:
            raise CommandError(NO_FILES)
        for manifest in manifests.read(filename, recursive):
            with query.failures.collect():
                resource = await resource_of(session, manifest)
                namespace = namespace_of(session, resource, manifest)
                tree = _placed(annotated(manifest.tree) if save_config else manifest.tree, namespace)
                if force and not change.dry_run:
                    await _remove(session, resource, manifest.name, namespace, grace_period)
                    written = await session.of(resource).create(tree, namespace, field_manager=field_manager)
                elif change.dry_run == "client":
                    written = tree
                else:
                    try:
                        await _versioned(session, resource, tree, manifest.name, namespace)
                        written = await session.of(resource).update(
                            tree,
                            subresource=subresource or None,
                            dry_run=bool(change.dry_run),
                            field_manager=field_manager,
                            field_validation="Strict",
                        )
                    except StatusError as error:
                        raise with_source(error, "replacing", manifest.source) from None
                change.say(resource, written, "replaced")
        query.failures.raise_any()

    where.run(main)


async def _versioned(session: Session, resource: Resource, tree: Tree, name: str, namespace: str | None) -> None:
    """Lets the object replace whatever is there now, if it does not say what: some kinds are replaced in no other way."""
    if tree["metadata"].get("resourceVersion"):
        return
    try:
        now = await session.of(resource).get(name, namespace)
    except NotFound:  # the server says so, or creates it
        return
    tree["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"]


def _placed(tree: Tree, namespace: str | None) -> Tree:
    meta = dict(tree.get("metadata") or {}) | ({"namespace": namespace} if namespace else {})
    return tree | {"metadata": meta}


async def _remove(session: Session, resource: Resource, name: str, namespace: str | None, grace: int) -> None:
    from cli.objectwait import wait_for_deletion

    try:
        remainder = await session.of(resource).delete(
            name,
            namespace,
            grace_period_seconds=grace if grace >= 0 else None,
            propagation_policy="Background",
        )
    except NotFound:
        return
    print(f'{resource.typed} "{name}" deleted', flush=True)
    if remainder is not None:
        await wait_for_deletion(session, resource, name, namespace, remainder["metadata"].get("uid", ""))


EDIT_HEAD = """\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
"""


@verb(app)
def edit(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    subresource: Annotated[str, Option("--subresource", metavar="NAME", help="Edit this: status, scale.")] = "",
    output: Annotated[str, Option("-o", "--output", metavar="yaml|json", help="The format to edit.")] = "yaml",
    field_manager: FieldManager = "kubectl-edit",
) -> None:
    """Change an object in your editor ($KUBE_EDITOR, $EDITOR or vi): navarch edit deploy/web."""

    async def main(session: Session) -> int:
        query = Query(resources or (), filename or (), recursive, selector)
        code = 0
        for live in await chosen(session, query):
            with query.failures.collect():
                code = max(code, await _edit(session, live, subresource, output, Change("", "", field_manager)))
        query.failures.raise_any()
        return code

    where.run(main)


async def _edit(session: Session, live: LiveObject, subresource: str, output: str, change: Change) -> int:
    """Opens the editor until the server takes what is saved, or nothing (or the same again) is saved."""
    before = live.tree
    if subresource:
        before = await session.of(live.resource).get_sub(live.name, live.namespace, subresource)
    original = printing.rendered(printing.bare(before), output) + "\n"
    text, problems = original, ""
    suffix = f".{output}"
    while True:
        shown = EDIT_HEAD + "".join(f"# {line}\n" for line in problems.splitlines()) + ("#\n" if problems else "")
        saved = _in_editor(shown + text if output == "yaml" else text, suffix)
        body = "\n".join(line for line in saved.splitlines() if not line.startswith("#")).strip()
        if not body:
            print("Edit cancelled, saved file was empty.", file=sys.stderr)
            return 0
        if body == text.strip():
            if problems:
                copy = _store_copy(saved, suffix)
                print(f'A copy of your changes has been stored to "{copy}"', file=sys.stderr)
                raise CommandError("Edit cancelled, no valid changes were saved.")
            print("Edit cancelled, no changes made.", file=sys.stderr)
            return 0
        text = body + "\n"
        try:
            documents = decode_yaml(text.encode())
            if len(documents) != 1 or not isinstance(documents[0], dict):
                raise CommandError("what is saved must be one object")
            after = documents[0]
            patch = two_way(live.resource, printing.bare(before), after)
            if patch is None:
                print("Edit cancelled, no changes made.", file=sys.stderr)
                return 0
            kinds = {"apiVersion", "kind"} & set(patch.tree)
            if kinds or "name" in (patch.tree.get("metadata") or {}):
                raise CommandError("At least one of apiVersion, kind and name was changed")
            patched = await change.patch(session, live, patch.tree, patch.type, subresource=subresource)
        except (StatusError, CommandError, DecodeError) as error:
            problems = status_text(error) if isinstance(error, StatusError) else f"error: {error}"
            if isinstance(error, StatusError) and error.http_code in (404, 409):
                print(f'A copy of your changes has been stored to "{_store_copy(saved, suffix)}"', file=sys.stderr)
                raise
            continue
        change.say(live.resource, live.tree | patched if subresource else patched, "edited")
        return 0


def _in_editor(text: str, suffix: str) -> str:
    """Opens the text in the user's editor and returns what is saved. Raises CommandError if the editor fails."""
    editor = os.environ.get("KUBE_EDITOR") or os.environ.get("EDITOR") or "vi"
    path = Path(_store_copy(text, suffix))
    try:
        # The editor may be a command line, as kubectl takes it; so a shell splits it.
        command = ["/bin/sh", "-c", f"{editor} {shlex.quote(str(path))}"]
        code = subprocess.run(command, check=False).returncode
        if code:
            raise CommandError(f"there was a problem with the editor {json.dumps(editor)}")
        return path.read_text()
    finally:
        path.unlink(missing_ok=True)


def _store_copy(text: str, suffix: str) -> str:
    handle, path = tempfile.mkstemp(prefix="navarch-edit-", suffix=suffix)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return path


@verb(app)
def diff(
    where: Where,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    server_side: Annotated[bool, Option("--server-side", help="As server-side apply would do it.")] = False,
    force_conflicts: Annotated[bool, Option("--force-conflicts", help="With --server-side.")] = False,
    show_managed_fields: Annotated[bool, Option("--show-managed-fields", help="Keep managedFields.")] = False,
    field_manager: FieldManager = "",
) -> None:
    """Show what apply would change. Exit code 0: nothing, 1: something, more: an error."""

    async def main(session: Session) -> int:
        try:
            return await _diff(session)
        except CommandError as error:
            error.code = max(error.code, 2)  # 1 says that there are differences
            raise

    async def _diff(session: Session) -> int:
        if not filename:
            raise CommandError(NO_FILES, code=2)
        label_selector = selectors.parse_label_selector(selector)
        manager = field_manager or ("kubectl" if server_side else CLIENT_SIDE_MANAGER)
        with (
            tempfile.TemporaryDirectory(prefix="LIVE-") as live,
            tempfile.TemporaryDirectory(prefix="MERGED-") as merged,
        ):
            for manifest in manifests.read(filename, recursive):
                if not label_selector.matches(manifest.metadata.get("labels") or {}):
                    continue
                resource = await resource_of(session, manifest)
                namespace = namespace_of(session, resource, manifest)
                before, after = await _both(
                    session, resource, manifest, namespace, server_side, force_conflicts, manager
                )
                kind = resource.kind
                parts = [kind.group, kind.version, kind.kind, namespace or "", manifest.name]
                name = ".".join(p for i, p in enumerate(parts) if p or i == 3)
                for folder, tree in ((live, before), (merged, after)):
                    if tree is not None:
                        shown = tree if show_managed_fields else printing.bare(tree)
                        Path(folder, name).write_text(dump_yaml(_hidden(shown, before, after)))
            return _compare(live, merged)

    where.run(main)


async def _both(
    session: Session,
    resource: Resource,
    manifest: Manifest,
    namespace: str | None,
    server_side: bool,
    force: bool,
    manager: str,
) -> tuple[Tree | None, Tree]:
    """The object as it is (None if it is not there), and as it would be after apply."""
    client = session.of(resource)
    tree = _placed(manifest.tree, namespace)
    try:
        before = await client.get(manifest.name, namespace)
    except NotFound:
        before = None
    if server_side:
        body = json.dumps(tree).encode()
        after = await client.patch(
            manifest.name, namespace, body, "apply", dry_run=True, field_manager=manager, force=force
        )
        return before, after
    if before is None:
        return None, await client.create(tree, namespace, dry_run=True, field_manager=manager)
    change = three_way(resource, last_applied(before), annotated(tree), before)
    if change is None:
        return before, before
    after = await client.patch(manifest.name, namespace, change.tree, change.type, dry_run=True, field_manager=manager)
    return before, _without_annotation(after, before)


def _without_annotation(after: Tree, before: Tree) -> Tree:
    """kubectl compares without what apply itself writes down."""
    from cli.threewayapply import LAST_APPLIED

    annotations = dict(after["metadata"].get("annotations") or {})
    old = (before["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    annotations.pop(LAST_APPLIED, None)
    if old is not None:
        annotations[LAST_APPLIED] = old
    meta = {k: v for k, v in after["metadata"].items() if k != "annotations"}
    return after | {"metadata": meta | ({"annotations": annotations} if annotations else {})}


def _hidden(tree: Tree, before: Tree | None, after: Tree) -> Tree:
    """A secret's values as stars: the same ones where nothing changes, others before and after where it does."""
    if tree.get("kind") != "Secret" or not isinstance(tree.get("data"), dict):
        return tree
    old, new = (before or {}).get("data") or {}, after.get("data") or {}
    out = {}
    for key, value in tree["data"].items():
        changed = key in old and key in new and old[key] != new[key]
        out[key] = "***" if not changed else "*** (before)" if value == old.get(key) else "*** (after)"
    return tree | {"data": out}


def _compare(live: str, merged: str) -> int:
    """Runs diff (or $KUBECTL_EXTERNAL_DIFF) over two folders; its exit code, which is 1 if they differ."""
    program = os.environ.get("KUBECTL_EXTERNAL_DIFF", "")
    command = [*(program.split() or ["diff"]), *([] if program else ["-u", "-N"]), live, merged]
    sys.stdout.flush()
    try:
        code = subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise CommandError(f'failed to run "{command[0]}": it is not on PATH', code=2) from None
    if code > 1:
        print(f"error: exit status {code}", file=sys.stderr)
    return code
