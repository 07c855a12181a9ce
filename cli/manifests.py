"""Objects in files: what ``-f`` names (files, folders, URLs, standard input), read as kubectl reads them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cli.errors import CommandError

Tree = dict[str, Any]
SUFFIXES = (".json", ".yaml", ".yml")


class Manifest(NamedTuple):
    """An object and where it came from, as messages name it."""

    source: str
    tree: Tree

    @property
    def metadata(self) -> Tree:
        metadata = self.tree.get("metadata")
        return metadata if isinstance(metadata, dict) else {}

    @property
    def name(self) -> str:
        return self.metadata.get("name") or ""


def read(filenames: Sequence[str], recursive: bool = False) -> list[Manifest]:
    """All objects, lists taken apart. Raises CommandError for what is not there or no object."""
    from navarch.api.serialization import DecodeError, decode_yaml  # here: it costs those that read no files

    out: list[Manifest] = []
    for source, text in _texts(filenames, recursive):
        try:
            documents = decode_yaml(text)
        except DecodeError as error:
            raise CommandError(f"error parsing {source}: {error}") from error
        for document in documents:
            out += _objects(source, document)
    return out


def _texts(filenames: Sequence[str], recursive: bool) -> Iterator[tuple[str, bytes]]:
    for name in filenames:
        if name == "-":
            yield "STDIN", sys.stdin.buffer.read()
        elif name.startswith(("http://", "https://")):
            yield name, _fetched(name)
        else:
            for path in _paths(name, recursive):
                try:
                    yield str(path), path.read_bytes()
                except OSError as error:
                    raise CommandError(f"error reading {path}: {error.strerror}") from error


def _paths(name: str, recursive: bool) -> list[Path]:
    path = Path(name)
    if not path.exists():
        raise CommandError(f'the path "{name}" does not exist')
    if not path.is_dir():
        return [path]
    candidates = path.rglob("*") if recursive else path.iterdir()
    paths = sorted(p for p in candidates if p.suffix in SUFFIXES and p.is_file())
    if not paths:
        raise CommandError(f"error reading [{name}]: recognized file extensions are [.json .yaml .yml]")
    return paths


def _fetched(url: str) -> bytes:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            data: bytes = answer.read()
            return data
    except urllib.error.HTTPError as error:
        raise CommandError(f'unable to read URL "{url}", server reported {error.code} {error.reason}') from error
    except OSError as error:
        raise CommandError(f'unable to read URL "{url}": {error}') from error


def _objects(source: str, document: Any) -> list[Manifest]:
    if not isinstance(document, dict):
        raise CommandError(f"error parsing {source}: the document is no object: {json.dumps(document)[:80]}")
    missing = [f"{field} not set" for field in ("apiVersion", "kind") if not document.get(field)]
    if missing:
        listed = missing[0] if len(missing) == 1 else f"[{', '.join(missing)}]"
        raise CommandError(
            f'error validating "{source}": error validating data: {listed}; '
            "if you choose to ignore these errors, turn validation off with --validate=false"
        )
    items = document.get("items")
    if str(document["kind"]).endswith("List") and isinstance(items, list):
        return [manifest for item in items for manifest in _objects(source, item)]
    return [Manifest(source, document)]
