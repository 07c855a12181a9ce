"""What is said of an image that cannot be pulled, and which policy `navarch run` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.verb import Where
from cli.verbs.run_expose_autoscale import _policy_of
from nodeagent.images.advice import advice
from nodeagent.images.build import build
from nodeagent.images.reference import parse
from nodeagent.images.store import ImageStore

DIAL = "registry-1.docker.io: no such host"
OFF = "registry-1.docker.io is not asked: egress of this lab is off; to allow it: navarch up --egress on"
PRESENT = ["localhost/guestbook:latest", "docker.io/library/bb:latest", "docker.io/library/redis:7"]
IMPORT = "navarch image load FILE"


@pytest.mark.parametrize(
    ("name", "failure", "parts"),
    [
        ("nginx", DIAL, (DIAL, "to bring it in", IMPORT)),
        ("nginx", OFF, (OFF, "to bring it in", IMPORT)),
        ("localhost/guestbok", "pinging container registry localhost", ("did you mean localhost/guestbook?",)),
        ("guestbook", DIAL, (f"{DIAL}; did you mean localhost/guestbook?",)),
        ("localhost/bb", "x", ("no image of that name was built or imported; did you mean bb?",)),
        ("localhost/nothing", "x", ("no image of that name was built or imported; to bring it in", IMPORT)),
        ("bb", DIAL, ("the image is here: set imagePullPolicy: IfNotPresent",)),
        ("redis", DIAL, ("did you mean redis:7?",)),
        ("registry.example/app", "unauthorized: authentication required", ("unauthorized: authentication required",)),
    ],
)  # fmt: skip
def test_advice(name: str, failure: str, parts: tuple[str, ...]) -> None:
    text = advice(parse(name), PRESENT, failure)
    assert all(part in text for part in parts), text
    assert len(text) < 190


def test_run_takes_the_image_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    assert _policy_of(Where(), "bb") == "", "there is no store"
    (tmp_path / "file").write_text("x")
    build(ImageStore(tmp_path / "images"), tmp_path, ["bb"], text="FROM scratch\nCOPY file /file\n")
    assert _policy_of(Where(), "bb") == _policy_of(Where(), "bb:latest") == "IfNotPresent"
    assert _policy_of(Where(), "cc") == _policy_of(Where(), "not a name") == ""
    assert _policy_of(Where(kubeconfig="/elsewhere"), "bb") == "", "another cluster has another store"
