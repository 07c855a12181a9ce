"""The rules of the house that a machine can check: who may import whom, and that only the world knows time and chance.

A module that only exists in the real world may be allowed more in ALLOWED, with its reason; keep that list short.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ["navarch", "apiserver", "scheduler", "controllers", "nodeagent", "proxy", "lab", "cli", "protos"]

BANNED_MODULES = {"time", "random", "uuid", "secrets", "anyio", "trio", "sched"}
BANNED_CALLS = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.datetime.now",
    "datetime.datetime.utcnow", "datetime.date.today", "os.urandom", "os.getrandom", "asyncio.TaskGroup",
}  # fmt: skip

# Path (or folder, ending in "/") -> what it may use. Everything else asks a World.
ALLOWED = {
    "apiserver/encryption/providers.py": {"secrets"},  # nonces
    "navarch/world.py": {"time", "random", "uuid"},  # is the world
    "cli/common.py": {"time"},  # tells people how long things took
    "lab/certificates.py": {"datetime.datetime.now"},  # real certificates begin now
    "lab/apiclient.py": {"time"},  # waits for real processes
    "lab/hollow.py": {"time"},  # the same
    "lab/nodes.py": {"time"},  # notes when a node was switched on
    "lab/supervisor.py": {"time"},  # supervises real processes, without a loop
    "nodeagent/runtime/stragglers.py": {"time"},  # lets real processes settle, in a thread
    "navarch/virtual.py": {"time", "random", "uuid"},  # is the other world, and guards time.sleep
}


def sources() -> list[Path]:
    found = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in found if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def is_set(node: ast.AST) -> bool:
    """Whether an expression is a set on its face (what a name holds we cannot know)."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
    return isinstance(node, ast.Set | ast.SetComp)


def only_named(tree: ast.AST) -> bool:
    """Whether of module random only the type random.Random is used: chance handed in is chance from the World."""
    made = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    named = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and dotted(n.value) == "random"]
    return all(node.attr == "Random" and id(node) not in made for node in named)


def uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, banned thing) for all that a module does against the rule."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name == "random" and only_named(tree):
                    continue
                if name.name.partition(".")[0] in BANNED_MODULES:
                    yield node.lineno, name.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            if (node.module or "").partition(".")[0] in BANNED_MODULES:
                yield node.lineno, (node.module or "").partition(".")[0]
        elif isinstance(node, ast.Call) and dotted(node.func) in BANNED_CALLS:
            yield node.lineno, dotted(node.func)
        elif isinstance(node, ast.For | ast.comprehension) and is_set(node.iter):
            yield node.iter.lineno, "iteration over a set"


def findings() -> list[str]:
    out = []
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        allowed = set()
        for prefix, names in ALLOWED.items():
            if name == prefix or (prefix.endswith("/") and name.startswith(prefix)):
                allowed |= names
        for line, what in uses(ast.parse(path.read_text(), name)):
            if what not in allowed:
                out.append(f"{name}:{line}: {what}")
    return out


def test_only_the_world_knows_time_and_chance() -> None:
    assert findings() == []


def test_the_allowlist_is_no_longer_than_it_must_be() -> None:
    for prefix, names in ALLOWED.items():
        paths = [ROOT / prefix] if not prefix.endswith("/") else sorted((ROOT / prefix).rglob("*.py"))
        used = {what for path in paths if path.exists() for _, what in uses(ast.parse(path.read_text()))}
        if any(path.exists() for path in paths):
            assert names <= used, f"{prefix} does not use {sorted(names - used)}: take it off the list"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time", "time"),
        ("from random import choice", "random"),
        ("def f():\n import uuid", "uuid"),
        ("import random\ndef f(chance: random.Random): pass", None),
        ("import random\nrandom.Random(1)", "random"),
        ("x = datetime.now()", "datetime.now"),
        ("for x in {1, 2}: pass", "iteration over a set"),
        ("[x for x in set(y)]", "iteration over a set"),
        ("from navarch.api import times\nfor x in sorted({1}): pass", None),
    ],
)
def test_the_lint_finds(text: str, found: str | None) -> None:
    assert [what for _, what in uses(ast.parse(text))] == ([found] if found else [])


def test_arrows_point_down(tmp_path: Path) -> None:
    """import-linter's contracts in pyproject.toml hold, for the rooms that exist."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    here = [room for room in ROOMS if (ROOT / room).is_dir()]
    lines = ["[importlinter]", "root_packages =", *(f"    {room}" for room in here)]
    for number, contract in enumerate(settings["contracts"]):
        lines += [f"[importlinter:contract:{number}]"]
        for key, value in contract.items():
            if key in ("source_modules", "forbidden_modules"):
                value = [module for module in value if module.partition(".")[0] in here]
            lines += [f"{key} = {value}"] if isinstance(value, str) else [f"{key} =", *(f"    {v}" for v in value)]
        if not contract.get("source_modules", here) or (contract["type"] == "forbidden" and "protos" not in here):
            lines = lines[: lines.index(f"[importlinter:contract:{number}]")]
    config = tmp_path / "importlinter.ini"
    config.write_text("\n".join(lines) + "\n")
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--config", str(config), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
