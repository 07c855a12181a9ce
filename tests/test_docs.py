"""What the docs mention exists: files, links, modules, commands with their options, settings of components."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.options import App
from tests.recipes import changed_files

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "STYLE.md", ROOT / "examples" / "README.md"]
DOCS = [*PAGES, *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}

LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
QUOTED = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.M | re.S)
SETTING = re.compile(r"\b(apiserver|controllers|scheduler|agent|proxy)\.([a-z]+(?:-[a-z]+)+)\b")


def quoted(text: str) -> Iterator[str]:
    """Everything between backticks, in one line or several."""
    for match in QUOTED.finditer(BLOCK.sub("", text)):
        yield match[1]


def commands(text: str) -> Iterator[str]:
    """Command lines: quoted ones, and those after a prompt in a block."""
    yield from quoted(text)
    for block in BLOCK.finditer(text):
        for line in block[1].splitlines():
            yield re.sub(r"\s+# .*", "", line.removeprefix("# ").removeprefix("$ ").strip())


@pytest.fixture(scope="module")
def cli() -> App:
    from cli.main import COMMANDS, build

    whole = App()
    for name in (name for commands in COMMANDS.values() for name in commands):
        whole.commands[name] = build(name).commands[name]
    return whole


def test_help_shows_what_the_commands_say_of_themselves(cli: App) -> None:
    from cli.main import COMMANDS

    for commands in COMMANDS.values():
        for name, (_, shown) in commands.items():
            own = cli.commands[name].help.partition("\n")[0]
            assert own == shown, f"{name}: COMMANDS in cli/main.py says {shown!r}, the function's docstring {own!r}"


def test_no_command_is_in_two_parts_of_the_help() -> None:
    from cli.main import COMMANDS

    names = [name for commands in COMMANDS.values() for name in commands]
    assert len(names) == len(set(names))


def test_every_module_of_verbs_is_in_the_table_of_commands() -> None:
    from cli.main import COMMANDS

    listed = {module for commands in COMMANDS.values() for module, _ in commands.values()}
    modules = {path.stem for path in (ROOT / "cli" / "verbs").glob("*.py") if re.search("^app = App", path.read_text(), re.M)}
    missing = sorted(modules - listed)
    assert not missing, f"COMMANDS in cli/main.py lists no command of cli/verbs/{', '.join(missing)}"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_files_exist(path: Path) -> None:
    text = path.read_text()
    missing = [target for target in LINK.findall(text) if not (path.parent / target).exists()]
    for word in quoted(text):
        name = word.rstrip("/")
        if re.fullmatch(r"[\w.-]+(/[\w.*-]+)+", name) and name.split("/")[0] in FOLDERS and not list(ROOT.glob(name)):
            missing.append(word)
    assert not missing


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_exist(path: Path, cli: App) -> None:
    unknown = []
    for line in commands(path.read_text()):
        words = line.split()
        if words[:2] == ["python", "-m"] and len(words) > 2 and words[2].split(".")[0] in FOLDERS:
            if importlib.util.find_spec(words[2]) is None:
                unknown.append(line)
        elif words and words[0].startswith("deploy/") and not (ROOT / words[0]).exists():
            unknown.append(line)
        elif words and words[0].removeprefix(".venv/bin/") == "navarch" and (why := _unknown(cli, words[1:])):
            unknown.append(f"{line}: {why}")
    assert not unknown


def _unknown(command: object, words: list[str]) -> str:
    """What of a navarch command line does not exist; "" if all does."""
    for word in [w for w in words if not w.startswith("-")]:
        known = getattr(command, "commands", None)
        if known is None:
            break
        if word.strip("[],.;") not in known:
            return word
        command = known[word.strip("[],.;")]
    options = {name for parameter in getattr(command, "params", ()) for name in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"-h", "--help"}
    return next((w for w in words if w.startswith("-") and w != "-" and w.split("=")[0].strip("[]") not in options), "")


def test_every_command_is_read() -> None:
    """The checks above find what they look for."""
    assert "navarch down --purge" in list(quoted("x `navarch down --purge` y"))
    assert list(commands("```\n# navarch up   # start\n```\n")) == ["navarch up"]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_settings_exist(path: Path) -> None:
    from lab.settings import MODULES, known_settings

    known = {component: known_settings(component) for component in MODULES}
    missing = [f"{owner}.{flag}" for owner, flag in SETTING.findall(path.read_text()) if flag not in known[owner]]
    assert not missing


def test_every_command_is_in_the_list_of_what_is_supported(cli: App) -> None:
    missing = sorted(set(cli.commands) - set(quoted((ROOT / "docs/supported.md").read_text())))
    assert not missing, f"docs/supported.md does not name the command {', '.join(missing)}"


def test_every_kind_that_is_served_is_in_the_list_of_what_is_supported() -> None:
    from apiserver.catalog import catalog
    from apiserver.storage.memory import MemoryStore
    from navarch.world import RealWorld

    world = RealWorld()
    listed = set(re.findall(r"\w+", (ROOT / "docs/supported.md").read_text()))
    kinds = {strategy.kind.kind for strategy in catalog(world, MemoryStore(world)).values()}
    missing = sorted(kinds - listed)
    assert not missing, f"docs/supported.md does not name the kind {', '.join(missing)}"


def test_every_admission_plugin_is_in_the_list_of_what_is_supported() -> None:
    plugins = re.findall(r'^        "(\w+)": ', (ROOT / "apiserver/admission/plugins/order.py").read_text(), re.M)
    assert len(plugins) > 25
    missing = sorted(set(plugins) - set(re.findall(r"\w+", (ROOT / "docs/supported.md").read_text())))
    assert not missing, f"docs/supported.md does not name the admission plugin {', '.join(missing)}"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_of_this_machine_is_in_the_docs(path: Path) -> None:
    text = path.read_text()
    assert not re.findall(r"/work/\S*|docker\.io/\S+|/tmp/\S*", text)
    for block in BLOCK.finditer(text):
        for line in block[1].splitlines():
            if line.startswith(("# navarch", "$ navarch")):
                shlex.split(line[2:].split("  #")[0])  # can be pasted


def test_recipes_change_lines_that_are_there() -> None:
    assert changed_files()  # tests/test_recipes.py makes the changes and runs their tests


def test_decisions_are_numbered_in_order() -> None:
    text = (ROOT / "docs" / "decisions.md").read_text()
    numbers = [int(n) for n in re.findall(r"^\*\*D(\d+) \(\d{4}-\d\d-\d\d\)\. ", text, re.M)]
    paragraphs = re.findall(r"^\*\*", text, re.M)
    assert numbers == sorted(set(numbers)) and len(numbers) == len(paragraphs)


def test_where_names_what_is_there() -> None:
    """docs/where.md: each file exists and defines the name beside it."""
    rows = re.findall(r"^\| (.+) \| `(\S+)` \| (?:`(\w+)`)? ?\|$", (ROOT / "docs" / "where.md").read_text(), re.M)
    assert len(rows) >= 150
    missing = []
    for term, path, name in rows:
        file = ROOT / path
        if not file.exists():
            missing.append(f"{term}: no file {path}")
        elif name and not re.search(rf"^\s*(?:async )?(?:def|class) {name}\b", file.read_text(), re.M):
            missing.append(f"{term}: {path} does not define {name}")
    assert not missing, "\n".join(missing)
