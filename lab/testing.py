"""A pytest plugin: clusters as fixtures.

    pytest_plugins = ["lab.testing"]              # in the outermost conftest.py, or: pytest -p lab.testing

    @pytest.mark.cluster(nodes=5, seed=7)         # the arguments of lab.Cluster; three nodes without it
    def test_web_survives_a_node(cluster):
        cluster.apply(WEB)
        cluster.wait("available(deployment/web)")
        cluster.fault(power_off="node-of:deployment/web")
        cluster.run(600)
        assert cluster.measure(low="min(ready(deployment/web))")["low"] >= 2

Time is virtual, and a test repeats exactly. With ``--cluster-mode hollow`` or ``real`` the same tests get labs, in which time
is the wall clock's (``mode="real"`` in the mark is for one test). A test that fails shows nodes and pods as they were then;
with ``--cluster-recordings DIR`` the recording of each test is written there, for ``navarch experiment diff`` and pandas.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lab.interactive.cluster import Cluster

MARKER = "cluster"
MODES = ("simulated", "hollow", "real")
_OF_TEST = pytest.StashKey["Cluster"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("navarch")
    group.addoption(
        "--cluster-mode", metavar="MODE", default="simulated", choices=MODES,
        help=f"mode of the clusters of tests whose mark has none: {', '.join(MODES)}; default: %(default)s",
    )  # fmt: skip
    group.addoption("--cluster-recordings", metavar="DIR", default="", help="write the recording of each test's cluster there")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster(nodes=3, seed=1, ...): the arguments of lab.Cluster for the fixture `cluster`")


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of this test's own."""
    from lab.interactive.cluster import Cluster

    marker = request.node.get_closest_marker(MARKER)
    arguments: dict[str, Any] = {"mode": request.config.getoption("--cluster-mode"), **(marker.kwargs if marker else {})}
    with Cluster(*(marker.args if marker else ()), **arguments) as one:
        request.node.stash[_OF_TEST] = one
        yield one
        if folder := request.config.getoption("--cluster-recordings"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = re.sub(r"[^\w.-]+", "-", request.node.nodeid.replace(".py::", "."))
            one.save(Path(folder) / f"{name}.jsonl.gz")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Adds a picture of the cluster to the report of a test that failed."""
    report = yield
    if report.when == "call" and report.failed and (one := item.stash.get(_OF_TEST, None)) is not None:
        report.sections.append(("cluster", str(one)))
    return report
