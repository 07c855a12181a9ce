"""``navarch label`` and ``navarch annotate``: small facts on objects."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from cli.errors import CommandError
from cli.objectchanges import Change, chosen
from cli.options import App, Argument, Option
from cli.session import Session
from cli.targets import LiveObject, Query, find
from cli.verb import (
    AllNamespaces,
    DryRun,
    FieldManager,
    FieldSelector,
    Filenames,
    Output,
    Recursive,
    Selector,
    Where,
    complete,
    verb,
)
from navarch.api import names

app = App()

UNNAMED = "one or more resources must be specified as <resource> <name> or <resource>/<name>"

Words = Annotated[
    list[str] | None, Argument("TYPE[/NAME] [NAME...] KEY=VALUE|KEY- ...", autocompletion=complete)
]
All = Annotated[bool, Option("--all", help="All objects of the given types.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Change keys that have a value.")]
Version = Annotated[str, Option("--resource-version", help="Only if it is at this version.")]
List = Annotated[bool, Option("--list", help="Show what there is.")]


class Sort(NamedTuple):
    """The difference between the two verbs."""

    field: str  # in metadata
    one: str  # as messages name it
    many: str
    done: str


LABELS = Sort("labels", "label", "labels", "labeled")
ANNOTATIONS = Sort("annotations", "annotation", "annotations", "annotated")


def _add_verb(sort: Sort, name: str, help_: str) -> None:
    def change(
        where: Where,
        words: Words = None,
        filename: Filenames = None,
        recursive: Recursive = False,
        selector: Selector = "",
        field_selector: FieldSelector = "",
        all_: All = False,
        all_namespaces: AllNamespaces = False,
        overwrite: Overwrite = False,
        resource_version: Version = "",
        list_: List = False,
        output: Output = "",
        dry_run: DryRun = "",
        field_manager: FieldManager = f"kubectl-{name}",
    ) -> None:
        query = Query((), filename or (), recursive, selector, field_selector, all_namespaces, all_)
        wish = (output, dry_run, field_manager)
        where.run(lambda session: _set(session, sort, words or [], query, overwrite, resource_version, list_, wish))

    change.__doc__ = help_
    verb(app, name)(change)


_add_verb(LABELS, "label", "Set labels, or remove them: navarch label pod web tier=front; label nodes --all old-.")
_add_verb(
    ANNOTATIONS,
    "annotate",
    "Set annotations, or remove them: navarch annotate deploy/web note='by hand'; annotate deploy/web note-.",
)


def split_pairs(words: list[str], sort: Sort) -> tuple[list[str], dict[str, str], list[str]]:
    """Takes apart what names objects and what changes: (resources, set, removed). Raises CommandError."""
    first = next((i for i, w in enumerate(words) if "=" in w[1:] or w.endswith("-")), len(words))
    named, pairs = words[:first], words[first:]
    additions: dict[str, str] = {}
    removed: list[str] = []
    for word in pairs:
        key, equals, value = word.partition("=")
        if equals and key:
            if sort is LABELS and (why := "; ".join(names.label_value(value))):
                raise CommandError(f'invalid label value: "{word}": {why}')
            additions[key] = value
        elif word.endswith("-") and not equals:
            removed.append(word[:-1])
        else:
            raise CommandError(f"unknown {sort.one} spec: {word}")
    if set(additions) & set(removed):
        article = "a label" if sort is LABELS else "an annotation"
        raise CommandError(f"can not both modify and remove {article} in the same command")
    return named, additions, removed


async def _set(
    session: Session,
    sort: Sort,
    words: list[str],
    query: Query,
    overwrite: bool,
    version: str,
    listing: bool,
    options: tuple[str, str, str],
) -> None:
    change = Change(*options)
    query.arguments, additions, removed = split_pairs(words, sort)
    if not query.arguments and not query.filenames:
        raise CommandError(UNNAMED)
    if listing:
        if additions or removed:
            raise CommandError(f"cannot change {sort.many} when listing")
        _list(await find(session, query), sort)
        query.failures.raise_any()
        return
    if not additions and not removed:
        raise CommandError(f"at least one {sort.one} update is required")
    for live in await chosen(session, query):
        with query.failures.collect():
            await _one(session, live, sort, additions, removed, overwrite, version, change)
    query.failures.raise_any()


async def _one(
    session: Session,
    live: LiveObject,
    sort: Sort,
    additions: dict[str, str],
    removed: list[str],
    overwrite: bool,
    version: str,
    change: Change,
) -> None:
    have = live.tree["metadata"].get(sort.field) or {}
    if not overwrite:
        _refuse_changes(sort, additions, have)
    outcome = sort.done
    if sort is LABELS:
        for key in removed:
            if key not in have:
                print(f'label "{key}" not found.', flush=True)
        after = {k: v for k, v in (have | additions).items() if k not in removed}
        outcome = "not labeled" if after == have else "unlabeled" if len(after) < len(have) else "labeled"
    body: dict[str, Any] = {"metadata": {sort.field: additions | dict.fromkeys(removed)}}
    if version:
        body["metadata"]["resourceVersion"] = version
    updated = live.tree if outcome.startswith("not") else await change.patch(session, live, body)
    change.say(live.resource, updated, outcome)


def _refuse_changes(sort: Sort, additions: dict[str, str], have: dict[str, str]) -> None:
    """Raises CommandError for keys that have a value; the same value again is no change of a label."""
    clashes = [
        f"'{key}' already has a value ({have[key]})"
        for key, value in additions.items()
        if key in have and (sort is ANNOTATIONS or have[key] != value)
    ]
    if clashes and sort is ANNOTATIONS:
        listed = "; ".join(clashes)
        raise CommandError(f"--overwrite is false but found the following declared annotation(s): {listed}")
    if clashes:
        texts = [f"{clash}, and --overwrite is false" for clash in clashes]
        raise CommandError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


def _list(objects: list[LiveObject], sort: Sort) -> None:
    for each in objects:
        indent = ""
        if len(objects) > 1:
            kind = each.resource.kind
            print(f"Listing {sort.many} for {kind.kind}.{kind.group}/{each.name}:")
            indent = " "
        for key, value in (each.tree["metadata"].get(sort.field) or {}).items():
            print(f"{indent}{key}={value}")
