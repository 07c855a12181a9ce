"""Small helpers of the kinds' tests."""

from __future__ import annotations

from typing import Any

import yaml

from apiserver.catalog import catalog
from apiserver.registry.strategy import Strategy
from apiserver.request import LOOPBACK, Context, RequestInfo
from apiserver.storage.memory import MemoryStore
from navarch.world import RealWorld

Tree = dict[str, Any]
WORLD = RealWorld()
CONTEXT = Context(WORLD, LOOPBACK, RequestInfo("create", "/"))


def make_catalog() -> dict[tuple[str, str], Strategy]:
    return catalog(WORLD, MemoryStore())


CATALOG = make_catalog()


def tree(text: str) -> Tree:
    obj: Tree = yaml.safe_load(text)
    obj.setdefault("metadata", {})
    return obj


def strategy(resource: str, group: str = "") -> Strategy:
    return CATALOG[group, resource]


def created(strategy: Strategy, obj: Tree) -> Tree:
    """As the registry prepares a new object."""
    strategy.default(obj)
    strategy.prepare_create(CONTEXT, obj)
    strategy.default(obj)
    return obj


def problems(strategy: Strategy, obj: Tree) -> list[str]:
    return [c.text() for c in strategy.validate(created(strategy, obj))]


def pod(**spec: Any) -> Tree:
    base = {"containers": [{"name": "a", "image": "nginx"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, "spec": base | spec}
