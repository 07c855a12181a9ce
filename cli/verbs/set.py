"""``navarch set``: images, environment and resources of the containers in a pod or a pod template."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any

from cli.errors import CommandError, warn
from cli.objectchanges import Change
from cli.options import App, Argument, Option
from cli.session import Session, Tree
from cli.targets import LiveObject, Query, find
from cli.threewayapply import two_way
from cli.verb import DryRun, FieldManager, Filenames, Output, Recursive, Selector, Where, complete, verb
from navarch.api import names, quantity
from navarch.api.errors import StatusError

app = App()
group = App(help="Set images, environment or resources of containers.")
app.add_group(group, "set")

Words = Annotated[
    list[str] | None, Argument("TYPE/NAME ... CONTAINER=IMAGE ...", autocompletion=complete)
]
Pairs = Annotated[
    list[str] | None, Argument("TYPE/NAME ... NAME=VALUE|NAME- ...", autocompletion=complete)
]
Named = Annotated[list[str] | None, Argument("TYPE/NAME ...", autocompletion=complete)]
All = Annotated[bool, Option("--all", help="All objects of the given types.")]
Containers = Annotated[str, Option("-c", "--containers", metavar="NAME", help="Which containers; * is any.")]

Edit = Callable[[Tree, LiveObject], None]
"""Changes a pod spec in place. Raises CommandError."""


@verb(group)
def image(
    where: Where,
    words: Words = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    all_: All = False,
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-set",
) -> None:
    """Set images: navarch set image deploy/web nginx=nginx:2; * is every container."""
    named, pairs = _apart(words or [])
    images = dict(pairs)

    def edit(spec: Tree, live: LiveObject) -> None:
        for name, value in images.items():
            hit = False
            for container in _containers(spec, "*"):
                if name in ("*", container["name"]):
                    container["image"], hit = value, True
            if not hit:
                raise CommandError(f'unable to find container named "{name}"')

    async def main(session: Session) -> None:
        query = Query(named, filename or (), recursive, selector, every=all_)
        change = Change(output, dry_run, field_manager)
        if not images and (named or filename):
            raise CommandError("at least one image update is required")
        await _edit_each(session, query, change, edit, "image updated", "failed to patch image update to pod template:")

    where.run(main)


@verb(group)
def env(
    where: Where,
    words: Pairs = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    all_: All = False,
    containers: Containers = "*",
    more: Annotated[
        list[str] | None, Option("-e", "--env", metavar="NAME=VALUE", help="A variable to set.")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite/--no-overwrite", help="Change variables that exist.")] = True,
    list_: Annotated[bool, Option("--list", help="Show what there is.")] = False,
    from_: Annotated[
        str, Option("--from", metavar="cm/NAME|secret/NAME", help="Set a variable for every key of it.")
    ] = "",
    keys: Annotated[str, Option("--keys", metavar="KEY,...", help="With --from: only these keys.")] = "",
    prefix: Annotated[str, Option("--prefix", help="With --from: put before the names.")] = "",
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-set",
) -> None:
    """Set environment variables: navarch set env deploy/web A=1 B-; set env deploy/web --from=cm/conf."""
    named, pairs = _apart([*(words or []), *(more or [])])

    async def main(session: Session) -> None:
        query = Query(named, filename or (), recursive, selector, every=all_)
        change = Change(output, dry_run, field_manager)
        for name, _ in pairs:
            if why := names.env_name(name):
                raise CommandError(f'"{name}" is not a valid key name: {"; ".join(why)}')
        if list_:
            await _list_env(session, query, containers)
            return
        variables: list[Tree] = [{"name": n, "value": v} for n, v in pairs if v is not None]
        if from_:
            variables += await _from(session, from_, [k for k in keys.split(",") if k], prefix)
        removed = {n for n, v in pairs if v is None}

        def edit(spec: Tree, live: LiveObject) -> None:
            for container in _containers(spec, containers):
                have = [e for e in container.get("env") or () if e["name"] not in removed]
                for each in variables:
                    old = next((i for i, e in enumerate(have) if e["name"] == each["name"]), None)
                    if old is None:
                        have.append(each)
                    elif not overwrite:
                        raise CommandError(f"'{each['name']}' already has a value ({have[old].get('value', '')}), "
                                           "and --overwrite is false")  # fmt: skip
                    else:
                        have[old] = each
                container["env"] = have
                if not have:
                    del container["env"]

        await _edit_each(session, query, change, edit, "env updated", "failed to patch env update to pod template:")

    where.run(main)


@verb(group)
def resources(
    where: Where,
    words: Named = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    selector: Selector = "",
    all_: All = False,
    containers: Containers = "*",
    limits: Annotated[str, Option("--limits", metavar="NAME=QUANTITY,...", help="cpu=1,memory=64Mi")] = "",
    requests: Annotated[str, Option("--requests", metavar="NAME=QUANTITY,...", help="cpu=1,memory=64Mi")] = "",
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-set",
) -> None:
    """Set requests and limits: navarch set resources deploy/web --limits=cpu=1,memory=64Mi."""

    async def main(session: Session) -> None:
        query = Query(words or (), filename or (), recursive, selector, every=all_)
        change = Change(output, dry_run, field_manager)
        changes = {"limits": _amounts(limits), "requests": _amounts(requests)}
        if not any(changes.values()):
            raise CommandError("you must specify an update to requests or limits (in the form of --requests/--limits)")

        def edit(spec: Tree, live: LiveObject) -> None:
            chosen = list(_containers(spec, containers, init=False))
            if not chosen:
                raise CommandError(f'unable to find container named "{containers}"')
            for container in chosen:
                for side, amounts in changes.items():
                    if amounts:
                        container.setdefault("resources", {}).setdefault(side, {}).update(amounts)

        await _edit_each(
            session,
            query,
            change,
            edit,
            "resource requirements updated",
            "failed to patch resources update to pod template",
        )

    where.run(main)


def _apart(words: list[str]) -> tuple[list[str], list[tuple[str, Any]]]:
    """(what names objects, pairs); the value of ``NAME-`` is None."""
    named: list[str] = []
    pairs: list[tuple[str, Any]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key:
            pairs.append((key, value))
        elif word.endswith("-") and len(word) > 1 and "/" not in word:
            pairs.append((word[:-1], None))
        else:
            named.append(word)
    return named, pairs


def _containers(spec: Tree, pattern: str, init: bool = True) -> Iterator[Tree]:
    for kind in ("initContainers", "containers") if init else ("containers",):
        for container in spec.get(kind) or ():
            if fnmatchcase(container["name"], pattern):
                yield container


def _pod_spec(tree: Tree, live: LiveObject) -> Tree:
    """The pod spec inside an object. Raises CommandError if it has none."""
    spec: Any = tree.get("spec") or {}
    if live.resource.full == "pods":
        own: Tree = spec
        return own
    for inner in (spec, (spec.get("jobTemplate") or {}).get("spec") or {}):
        template = inner.get("template")
        if isinstance(template, dict) and isinstance(template.get("spec"), dict):
            pod: Tree = template["spec"]
            return pod
    kind = live.resource.kind
    raise CommandError(
        f"{kind.resource}/{live.name} the object is not a pod or does not have a pod template: "
        f"*{kind.version}.{kind.kind}"
    )


async def _edit_each(session: Session, query: Query, change: Change, edit: Edit, outcome: str, failed: str) -> None:
    for live in await find(session, query):
        with query.failures.collect():
            tree = copy.deepcopy(live.tree)
            edit(_pod_spec(tree, live), live)
            patch = two_way(live.resource, live.tree, tree)
            if patch is None:
                continue
            try:
                dry = change.dry_run == "client"
                updated = tree if dry else await change.patch(session, live, patch.tree, patch.type)
            except StatusError as error:
                raise CommandError(f"{failed} {error.message}") from None
            change.say(live.resource, updated, outcome)
    query.failures.raise_any()


async def _list_env(session: Session, query: Query, pattern: str) -> None:
    for live in await find(session, query):
        with query.failures.collect():
            kind, title = live.resource.kind.kind, live.name
            kind = kind if kind != "Pod" else "pods"
            for container in _containers(_pod_spec(live.tree, live), pattern):
                print(f"# {kind} {title}, container {container['name']}")
                for each in container.get("env") or ():
                    print(_shown(each))
    query.failures.raise_any()


def _shown(variable: Tree) -> str:
    name, source = variable["name"], variable.get("valueFrom") or {}
    if not source:
        return f"{name}={variable.get('value', '')}"
    for field, word in (("configMapKeyRef", "configmap"), ("secretKeyRef", "secret")):
        if ref := source.get(field):
            return f"# {name} from {word} {ref['name']}, key {ref['key']}"
    if ref := source.get("fieldRef"):
        return f"# {name} from field path {ref['fieldPath']}"
    ref = source.get("resourceFieldRef") or {}
    return f"# {name} from resource field {ref.get('resource', '')}"


async def _from(session: Session, word: str, keys: list[str], prefix: str) -> list[Tree]:
    """A variable for every key of a config map or secret."""
    source = (await find(session, Query([word])))[0]
    field = {"configmaps": "configMapKeyRef", "secrets": "secretKeyRef"}.get(source.resource.full)
    if field is None:
        raise CommandError(f"unsupported resource specified in --from: {word}")
    out = []
    for key in sorted(source.tree.get("data") or {}):
        if keys and key not in keys:
            continue
        name = re.sub("[^A-Za-z0-9_]", "_", key).upper()
        if name != key:
            warn(f"key {key} transferred to {name}")
        out.append({"name": prefix + name, "valueFrom": {field: {"name": source.name, "key": key}}})
    return out


def _amounts(text: str) -> dict[str, str]:
    """``cpu=1,memory=64Mi``. Raises CommandError."""
    out = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise CommandError(f"Invalid argument syntax {part}, expected <resource>=<value>")
        try:
            out[name] = quantity.canonical(value)
        except quantity.QuantityError as error:
            raise CommandError(str(error)) from None
    return out
