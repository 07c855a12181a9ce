"""Whether a node table is what its nodes and pods alone would make of it: compared with one that is built anew."""

from __future__ import annotations

from typing import Any

import numpy as np

from scheduler.state.nodes import NodeTable


def check_table(table: NodeTable) -> None:
    """Raises AssertionError naming what differs. For tests and simulations: it costs as much as starting anew."""
    rows = table.rows
    for name, row in rows.items():
        node = table.nodes[row]
        assert node is not None and node.metadata.name == name and table.valid[row], f"row {row} is not {name}'s"
        assert table.names()[row] == name, f"row {row} is named {table.names()[row]}"
    assert int(table.valid.sum()) == len(rows), "a row without a node counts as one"
    assert sorted([*rows.values(), *table.free]) == list(range(table.used)), "a row is lost, or given out twice"
    for uid, (pod, where) in table.pods.items():
        assert table.by_node.get(where, {}).get(uid) is pod, f"{pod.key} is not on {where}"
    assert sum(map(len, table.by_node.values())) == len(table.pods), "a pod is on two nodes"

    fresh = NodeTable()
    fresh.topology.namespaces = table.topology.namespaces
    for name, row in rows.items():
        current = table.nodes[row]
        assert current is not None, name
        fresh.set_node(current)
    for pod, where in table.pods.values():
        fresh.add_pod(pod, where)
    _compare(table, fresh)


def _compare(table: NodeTable, fresh: NodeTable) -> None:
    here = [table.rows[name] for name in table.rows]
    there = [fresh.rows[name] for name in table.rows]
    back = dict(zip(there, here, strict=True))

    def same(what: str, mine: Any, new: Any) -> None:
        old_values = mine[here] if mine is not None else 0
        new_values = new[there] if new is not None else 0
        assert np.array_equal(np.broadcast_to(old_values, len(here)), np.broadcast_to(new_values, len(here))), what

    for resource in {**table.allocatable, **fresh.allocatable}:
        same(f"allocatable {resource}", table.allocatable.get(resource), fresh.allocatable.get(resource))
    for resource in {**table.requested, **fresh.requested}:
        same(f"requested {resource}", table.requested.get(resource), fresh.requested.get(resource))
    for priority in {**table.by_priority, **fresh.by_priority}:
        mine, new = table.by_priority.get(priority, {}), fresh.by_priority.get(priority, {})
        for resource in {**mine, **new}:
            same(f"requested {resource} at priority {priority}", mine.get(resource), new.get(resource))
    same("cpu as scored", table.nonzero_cpu, fresh.nonzero_cpu)
    same("memory as scored", table.nonzero_memory, fresh.nonzero_memory)
    same("unschedulable", table.unschedulable, fresh.unschedulable)
    ports = {p: {back[r]: sorted(ips) for r, ips in rows.items()} for p, rows in fresh.ports.items()}
    assert {p: {r: sorted(ips) for r, ips in rows.items()} for p, rows in table.ports.items()} == ports, "host ports"
    images = {name: {back[r]: size for r, size in rows.items()} for name, rows in fresh.images.items()}
    assert table.images == images, "images"
    claims = {claim: {back[r]: n for r, n in rows.items()} for claim, rows in fresh.volumes.usage.claims.items()}
    assert table.volumes.usage.claims == claims, "claims"
    for key, column in table.topology._matching.columns.items():
        same(f"pods that match {key}", column, fresh.topology.matching(key))
    own_terms, fresh_terms = table.topology._terms.columns, fresh.topology._terms.columns
    assert own_terms.keys() == fresh_terms.keys(), "terms that pods have"
    for pod_term, column in own_terms.items():
        same(f"pods that have {pod_term}", column, fresh_terms[pod_term])
