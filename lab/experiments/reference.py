"""The reference of an experiment's file, made from its schema.

``python -m lab.experiments.reference`` prints docs/experiment-file.md.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from lab.experiments import file, kwok, load, measures, model, traces
from lab.experiments.schema import Words
from nodeagent.runtime import spread, stages

HEAD = """# The file of an experiment: reference

Made from the schema by `python -m lab.experiments.reference`; a test keeps it true. How to use it is in
[experiments.md](experiments.md).
A value written bare (`4`, `4Gi`, `10s`, `true`) may be a text, a number or true/false.
"""
PARTS = (
    ("the file", file.Experiment), ("metadata", model.Metadata), ("cluster", file.ClusterPart), ("cluster.nodes[]", file.Nodes),
    ("cluster.nodes[].taints[]", file.Taint),
    ("cluster.autoscaler", model.Autoscaler), ("cluster.autoscaler.groups[]", model.NodeGroup),
    ("cluster.scheduler", file.SchedulerPart), ("workload[]", file.Work), ("workload[].generate", file.Generate),
    ("workload[].arrivals", file.Arrivals),
    ("workload[].load", file.Load), ("workload[].trace", file.Trace), ("steps[]", file.Step), ("plots[]", file.Plot),
    ("report", model.Report),
    ("reference", file.Reference), ("expect[]", file.Expectation),
)  # fmt: skip


PATHS: dict[Any, str] = {kind: path for path, kind in reversed(PARTS)}


def link(path: str) -> str:
    return f"[{path}](#{re.sub('[^a-z-]', '', path)})"


def type_name(kind: Any) -> str:
    """A type in plain words."""
    if kind == Words:
        return "value"
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments if a is not type(None))
    if origin is list:
        return f"list of {type_name(arguments[0])}" if arguments[0] not in PATHS else type_name(arguments[0])
    if origin is dict:
        return f"map to {type_name(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return link(PATHS[kind])
    return {str: "text", int: "whole number", float: "number", bool: "true/false", Any: "anything"}.get(kind, str(kind))


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if value in ("", None) or isinstance(value, msgspec.Struct) or value in ([], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def notes(kind: type) -> dict[str, str]:
    """The texts that stand below fields in the source."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(kind)).body[0]).body
    out = {}
    for before, node in itertools.pairwise(body):
        if isinstance(before, ast.AnnAssign) and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            out[ast.unparse(before.target)] = " ".join(str(node.value.value).replace("``", "`").split())
    return out


def section(path: str, kind: type[msgspec.Struct]) -> list[str]:
    lines = [f"## {path}", ""]
    if kind.__doc__:
        lines += [" ".join(inspect.cleandoc(kind.__doc__).replace("``", "`").split()), ""]
    lines += ["| field | type | default | |", "|---|---|---|---|"]
    texts = notes(kind)
    for field in msgspec.structs.fields(kind):
        name = "apiVersion" if field.encode_name == "api-version" else field.encode_name.rstrip("-")
        lines.append(f"| `{name}` | {type_name(field.type)} | {default_of(field)} | {texts.get(field.name, '')} |")
    return [*lines, ""]


def reference() -> str:
    lines = [HEAD]
    for path, kind in PARTS:
        lines += section(path, kind)
    lines += ["## Words", ""]
    words = {
        "cluster.mode": file.MODES, "design": (*file.DESIGNS, "a CSV file"), "report.formats": model.FILES,
        "formats of traces": tuple(traces.FORMATS), "distributions": tuple(k[2] for k in spread.KINDS.values()),
    }  # fmt: skip
    lines += [f"- **{name}**: {', '.join(f'`{w}`' for w in listed)}" for name, listed in words.items()]
    named: tuple[tuple[str, str, Mapping[str, str]], ...] = (
        ("Deeds", "What `do` takes, by word.", model.DEEDS),
        ("Faults", "What `fault` takes, by word; beside it `for`, after which it ends, and `by` of `slow`.", model.FAULTS),
        ("Conditions", "What `when` and `until` may ask, with comparisons, `and`, `or` and `not`.", model.CONDITIONS),
        ("Kinds of plots", "What `report.plots` may name.", model.FIGURES),
    )
    for title, said, listed in named:
        lines += ["", f"## {title}", "", said, "", "| word | |", "|---|---|"]
        lines += [f"| `{word}` | {text} |" for word, text in listed.items()]
    modules = (
        ("Behaviour", stages), ("Shapes of load, and what requests meet", load), ("Formats of traces", traces),
        ("KWOK's Stages", kwok),
    )  # fmt: skip
    for title, module in modules:
        lines += ["", f"## {title}", "", inspect.cleandoc(module.__doc__ or "").replace("``", "`")]
    return "\n".join([*lines, *measure_lines()]) + "\n"


def measure_lines() -> list[str]:
    """The library of measures: a table a subject, from the functions' docstrings."""
    lines = [
        "", "## Measures", "",
        "A measure is an expression of these functions, or `file.py:function`, a function of yours that takes the Recording",
        "and gives a number (in `series`: pairs of time and value). `ref` is `deployment/web`, `app=web`, or nothing for all",
        "pods; `[x]` may be left out; `a..b` is a span between two times, by default the whole run.",
    ]  # fmt: skip
    for subject, rows in itertools.groupby(measures.table(), lambda row: row[0]):
        lines += ["", f"**{subject}**", "", "| function | unit | |", "|---|---|---|"]
        lines += [f"| `{call}` | {unit} | {text} |" for _, call, unit, text in rows]
    return lines


if __name__ == "__main__":
    print(reference(), end="")
