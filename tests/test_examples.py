"""Every example runs, and prints what it says it prints."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from navarch.api.types import core_v1, meta_v1
from navarch.client.client import Client
from navarch.world import World
from tests.controllers.cluster import Cluster, run_cluster

EXAMPLES = Path(__file__).parent.parent / "examples"


def output(name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=300,
        env={"PYTHONPATH": str(EXAMPLES.parent), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), EXAMPLES / name)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_an_experiment_from_python() -> None:
    """Packing turns away fewer pods than the default, and the table says so."""
    lines = output("04_an_experiment_from_python.py").splitlines()
    turned_away = {line.split()[0]: float(line.split()[1]) for line in lines[2:-1]}
    assert len(turned_away) == 5 and turned_away["swarm-binpack"] < turned_away["default"]
    assert lines[-1].startswith("{'busiest': 0.")


def test_first_simulation() -> None:
    assert "rolled out in 4.1 s of virtual time; never fewer than 5 pods ready" in output("01_first_simulation.py")


def test_when_a_node_dies() -> None:
    lines = output("02_when_a_node_dies.py").splitlines()
    assert [line.split()[1] for line in lines] == ["300", "30", "0"]
    assert [line.split()[-2] for line in lines] == ["340", "70", "40"]


def test_a_controller_of_your_own(capsys: pytest.CaptureFixture[str]) -> None:
    example = module("03_a_controller_of_your_own.py")

    async def scenario(cluster: Cluster) -> None:
        client: Client = cluster.client
        world: World = cluster.world
        async with world.task_group() as group:
            running = group.start(example.run(client, world))
            labelled = meta_v1.ObjectMeta(name="blue", labels={"team": "blue"})
            await client[core_v1.Namespace].create(core_v1.Namespace(metadata=labelled))

            async def named() -> core_v1.ConfigMap | None:
                maps = await client[core_v1.ConfigMap].list("blue")
                return next((m for m in maps.items if m.metadata.name == "team"), None)

            team = await cluster.until(named)
            assert team.data == {"team": "blue"}
            running.cancel()

    run_cluster(scenario)
    assert "namespace blue: belongs to blue" in capsys.readouterr().out


def test_all_examples_are_tried() -> None:
    """05_fake_gpus.py is tried in tests/nodeagent/test_devices.py, 06_a_csi_driver.py in tests/nodeagent/csi."""
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("[0-9]*.py"):
        assert path.name in text, f"{path.name} has no test"


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {}}]
contexts: [{name: none, context: {cluster: none, user: me}}]
current-context: none
"""


def test_the_controller_waits_for_its_server_until_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    command = [sys.executable, str(EXAMPLES / "03_a_controller_of_your_own.py")]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(EXAMPLES.parent), "PATH": "/usr/bin:/bin", "KUBECONFIG": str(tmp_path / "kubeconfig")},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "Connection refused; trying again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 0
