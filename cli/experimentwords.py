"""The outcome of an experiment for people, for programs (JSON) and for CI servers (JUnit XML)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from lab.experiments.expect import Verdict
    from lab.experiments.sweep import Result


def command_of(
    file: Path, mode: str, sets: Sequence[str] | None, vary: Sequence[str] | None, samples: int, commands: bool
) -> list[str]:
    """The file and the options that make another of it: all of ``run`` that its results depend on, but cells and seeds."""
    out = [str(file), *(["--mode", mode] if mode else []), *(["--samples", str(samples)] if samples else [])]
    out += [word for name, texts in (("--set", sets), ("--vary", vary)) for text in texts or () for word in (name, text)]
    return [*out, *(["--allow-commands"] if commands else [])]


def lacking(error: ImportError) -> str:
    """An import that failed, with the extra to install only if the module is not installed: a broken one is another matter."""
    top = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and top and find_spec(top) is None:
        return f"{top} is missing; install navarch[lab]"
    return f"{error.name or 'a library'} is installed, but cannot be imported: {' '.join(str(error).split())}"


def as_json(tree: Mapping[str, Any], listed: Sequence[Result], judged: Sequence[Verdict]) -> str:
    runs = [
        {"levels": dict(r.levels), "seed": r.seed, "measures": {k: v if v == v else None for k, v in r.measures.items()},
         "hash": r.digest, "virtual_seconds": r.virtual, "timeouts": list(r.timeouts), "error": r.error}
        for r in listed
    ]  # fmt: skip
    verdicts = [{"expectation": v.text, "true": v.good, "why": v.why} for v in judged]
    return json.dumps({"name": tree["metadata"]["name"], "runs": runs, "expectations": verdicts}, indent=1)


def as_junit(tree: Mapping[str, Any], listed: Sequence[Result], judged: Sequence[Verdict]) -> str:
    """A test case for each run and each expectation, as CI servers read them."""
    from xml.etree import ElementTree

    name = str(tree["metadata"]["name"])
    suite = ElementTree.Element("testsuite", name=name)
    for r in listed:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.runs", name=r.name)
        if r.error:
            ElementTree.SubElement(case, "error", message=r.error.splitlines()[0]).text = r.error
    for v in judged:
        case = ElementTree.SubElement(suite, "testcase", classname=f"{name}.expectations", name=v.text)
        if v.good is None:
            ElementTree.SubElement(case, "skipped", message=v.why)
        elif not v.good:
            ElementTree.SubElement(case, "failure", message=v.why)
    suite.set("tests", str(len(listed) + len(judged)))
    suite.set("errors", str(sum(bool(r.error) for r in listed)))
    suite.set("failures", str(sum(v.good is False for v in judged)))
    suite.set("skipped", str(sum(v.good is None for v in judged)))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"
