"""``navarch patch``: a change written by hand, in any of the three forms that the API takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cli.errors import CommandError
from cli.objectchanges import Change, chosen
from cli.options import App, Option
from cli.session import Resource, Session
from cli.targets import Query
from cli.verb import DryRun, FieldManager, Filenames, Output, Recursive, Resources, Where, verb
from navarch.api.errors import BadRequest
from navarch.api.kinds import Kind
from navarch.api.serialization import DecodeError, decode_yaml

app = App()

TYPES = ("json", "merge", "strategic")


@verb(app)
def patch(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    text: Annotated[str, Option("-p", "--patch", metavar="PATCH", help="The change, as JSON or YAML.")] = "",
    patch_file: Annotated[str, Option("--patch-file", metavar="FILE", help="A file with the change.")] = "",
    type_: Annotated[
        str, Option("--type", metavar="json|merge|strategic", help="What form of patch it is.")
    ] = "strategic",
    subresource: Annotated[
        str, Option("--subresource", metavar="NAME", help="Of the object: status, scale.")
    ] = "",
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-patch",
) -> None:
    """Change fields: navarch patch deploy web -p '{"spec":{"replicas":2}}'."""
    query = Query(resources or (), filename or (), recursive)

    async def main(session: Session) -> None:
        if type_ not in TYPES:
            raise CommandError(f'--type must be one of [{" ".join(TYPES)}], not "{type_}"')
        if bool(text) == bool(patch_file):
            raise CommandError(
                "cannot specify --patch and --patch-file together"
                if text
                else "must specify --patch or --patch-file containing the contents of the patch"
            )
        body = _body(text, patch_file)
        change = Change(output, dry_run, field_manager)
        for live in await chosen(session, query):
            with query.failures.collect():
                patched = await change.patch(session, live, body, type_, subresource=subresource)
                same = patched.get("metadata", {}).get("resourceVersion") == live.tree["metadata"].get("resourceVersion")
                outcome = "patched" + (" (no change)" if same and not change.dry_run else "")
                resource = live.resource
                if patched.get("kind") not in (None, resource.kind.kind):  # of a subresource such as scale
                    group, _, version = patched["apiVersion"].rpartition("/")
                    resource = Resource(Kind(group, version, patched["kind"], "", True))
                change.say(resource, patched, outcome, dry=False)
        query.failures.raise_any()

    where.run(main)


def _body(text: str, file: str) -> bytes:
    """The patch as JSON. Raises CommandError."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes() if file else text.encode()
    except OSError as error:
        raise CommandError(f"unable to read patch file: open {file}: {error.strerror}") from None
    try:
        documents: list[Any] = decode_yaml(data)
    except DecodeError:
        if text.lstrip().startswith(("{", "[")):
            raise BadRequest("unexpected end of JSON input") from None
        raise CommandError(f'unable to parse "{data.decode(errors="replace")}": yaml: invalid') from None
    return json.dumps(documents[0] if documents else None).encode()
