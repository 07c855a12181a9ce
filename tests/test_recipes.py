"""docs/recipes.md: its changes, made in a copy of the repository, pass the tests that they bring and those that count names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes import ROOT, changed_files

# Tests that every new kind, controller, plugin or command has to please.
ALWAYS = (
    "tests/apiserver/kinds/test_columns.py",
    "tests/apiserver/kinds/test_kinds.py",
    "tests/apiserver/kinds/test_lifecycle.py",
    "tests/apiserver/kinds/test_no_change.py::test_every_kind_has_a_sample",
    "tests/test_docs.py",
)
NAMES = "DeviceClass, `whoruns`, DenyLatestTag"  # to be said in docs/supported.md


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with all recipes followed."""
    root = tmp_path_factory.mktemp("recipes") / "navarch"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".?*", "*.egg-info"))
    for path, text in changed_files().items():
        file = root / path
        if not file.parent.exists():
            file.parent.mkdir()
            (file.parent / "__init__.py").touch()
        file.write_text(text)
    return root


def _run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=300)


def test_the_code_of_the_recipes_passes_lint(checkout: Path) -> None:
    done = _run(checkout, "ruff", "check", *(path for path in changed_files() if path.endswith(".py")))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_forgotten_line_in_the_list_of_what_is_supported_is_named(checkout: Path) -> None:
    done = _run(checkout, "pytest", "-q", "-k", "is_in_the_list_of_what_is_supported", "tests/test_docs.py")
    for complaint in ("the kind DeviceClass", "the command whoruns", "the admission plugin DenyLatestTag"):
        assert f"docs/supported.md does not name {complaint}" in done.stdout, done.stdout


def test_the_tests_of_the_recipes_pass(checkout: Path) -> None:
    supported = checkout / "docs" / "supported.md"
    supported.write_text(f"{supported.read_text()}\n{NAMES}\n")
    own = [path for path in changed_files() if path.startswith("tests/") and path.endswith(".py") and path not in ALWAYS]
    # The page is not to be followed a second time.
    done = _run(checkout, "pytest", "-q", "-k", "not test_recipes_change_lines", *ALWAYS, *own)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert "skipped" not in done.stdout
