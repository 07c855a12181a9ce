"""Tests of this folder marked ``node`` run inside a throwaway node: as root, with real containers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navarch.world import RealWorld
from nodeagent.images.store import ImageStore
from tests.nodeagent.images.busybox import busybox_image
from tests.nodeagent.node import left_overs, throwaway_node


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    marker = pyfuncitem.get_closest_marker("node")
    if marker is None:
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    with throwaway_node(**marker.kwargs) as node:
        if inspect.iscoroutinefunction(pyfuncitem.obj):
            node.run(lambda: RealWorld().run(lambda: pyfuncitem.obj(**arguments)))
        else:
            node.run(lambda: pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(scope="session")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An image store with ``busybox``, shared by all tests of a session."""
    root = tmp_path_factory.mktemp("images")
    busybox_image(ImageStore(root))
    yield root
    assert left_overs() == []
