"""Tests below this folder marked ``node`` run inside a throwaway node: as root, with real containers. Those on cri share a
node."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.world import RealWorld
from nodeagent.images.store import ImageStore
from tests.nodeagent.images.busybox import busybox_image
from tests.nodeagent.node import Node, left_overs, throwaway_node
from tests.nodeagent.runtime.kinds import OCI, Kind, containerd_node, forget_uses, nothing_left, on_cri


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on cri come first: they fork, and grpcio does not survive a fork of a process that has used it."""
    items.sort(key=lambda item: not _on_cri(item))


def _on_cri(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return parameters.get("kind") == "cri" or "cri_node" in getattr(item, "fixturenames", ())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    marker = pyfuncitem.get_closest_marker("node")
    if marker is None:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    kind = arguments.get("kind")
    place = contextlib.nullcontext(kind.node) if kind is not None and kind.node else throwaway_node(**marker.kwargs)
    with place as node:
        node.run(lambda: _inside(pyfuncitem.obj, arguments))
    if "image_root" in arguments:
        forget_uses(arguments["image_root"])
    return True


def _inside(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        if inspect.iscoroutinefunction(function):
            RealWorld().run(lambda: function(**arguments))
        else:
            function(**arguments)
    finally:
        kind = arguments.get("kind")
        if kind is not None and kind.is_cri:
            RealWorld().run(lambda: nothing_left(kind, arguments["image_root"], arguments["tmp_path"]))


@pytest.fixture(scope="session")
def cri_node(tmp_path_factory: pytest.TempPathFactory, image_root: Path) -> Iterator[Node]:
    with containerd_node(tmp_path_factory.mktemp("containerd")) as node:
        yield node


@pytest.fixture(params=["oci", "cri"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each runtime in turn. Tests on cri share a node, and leave nothing on it."""
    return OCI if request.param == "oci" else on_cri(request.getfixturevalue("cri_node"))


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An image store with ``busybox``, shared by all tests of a session."""
    root = tmp_path_factory.mktemp("images")
    busybox_image(ImageStore(root))
    yield root
    assert left_overs() == []
