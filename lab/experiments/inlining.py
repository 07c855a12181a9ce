"""Reads an experiment's file, with the files that it names put in, so that a run needs nothing beside it."""

from __future__ import annotations

import csv
import errno
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.experiments import load as loads
from lab.experiments import nodefiles
from lab.experiments.expressions import meant
from lab.experiments.fields import put
from lab.experiments.library import own
from lab.experiments.schema import Problem, WrongFile
from lab.twin import calibration


def load(path: Path, overrides: Mapping[str, Any] = {}, *, commands: bool = False) -> dict[str, Any]:
    """The tree of a file with manifests inlined. Raises WrongFile, OSError. ``commands``: its steps may run some."""
    try:
        tree = yaml.safe_load(text_of(path))
    except yaml.YAMLError as error:
        hint = '; a text that has ": " in it needs quotes' if "mapping values are not allowed" in str(error) else ""
        raise WrongFile([Problem("", f"is no YAML: {' '.join(str(error).split())}{hint}")]) from error
    if not isinstance(tree, dict):
        raise WrongFile([Problem("", "a mapping is expected")])
    problems: list[Problem] = []
    for where, value in overrides.items():
        put(tree, where, value, problems)
    if problems:
        raise WrongFile(problems)
    return inlined(tree, path.parent, commands=commands)


def text_of(path: Path) -> str:
    """The content of a file. Raises OSError, also for what is no text."""
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise OSError(errno.EILSEQ, "is no text in UTF-8", str(path)) from None
    except ValueError as error:  # a name with a NUL in it
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def inlined(tree: dict[str, Any], folder: Path, *, commands: bool = False) -> dict[str, Any]:
    """A tree with the files that it names put in, looked up from a folder; it is changed in place. Raises WrongFile."""
    problems: list[Problem] = []
    folder = folder.resolve()
    _refuse(tree, "allow-commands", "", problems)
    _inline(tree, folder, "", problems)
    if commands:
        tree["allow-commands"] = str(folder)
    behaviour = tree.get("behaviour")
    if isinstance(behaviour, dict) and isinstance(name := behaviour.get("calibrated"), str):
        del behaviour["calibrated"]
        try:
            _calibrate(behaviour, calibration.load(folder / name))
        except (OSError, ValueError) as error:
            problems.append(Problem("behaviour.calibrated", str(error)))
    design = tree.get("design")
    if isinstance(design, str) and design.endswith(".csv"):
        try:
            with (folder / design).open(newline="") as points:
                tree["design"] = list(csv.DictReader(points))
        except OSError as error:
            problems.append(Problem("design", f"{design}: {error.strerror}"))
    if problems:
        raise WrongFile(problems)
    return tree


def _calibrate(behaviour: dict[str, Any], times: calibration.Calibration) -> None:
    """Adds the calibrated times of all pods and of images, where the file itself says nothing. Leaves what is no mapping to the
    schema, which tells it with its path."""

    def add(selector: str, stages: Mapping[str, str]) -> None:
        if isinstance(said := behaviour.get(selector) or {}, dict):
            behaviour[selector] = {**stages, **said}

    others = [stages for selector, stages in behaviour.items() if not str(selector).startswith("image:")]
    own = {stage for stages in others if isinstance(stages, dict) for stage in stages}
    add("default", times.stages)
    for image, stages in times.images.items():
        add(f"image:{image}", {k: v for k, v in stages.items() if k not in own})


def _refuse(tree: Any, name: str, path: str, problems: list[Problem]) -> None:
    """Adds a problem wherever a key stands that a file must not have: it could allow itself what its user has to allow."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        where = f"{path}[{key}]" if isinstance(tree, list) else f"{path}.{key}".lstrip(".")
        if key == name:
            problems.append(Problem(where, "is for the command line alone: navarch experiment run --allow-commands FILE"))
        _refuse(value, name, where, problems)


def _inline(tree: Any, folder: Path, path: str, problems: list[Problem]) -> None:
    """Reads the files that ``apply``, ``template`` and ``config`` name; paths of traces, plugins and references stay paths."""
    if isinstance(tree, list):
        for n, one in enumerate(tree):
            _inline(one, folder, f"{path}[{n}]", problems)
    elif isinstance(tree, dict):
        read: list[str] = []  # keys whose place others take
        for key, value in list(tree.items()):
            where = f"{path}.{key}".lstrip(".")
            if key in ("apply", "template", "config") and isinstance(value, str) and "\n" not in value and value:
                try:
                    tree[key] = text_of(folder / value)
                except OSError as error:
                    problems.append(Problem(where, f"{value}: {error.strerror}"))
            elif key in ("objects", "stages") and isinstance(value, list):
                for n, one in enumerate(value):
                    if isinstance(one, str) and one and "\n" not in one:
                        try:
                            value[n] = text_of(folder / one)
                        except OSError as error:
                            problems.append(Problem(f"{where}[{n}]", f"{one}: {error.strerror}"))
            elif key == "cluster" and isinstance(value, str) and path.startswith("cluster.nodes["):
                try:
                    tree["listed"] = nodefiles.of_cluster(folder / value)
                except ValueError as error:
                    problems.append(Problem(where, str(error)))
                read.append(key)
            elif key == "apply" and isinstance(value, dict) and ("helm" in value or "kustomize" in value):
                tree[key] = _rendered(value, folder, where, problems)
            elif isinstance(value, str) and (call := _FILE.fullmatch(value.strip())):
                try:
                    if call[1] == "trace":
                        tree[key] = loads.shape_of(folder / call[2].strip())
                    else:
                        tree[key] = f"choice({', '.join(text_of(folder / call[2].strip()).split())})"
                except OSError as error:
                    problems.append(Problem(where, f"{call[2]}: {error.strerror}"))
                except ValueError as error:
                    problems.append(Problem(where, str(error)))
            elif key in ("trace", "file") and isinstance(value, str) and value:
                tree[key] = str(folder / value) if not Path(value).is_absolute() else value
                if not Path(tree[key]).is_file():
                    problems.append(Problem(where, f"there is no file {value}"))
            elif parts := own.named(value):
                tree[key] = f"{folder.resolve() / parts[0]}:{parts[1]}"
            elif key == "plugins" and isinstance(value, list):
                tree[key] = [
                    str(folder / one) if isinstance(one, str) and ".py:" in one and not one.startswith("/") else one
                    for one in value
                ]
            else:
                _inline(value, folder, where, problems)
        for key in read:
            del tree[key]


_FILE = re.compile(r"(trace|empirical)\((.+)\)")


def _rendered(what: Mapping[str, Any], folder: Path, path: str, problems: list[Problem]) -> str:
    """The manifests that helm or kustomize make of a folder: ``{helm: chart, name: web, values: file or mapping}`` or
    ``{kustomize: folder}``."""
    program, fields = ("helm", ("helm", "name", "values")) if "helm" in what else ("kustomize", ("kustomize",))
    for key in set(what) - set(fields):
        problems.append(Problem(f"{path}.{key}", f"there is no such field{meant(key, fields)}"))
    target = str(folder / str(what[program]))
    stdin: str | None = None
    if program == "helm":
        command = ["helm", "template", str(what.get("name", "web")), target]
        values = what.get("values")
        if isinstance(values, str):
            command += ["--values", str(folder / values)]
        elif values:
            command, stdin = [*command, "--values", "-"], yaml.safe_dump(values)
    else:
        command = ["kustomize", "build", target] if shutil.which("kustomize") else ["kubectl", "kustomize", target]
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        problems.append(Problem(path, f"there is no program {command[0]!r} here: install it, or inline its output"))
        return ""
    except subprocess.TimeoutExpired:
        problems.append(Problem(path, f"{' '.join(command)} did not end within 60 s"))
        return ""
    if done.returncode:
        text = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        problems.append(Problem(path, f"{' '.join(command[:2])}: {text}"))
    return str(done.stdout)
