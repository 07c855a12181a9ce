"""Clusters on virtual time: they do what a cluster does, and twice the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.simulation import Simulation
from navarch.api.types import core_v1
from tests.lab import canary

ROOT = Path(__file__).parent.parent.parent


def history(seed: int, hash_seed: int) -> bytes:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.lab.canary", str(seed)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_canary_repeats_byte_for_byte() -> None:
    """Deploy, roll, lose a node: two processes with different hash seeds tell the same history."""
    first = history(7, 1)
    assert first.count(b"\n") > 200
    assert history(7, 2) == first
    assert history(8, 1) != first


def test_a_partitioned_node_keeps_its_pods_and_lets_them_go_after_heal() -> None:
    async def scenario(cluster: Simulation) -> None:
        await cluster.apply(canary.WEB)
        await cluster.run_until(lambda: cluster.ready_pods() == 6, 60)
        cut = cluster.objects(core_v1.Pod)[0].spec.node_name or ""
        before = cluster.fleet.running(cut)
        assert before
        cluster.partition(cut)
        await cluster.run_until(lambda: canary.elsewhere(cluster, cut) == 6, 200)
        assert cluster.fleet.running(cut) == before  # nobody told it
        cluster.heal(cut)
        await cluster.run_until(lambda: not cluster.fleet.running(cut), 60)
        await cluster.run_until(lambda: len(cluster.objects(core_v1.Pod)) == 6 == cluster.ready_pods(), 60)

    Simulation(3, nodes=3, checks=True).run(scenario)


def test_crashed_components_lose_nothing() -> None:
    async def scenario(cluster: Simulation) -> None:
        cluster.crash("scheduler")
        await cluster.apply(canary.WEB)
        await cluster.run_until(lambda: len(cluster.objects(core_v1.Pod)) == 6, 30)
        cluster.crash("controllers")
        cluster.start("scheduler")
        await cluster.run_until(lambda: cluster.ready_pods() == 6, 60)
        await cluster.client[core_v1.Pod].delete(cluster.objects(core_v1.Pod)[0].metadata.name or "", "default")
        await cluster.run_until(lambda: len(cluster.objects(core_v1.Pod)) == 5, 60)
        cluster.start("controllers")
        await cluster.run_until(lambda: cluster.ready_pods() == 6, 60)

    Simulation(4, checks=True).run(scenario)


def test_waiting_in_vain_shows_the_cluster() -> None:
    async def scenario(cluster: Simulation) -> None:
        with pytest.raises(TimeoutError, match=r"(?s)not within 5 s of virtual time: pigs fly.*node node-1 ready=True"):
            await cluster.run_until(lambda: False, 5, "pigs fly")

    Simulation(nodes=1).run(scenario)


def test_the_example_in_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "simulation.md").read_text()
    for block in text.split("```python\n")[1:]:
        names = {"Simulation": Simulation}
        exec(compile(block.partition("```")[0], "docs/simulation.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "is NotReady" in shown and "three pods are ready again" in shown
