"""Every kind that is served, with its strategy. A kind that is not listed here does not exist: discovery is silent
about it and its paths answer 404."""

from __future__ import annotations

from apiserver.registry.configdata import ConfigMapStrategy, SecretStrategy
from apiserver.registry.namespaces import NamespaceStrategy
from apiserver.registry.nodes import NodeStrategy
from apiserver.registry.pods.strategy import PodStrategy
from apiserver.registry.strategy import Strategy


def catalog() -> dict[tuple[str, str], Strategy]:
    """(group, resource) -> strategy."""
    strategies: list[Strategy] = [
        NamespaceStrategy(),
        NodeStrategy(),
        PodStrategy(),
        ConfigMapStrategy(),
        SecretStrategy(),
    ]
    return {(s.kind.group, s.kind.resource): s for s in strategies}
