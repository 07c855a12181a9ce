"""Whole objects as text: ``-o yaml``, ``json``, ``name``, ``jsonpath=...``, ``custom-columns=...``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.errors import CommandError
from cli.output import jsonpath
from cli.output.tables import Columns

Tree = dict[str, Any]

FORMATS = ("json", "yaml", "name", "wide", "jsonpath", "jsonpath-as-json", "jsonpath-file", "custom-columns")


def check_format(output: str) -> None:
    """Raises CommandError for an unknown ``-o``."""
    kind, _, argument = output.partition("=")
    if output and kind not in FORMATS:
        raise CommandError(
            f'unable to match a printer suitable for the output format "{output}", allowed formats are: '
            + ",".join(sorted(FORMATS))
        )
    if kind in ("jsonpath", "jsonpath-as-json", "jsonpath-file", "custom-columns") and not argument:
        raise CommandError(f"template format specified but no template given: -o {kind}=...")


def is_table(output: str) -> bool:
    """Whether the output is columns that the server makes."""
    return output in ("", "wide")


def bare(tree: Tree) -> Tree:
    """The object without metadata.managedFields, which nobody wants to read."""
    meta = tree.get("metadata")
    if isinstance(meta, dict) and "managedFields" in meta:
        return tree | {"metadata": {k: v for k, v in meta.items() if k != "managedFields"}}
    return tree


def as_list(trees: Sequence[Tree]) -> Tree:
    return {"apiVersion": "v1", "items": list(trees), "kind": "List", "metadata": {"resourceVersion": ""}}


def json_text(tree: Any) -> str:
    """JSON as kubectl prints it: four blanks, keys sorted."""
    return json.dumps(tree, indent=4, sort_keys=True, ensure_ascii=False)


def rendered(tree: Tree, output: str, typed_names: Sequence[str] = ()) -> str:
    """An object (or List) as ``-o`` wants it; ``typed_names`` are its (or its items') names for ``-o name``."""
    kind, _, argument = output.partition("=")
    if kind == "json":
        return json_text(tree)
    if kind == "yaml":
        from navarch.api.serialization import dump_yaml

        return dump_yaml(tree).rstrip("\n")
    if kind == "name":
        return "\n".join(typed_names)
    try:
        if kind == "jsonpath":
            return jsonpath.evaluate(argument, tree)
        if kind == "jsonpath-as-json":
            return json_text(jsonpath.select(argument, tree))
        if kind == "jsonpath-file":
            return jsonpath.evaluate(Path(argument).read_text(), tree)
        if kind == "custom-columns":
            return _custom_columns(tree, argument)
    except jsonpath.JSONPathError as error:
        raise CommandError(f"error parsing jsonpath {argument}, {error}") from error
    raise AssertionError(output)


def _custom_columns(tree: Tree, specification: str) -> str:
    columns = []
    for part in specification.split(","):
        name, colon, path = part.partition(":")
        if not colon or not path:
            raise CommandError(f"unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>")
        columns.append((name, path))
    rows = [[name for name, _ in columns]]
    items = tree["items"] if tree.get("kind", "").endswith("List") and "items" in tree else [tree]
    for item in items:
        rows.append([_joined(jsonpath.select(path, item)) for _, path in columns])
    return "\n".join(Columns().lines(rows))


def _joined(values: Sequence[Any]) -> str:
    return ",".join(v if isinstance(v, str) else json.dumps(v) for v in values) or "<none>"


def emit(text: str, output: str) -> None:
    """Prints; jsonpath templates end where they end."""
    print(text, end="" if output.startswith(("jsonpath=", "jsonpath-file=")) else "\n", flush=True)
