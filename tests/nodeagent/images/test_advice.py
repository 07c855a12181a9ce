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

DIAL = "pinging container registry registry-1.docker.io: dial tcp: lookup registry-1.docker.io: network is unreachable"
PRESENT = ["localhost/guestbook:latest", "docker.io/library/bb:latest", "docker.io/library/redis:7"]
IMPORT = "navarch image import FILE"


@pytest.mark.parametrize(
    ("name", "failure", "parts"),
    [
        ("nginx", DIAL, ("docker.io cannot be reached from the lab: bring it in", IMPORT)),
        ("localhost/guestbok", "pinging container registry localhost", ("did you mean localhost/guestbook?",)),
        ("guestbook", DIAL, ("docker.io cannot be reached from the lab; did you mean localhost/guestbook?",)),
        ("localhost/bb", "x", ("no image of that name was built or imported; did you mean bb?",)),
        ("localhost/nothing", "x", ("no image of that name was built or imported: bring it in", IMPORT)),
        ("bb", DIAL, ("this node does: set imagePullPolicy: IfNotPresent",)),
        ("redis", DIAL, ("did you mean redis:7?",)),
        ("registry.example/app", "unauthorized: authentication required", ("unauthorized: authentication required",)),
    ],
)  # fmt: skip
def test_advice(name: str, failure: str, parts: tuple[str, ...]) -> None:
    text = advice(parse(name), PRESENT, failure)
    assert all(part in text for part in parts), text
    assert len(text) < 160 and "dial" not in text


def test_run_takes_the_image_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVARCH_HOME", str(tmp_path))
    assert _policy_of(Where(), "bb") == "", "there is no store"
    (tmp_path / "file").write_text("x")
    build(ImageStore(tmp_path / "images"), tmp_path, ["bb"], text="FROM scratch\nCOPY file /file\n")
    assert _policy_of(Where(), "bb") == _policy_of(Where(), "bb:latest") == "IfNotPresent"
    assert _policy_of(Where(), "cc") == _policy_of(Where(), "not a name") == ""
    assert _policy_of(Where(kubeconfig="/elsewhere"), "bb") == "", "another cluster has another store"
