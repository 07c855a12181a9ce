"""Makes protobuf_fields.json: which field of which type has which number on the wire.

    python -m apiserver.http.protobuf_table FOLDER

FOLDER holds Kubernetes' Go API types as Debian's golang-k8s-api-dev and golang-k8s-apimachinery-dev install them (the
folder k8s.io). The numbers are part of the protocol; nothing else is taken. For each type, by number: the JSON name (""
for a type that is inlined), what it refers to ("" for scalars), and whether a zero stands for absent.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

OUTPUT = Path(__file__).with_name("protobuf_fields.json")
_STRUCT = re.compile(r"^type (\w+) struct \{$(.*?)^\}", re.M | re.S)
_FIELD = re.compile(r"^\t(?:(\w+)\s+)?(\S+)\s+`([^`]*)`", re.M)
_IMPORT = re.compile(r'^\t(?:(\w+) )?"k8s\.io/(?:api|apimachinery/pkg/apis)/([\w/]+)"', re.M)
_SCALAR = re.compile(r"string|bool|byte|u?int\d*|float\d*")

Field = tuple[str, str, bool]


def read(folder: Path) -> dict[str, dict[str, Field]]:
    """All types of the stable versions, by ``group/version.Type``."""
    out: dict[str, dict[str, Field]] = {}
    for root in (folder / "api", folder / "apimachinery/pkg/apis"):
        for path in sorted(root.glob("*/v[0-9]*/types*.go")):
            package = f"{path.parent.parent.name}/{path.parent.name}"
            if re.fullmatch(r"\w+/v\d+", package):
                out |= parse(path.read_text(), package)
    return out


def parse(text: str, package: str) -> dict[str, dict[str, Field]]:
    """The types of one Go file."""
    imports = {alias or where.rsplit("/", 1)[-1]: where for alias, where in _IMPORT.findall(text)}
    out = {}
    for name, body in _STRUCT.findall(text):
        fields: dict[str, Field] = {}
        for field_name, kind, tags in _FIELD.findall(body):
            wire, shown = re.search(r'protobuf:"\w+,(\d+),', tags), re.search(r'json:"([^"]*)"', tags)
            if wire is None or shown is None:
                continue
            json_name, *options = shown[1].split(",")
            pointer, plain = kind.startswith("*"), kind.lstrip("*")
            element = re.sub(r"^(\[\]|map\[\w+\])\*?", "", plain)
            refers = ""
            if not _SCALAR.fullmatch(element):
                alias, _, last = element.rpartition(".")
                refers = f"{imports.get(alias, alias) if alias else package}.{last}"
            fields[wire[1]] = ("" if "inline" in options else json_name, refers, "omitempty" in options and not pointer)
            assert field_name or "inline" in options or refers, (name, tags)
        if fields:
            out[f"{package}.{name}"] = fields
    return out


def main() -> None:
    table = read(Path(sys.argv[1]))
    # Named scalars (type PodPhase string) are no types of their own on the wire.
    special = ("meta/v1.Time", "meta/v1.MicroTime", "meta/v1.Duration", "meta/v1.FieldsV1")
    messages = {*table, *special}
    slim = {
        name: {n: [json_name, refers if refers in messages else "", zero] for n, (json_name, refers, zero) in fields.items()}
        for name, fields in sorted(table.items())
    }
    lines = [f"{json.dumps(name)}:{json.dumps(fields, separators=(',', ':'))}" for name, fields in slim.items()]
    OUTPUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
