"""One lab for all end-to-end tests: three nodes, fast failover, the guestbook."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import ROOT, Lab, traces, wait_for

GUESTBOOK = ROOT / "deploy" / "guestbook"
FRONTEND = "localhost/guestbook-frontend"
REDIS = "localhost/guestbook-redis:v1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A NAVARCH_HOME of the session's own, with the guestbook's images in it."""
    path = tmp_path_factory.mktemp("home")
    build = ("image", "build", "--quiet")
    lab = Lab(path)
    lab.navarch(*build, "-t", REDIS, str(GUESTBOOK / "redis"))
    for version in ("v1", "v2"):
        words = ("-t", f"{FRONTEND}:{version}", "--build-arg", f"VERSION={version}", str(GUESTBOOK / "frontend"))
        lab.navarch(*build, *words)
    return path


@pytest.fixture(scope="session")
def lab(home: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The lab that the tests share; each leaves it whole, with the guestbook running."""
    lab = Lab(home, "e2e")
    try:
        lab.up("--nodes", "3", "--failover", "fast")
        yield lab
    finally:
        if request.session.testsfailed:
            shutil.copytree(lab.directory / "logs", home / "logs", dirs_exist_ok=True)
        index = lab.index
        lab.navarch("down", "--purge")
        assert traces(lab, index) == []


@pytest.fixture
def patient(lab: Lab) -> Iterator[Lab]:
    """The lab, whose nodes may be silent for as long as Kubernetes lets them: 4 s pass before an agent that is killed on a
    busy machine is heard again, and its pods would be evicted."""
    grace = "controllers.node-monitor-grace-period"
    lab.up("--set", f"{grace}=40s")
    yield lab
    lab.up("--unset", grace)


@pytest.fixture(scope="session")
def _guestbook(lab: Lab) -> None:
    guestbook_up(lab)


@pytest.fixture
def guestbook(lab: Lab, _guestbook: None) -> Lab:
    """The lab with the guestbook as its manifests say: three front ends of v1, a leader and two followers, all ready."""
    guestbook_up(lab)
    return lab


def guestbook_up(lab: Lab) -> None:
    """Applies the guestbook and waits until it is whole and nothing else is left of earlier tests."""
    lab.kubectl("apply", "-f", str(GUESTBOOK / "manifests"))
    for name in ("redis-leader", "redis-follower", "frontend"):
        lab.kubectl("rollout", "status", f"deployment/{name}", "--timeout=90s")
    wait_for(lambda: len(lab.get("pods")["items"]) == 6, "old pods are gone", 60)
