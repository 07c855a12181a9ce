"""Command lines: flags as people write them for kubectl, and complaints of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest

from cli import helppages
from cli.options import App, Argument, HelpAsked, Option, UsageError, completions

app = App(help="Things.")
group = App(help="More things.")
app.add_group(group, "more")
calls: list[dict[str, Any]] = []


@app.command()
def make(
    name: Annotated[str, Argument("NAME")],
    words: Annotated[list[str] | None, Argument("[WORD...]")] = None,
    output: Annotated[str, Option("-o", "--output", metavar="json|yaml", help="How.")] = "",
    count: Annotated[int | None, Option(min=0, help="How many.")] = None,
    wait: Annotated[bool, Option("--wait/--no-wait", help="Until it is there.")] = True,
    tty: Annotated[bool, Option("-t", "--tty", help="With a terminal.")] = False,
    stdin: Annotated[bool, Option("-i", "--stdin", help="With input.")] = False,
    label: Annotated[list[str] | None, Option("-l", "--label", help="A label.")] = None,
    dry_run: Annotated[str, Option("--dry-run", help="Say only.")] = "",
    file: Annotated[Path | None, Option("-f", help="A file.")] = None,
    place: Annotated[str, Option("--place", envvar="TEST_PLACE", help="Where.")] = "here",
) -> None:
    """Make a thing: make x.

    And more of it.
    """
    calls.append(dict(locals()))


@group.command("of-two")
def of_two(first: Annotated[str, Argument("FIRST")], last: Annotated[str, Argument("LAST")]) -> None:
    """Take two."""


def parsed(*words: str) -> dict[str, Any]:
    command = app.commands["make"]
    assert not isinstance(command, App)
    return command.parse(["x", *words])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-o", "json"], {"output": "json"}), (["-o=json"], {"output": "json"}), (["-ojson"], {"output": "json"}),
        (["--output", "json"], {"output": "json"}), (["--output=a=b"], {"output": "a=b"}), (["--output="], {"output": ""}),
        (["-it"], {"stdin": True, "tty": True}), (["-ti"], {"stdin": True, "tty": True}),
        (["-tojson"], {"tty": True, "output": "json"}),
        (["--wait=false"], {"wait": False}), (["--wait=True"], {"wait": True}), (["--no-wait"], {"wait": False}),
        (["--no-wait=false"], {"wait": True}), (["-t=false"], {"tty": False}),
        (["--dry-run"], {"dry_run": "client"}), (["--dry-run", "y"], {"dry_run": "client", "words": ["y"]}),
        (["--dry-run=server"], {"dry_run": "server"}),
        (["-l", "a", "--label=b"], {"label": ["a", "b"]}), (["--count=0"], {"count": 0}),
        (["y", "-t", "z"], {"words": ["y", "z"], "tty": True}), (["--", "-t", "--", "z"], {"words": ["-t", "--", "z"]}),
        (["-"], {"words": ["-"]}), (["-f", "-"], {"file": Path("-")}), (["-f", "a b"], {"file": Path("a b")}),
    ],
)  # fmt: skip
def test_what_words_mean(words: list[str], expected: dict[str, Any]) -> None:
    assert {key: value for key, value in parsed(*words).items() if key in expected} == expected


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--colour"], "unknown flag: --colour"), (["-x"], "unknown shorthand flag: -x"),
        (["-tx"], "unknown shorthand flag: -x"),
        (["-o"], "flag needs an argument: -o"), (["--count=many"], 'invalid argument "many" for "--count": say a whole number'),
        (["--count=-1"], 'invalid argument "-1" for "--count": the least is 0'),
        (["--wait=perhaps"], 'invalid argument "perhaps" for "--wait": say true or false'),
    ],
)  # fmt: skip
def test_what_is_wrong(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*words)
    assert str(caught.value) == text


def test_places(capsys: pytest.CaptureFixture[str]) -> None:
    for words, text in ((["a"], "missing argument LAST"), (["a", "b", "c"], 'unexpected argument: "c"')):
        with pytest.raises(SystemExit) as end:
            app.run(["more", "of-two", *words], "navarch")
        assert end.value.code == 1
        assert capsys.readouterr().err == f"error: {text}\nSee 'navarch more of-two --help' for usage.\n"


def test_what_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parsed()["place"] == "here" and parsed()["words"] is None
    monkeypatch.setenv("TEST_PLACE", "there")
    assert parsed()["place"] == "there" and parsed("--place=x")["place"] == "x"


def test_a_command_is_called() -> None:
    app.run(["make", "x", "--count", "3"], "navarch")
    assert calls[-1]["name"] == "x" and calls[-1]["count"] == 3


@pytest.mark.parametrize("words", [["make", "--help"], ["make", "x", "-h"], ["make", "--nonsense", "-h"]])
def test_help_tells_all(words: list[str]) -> None:
    with pytest.raises(HelpAsked) as asked:
        app.run(words, "navarch")
    page = helppages.page(asked.value)
    parts = ("Usage: navarch make [OPTIONS] NAME [WORD...]", "And more of it.", "-o, --output json|yaml", "--wait, --no-wait")
    for part in parts:
        assert part in page
    assert "[default: here]" in page and "\x1b" not in page


def test_help_after_two_dashes_is_the_commands_own() -> None:
    app.run(["make", "x", "--", "ls", "--help"], "navarch")
    assert calls[-1]["words"] == ["ls", "--help"]


def test_a_command_that_is_not_there_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app.run(["more", "of-tw"], "navarch")
    assert 'unknown command "of-tw" for "navarch more"; did you mean of-two?' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([""], ["more", "make"]), (["ma"], ["make"]), (["more", ""], ["of-two"]), (["make", "--o"], ["--output"]),
        (["make", "-o", "j"], ["json"]), (["nothing", ""], []), (["make", "x", "--nonsense", "--pl"], ["--place"]),
    ],
)  # fmt: skip
def test_completion(words: list[str], expected: list[str]) -> None:
    assert completions(app, words) == expected
