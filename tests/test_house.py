"""The rules of the house that a machine can check: who may import whom, and that only the world knows time and chance.

A module that only exists in the real world may be allowed more in ALLOWED, with its reason; keep that list short.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
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
    "lab/health.py": {"time"},  # the same
    "lab/nodes.py": {"time"},  # notes when a node was switched on
    "lab/supervisor.py": {"time"},  # supervises real processes, without a loop
    "lab/liveness.py": {"time"},  # the same
    "lab/managed.py": {"time"},  # the same
    "nodeagent/runtime/stragglers.py": {"time"},  # lets real processes settle, in a thread
    "navarch/virtual.py": {"time", "random", "uuid"},  # is the other world, and guards time.sleep
}


def sources() -> list[Path]:
    found = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    return [path for path in found if not path.name.endswith(("_pb2.py", "_pb2_grpc.py"))]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


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
        for line, what in uses(parsed(path)):
            if what not in allowed:
                out.append(f"{name}:{line}: {what}")
    return out


def refuse(offences: Sequence[str], rule: str) -> None:
    """Fails with the rule and every offence against it, one a line."""
    assert not offences, "\n".join([rule, *offences])


def test_only_the_world_knows_time_and_chance() -> None:
    refuse(findings(), "take time and chance from a World (navarch/world.py), and sort sets before going through them:")


def test_a_refusal_names_every_offence() -> None:
    refuse([], "x")
    with pytest.raises(AssertionError) as refusal:
        refuse(["a.py:1", "b.py:2"], "say so:")
    lines = [line.strip() for line in str(refusal.value).splitlines()]
    assert lines[:3] == ["say so:", "a.py:1", "b.py:2"]


def test_the_allowlist_is_no_longer_than_it_must_be() -> None:
    for prefix, names in ALLOWED.items():
        paths = [ROOT / prefix] if not prefix.endswith("/") else sorted((ROOT / prefix).rglob("*.py"))
        used = {what for path in paths if path.exists() for _, what in uses(parsed(path))}
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


def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    out = {}
    for path in sources():
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imports(name: str, tree: ast.AST, known: dict[str, Path]) -> set[str]:
    """The modules of the house that one imports, wherever in the file and under TYPE_CHECKING, too."""
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                out |= {inner} if inner in known else {node.module} & known.keys()
    return out - {name}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle: Tarjan's strongly connected components of two or more."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    out = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(arrows[module]):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                out.append(sorted(group))

    for module in arrows:
        if module not in order:
            visit(module)
    return sorted(out)


def test_no_circle_of_files() -> None:
    known = modules()
    arrows = {name: imports(name, parsed(path), known) for name, path in known.items()}
    refuse([" ".join(circle) for circle in circles(arrows)], "these modules import each other in a circle:")


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    known = {name: Path() for name in ("a", "a.b", "c")}
    text = "from a import b\nif TYPE_CHECKING:\n    from c import D\ndef f():\n    import a"
    assert imports("x", ast.parse(text), known) == {"a", "a.b", "c"}


# What is known in one place -> a pattern of it (in the code, comments left out), and the only files that may have it.
ONCE = {
    "units of durations: navarch.api.durations": (r"[\"']ms[\"']: [\d.]", ["navarch/api/durations.py"]),
    "terminal phases: navarch.api.pods": (
        r"\(.(Succeeded.*Failed|Failed.*Succeeded).\)", ["navarch/api/pods.py"],
    ),
    "what a sidecar is: navarch.api.pods": (
        r"nit.*(restart_policy|\.get\(.restartPolicy.\)) == .Always.", ["navarch/api/pods.py"],
    ),
    "texts of preconditions: navarch.api.errors": (r"in precondition: \{", ["navarch/api/errors.py"]),
    "shares of a count: navarch.api.intstr": (r"\[:-1\]\) \* |removesuffix\(.%.\)\)", ["navarch/api/intstr.py"]),
}  # fmt: skip
NAME = re.compile(r"(?:[a-z0-9-]+\.)*(?:kubernetes|k8s)\.io/(?!v\d)[\w.-]+")


def test_what_is_known_is_known_once() -> None:
    again = []
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.partition("  # ")[0]
            for what, (pattern, places) in ONCE.items():
                if name not in places and "types/" not in name and re.search(pattern, code):
                    again.append(f"{name}:{number}: {what}")
    refuse(again, "use the one place that knows it:")


@pytest.mark.parametrize(
    "line",
    [
        'UNITS = {"ns": 1e-9, "ms": 1e-3}', 'if phase in ("Failed", "Succeeded"):', "DONE = ('Succeeded', 'Failed')",
        'x = [c for c in spec.init_containers if c.restart_policy == "Always"]',
        'sidecars = [c for c in spec["initContainers"] if c.get("restartPolicy") == "Always"]',
        'f"Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"',
        'return int(value[:-1]) * total // 100', 'return ceil(int(value.removesuffix("%")) * total / 100)',
    ],
)  # fmt: skip
def test_what_is_written_again_is_seen(line: str) -> None:
    assert [what for what, (pattern, _) in ONCE.items() if re.search(pattern, line)]


def test_well_known_names_have_one_place() -> None:
    """A label, annotation, taint or finalizer that two modules look at belongs to navarch.api.wellknown."""
    where: dict[str, set[str]] = {}
    for path in sources():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
                where.setdefault(node.value, set()).add(path.relative_to(ROOT).as_posix())
    twice = [f"{name}: {' '.join(sorted(paths))}" for name, paths in where.items() if len(paths) > 1]
    refuse(twice, "names that two modules have belong to navarch/api/wellknown.py:")


def test_limits_are_called_max_and_min() -> None:
    odd = re.compile(r"^_?(?:[A-Z0-9_]+_)?(?:MOST|LEAST|LONGEST|SHORTEST|LARGEST|SMALLEST)(?:_|\b)[A-Z0-9_, ]*=", re.M)
    files = [path.relative_to(ROOT).as_posix() for path in sources() if odd.search(path.read_text())]
    refuse(files, "limits are MAX_ and MIN_ (STYLE.md, 5):")


DOCUMENTED = [*ROOMS, "bench", "deploy", "examples"]
NOT_THE_THING = re.compile(r"\W*(?:What|Who|Whom|Whose|Somebody|Nobody)\b")


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of the docstrings of modules, classes, functions and attributes (a text right after an assignment)."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in (node for node in ast.walk(tree) if isinstance(node, holders)):
        if text := ast.get_docstring(node):
            yield node.body[0].lineno, text
        for before, after in itertools.pairwise(node.body):
            value = after.value if isinstance(after, ast.Expr) else None
            is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
            if is_text and isinstance(before, ast.Assign | ast.AnnAssign):
                yield after.lineno, value.value


def vague_docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, docstring) of those that begin with a word of NOT_THE_THING."""
    for line, text in docstrings(tree):
        if NOT_THE_THING.match(text):
            yield line, text.strip().splitlines()[0]


def test_docstrings_begin_with_the_thing() -> None:
    """STYLE.md, 1: a docstring begins with a verb or with the name of the thing. Generated types are left out."""
    vague = []
    for folder in DOCUMENTED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("navarch/api/types/"):
                found = vague_docstrings(parsed(path))
                vague += [f"{name}:{line}: {text}" for line, text in found]
    refuse(vague, "begin the docstring with a verb or the name of the thing (STYLE.md, 1):")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('"""What a pod asks for."""', [1]),
        ('def f():\n    """Whose token this is."""', [2]),
        ('class A:\n    """Nobody: pays."""', [2]),
        ('async def f():\n    """\n    Who asks.\n    """', [2]),
        ('X = 1\n"""What holds pods."""', [2]),
        ('class A:\n    x: int = 1\n    """Who asks."""', [3]),
        ('"""Whatever a pod asks for."""', []),
        ('"""Returns what a pod asks for."""\nX = "What else"', []),
    ],
)
def test_a_vague_docstring_is_seen(text: str, lines: list[int]) -> None:
    assert [line for line, _ in vague_docstrings(ast.parse(text))] == lines


MAX_TEST_LINES = 40


def test_tests_are_short() -> None:
    """CONTRIBUTING: at most 40 lines a test. What is data stands beside it, what is a step has a name."""
    long = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(parsed(path)):
            is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if is_test and (node.end_lineno or 0) - node.lineno >= MAX_TEST_LINES:
                long.append(f"{path.relative_to(ROOT / 'tests').as_posix()}: {node.name}")
    refuse(long, f"at most {MAX_TEST_LINES} lines a test (CONTRIBUTING):")


PARTICIPLES = {
    "asked", "found", "given", "gone", "held", "kept", "known", "left", "made", "seen", "taken", "told", "wanted",
}  # fmt: skip
# Path -> names that stay, or are still to be changed; the list only becomes shorter. Gone is HTTP's word for 410; left()
# of a plugin is an extension point that users implement.
STILL_PARTICIPLES: dict[str, set[str]] = {
    "navarch/api/errors.py": {"Gone"},
    "scheduler/framework/plugin.py": {"left"},
    "scheduler/state/nodes.py": {"left"},
}


def bindings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of all that a module gives a name: functions, classes, parameters, variables, attributes, imports."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def participles(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of names that are past participles. ``left`` may stand beside ``right``: then it is a side."""
    names = list(bindings(tree))
    rights = [line for line, name in names if name == "right"]
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)] if rights else []
    spans = [(f.lineno, f.end_lineno or f.lineno) for f in functions]
    sides = [(first, last) for first, last in spans if any(first <= line <= last for line in rights)]
    for line, name in names:
        is_side = name == "left" and any(first <= line <= last for first, last in sides)
        if name.strip("_").lower() in PARTICIPLES and not is_side:
            yield line, name


def test_no_past_participles_as_names() -> None:
    """STYLE.md, 5: a name says what a thing is (a pod, the cached answer), not that it was found or told."""
    offences, over = [], {name: set(names) for name, names in STILL_PARTICIPLES.items()}
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for line, word in participles(parsed(path)):
            if word in STILL_PARTICIPLES.get(name, ()):
                over[name].discard(word)
            else:
                offences.append(f"{name}:{line}: {word}")
    refuse(offences, "name the thing, not what was done with it (STYLE.md, 5):")
    gone = [f"{name}: {' '.join(sorted(words))}" for name, words in over.items() if words]
    refuse(gone, "no longer there: take them off STILL_PARTICIPLES:")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("found = 1", ["found"]),
        ("def f(wanted, *, told=1): pass", ["wanted", "told"]),
        ("class Held:\n    kept: int\n    def gone(self): self._seen = 1", ["Held", "kept", "gone", "_seen"]),
        ("for left in x: pass\nwith a as taken: pass\nif (made := 1): pass", ["left", "taken", "made"]),
        ("import a as known\ntry: pass\nexcept E as asked: pass", ["known", "asked"]),
        ("match a:\n    case [given, *held]: pass", ["given", "held"]),
        ("def f(left, right): pass\ndef g():\n    left, right = 1, 2", []),
        ("def f():\n    left = 1\nright = 1", ["left"]),
        ("is_gone = x.found = found_pods = unseen = asks(known)", ["found"]),
    ],
)
def test_a_past_participle_is_seen(text: str, names: list[str]) -> None:
    assert sorted(name for _, name in participles(ast.parse(text))) == sorted(names)


def test_arrows_point_down() -> None:
    """import-linter's contracts in pyproject.toml hold: between the rooms, and between the floors inside them."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
