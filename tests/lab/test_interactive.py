"""Clusters from notebooks and tests: plain calls, virtual time that stands still between them, a pytest plugin."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import Cluster, Recording
from lab.experiments.expressions import ExpressionError
from lab.experiments.file import Step
from lab.experiments.schema import WrongFile
from navarch.api.errors import NotFound

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:v1", resources: {requests: {cpu: "1"}}}]}
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """With two replicas that are ready; a test puts back what it changes."""
    with Cluster(3, heartbeats="elided", behaviour={"default": {"start": "2s"}}) as cluster:
        cluster.apply(WEB)
        cluster.wait("available(deployment/web)")
        yield cluster


def test_time_stands_still_between_calls(shared: Cluster):
    before = shared.now
    assert shared.ask("ready(deployment/web)") == 2 and shared.now == before
    shared.run(10)
    assert shared.now == pytest.approx(before + 10)


def test_objects_by_any_name_of_their_kind(shared: Cluster, tmp_path: Path):
    assert shared.get("deploy/web")["status"]["readyReplicas"] == 2 == shared.get("deployments.apps/web")["spec"]["replicas"]
    assert len(shared.list("pods", selector="app=web")) == 2 and shared.list("po", namespace="kube-system") == []
    assert {n["metadata"]["name"] for n in shared.list("nodes", None)} == {"node-1", "node-2", "node-3"}
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
    objects = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}, "data": {"k": n}} for n in "bc"]
    shared.apply([tmp_path, *objects])
    assert [c["metadata"]["name"] for c in shared.list("configmaps")][:3] == ["a", "b", "c"]
    shared.delete("cm/a")
    with pytest.raises(NotFound):
        shared.get("cm/a")
    with pytest.raises(ValueError, match="does not have a resource type 'nonsense'"):
        shared.list("nonsense")


def test_deeds_conditions_and_measures(shared: Cluster):
    shared.mark("before")
    shared.scale("deployment/web", 5)
    assert shared.wait(lambda state: state.ready("deployment/web") == 5, timeout=30)
    shared.mark("after")
    shared.run(1)
    measures = shared.measure(seconds="after - before", most="max(ready(deployment/web))")
    assert 2 <= measures["seconds"] < 4 and measures["most"] == 5
    shared.drain("node-1")
    shared.wait("total(node/node-1) == 0", timeout=60)
    assert "drain node-1" in [s.what for s in shared.recording().steps][-1]
    shared.uncordon("node-1")
    shared.scale("deployment/web", 2)
    shared.wait("total(deployment/web) == 2")


def test_a_condition_that_does_not_come_true(shared: Cluster):
    with pytest.raises(TimeoutError, match="node node-1 ready=True"):
        shared.wait("ready(deployment/web) > 99", timeout=3)
    with pytest.raises(ExpressionError, match="did you mean 'ready'"):
        shared.wait("redy(deployment/web) > 99")
    assert shared.ask("ready(deployment/web)") == 2  # it goes on


def test_why(shared: Cluster):
    pod = shared.list("pods")[0]["metadata"]["name"]
    why = shared.why(f"pod/{pod}")
    assert why.node == shared.get(f"pod/{pod}")["spec"]["nodeName"] and "3 of 3 nodes could take it" in str(why)
    assert why.scores[why.node]["total"] == max(s["total"] for s in why.scores.values())
    assert next(iter(why.frame().index)) == why.node
    big = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "big"}, "spec": {"containers": [
        {"name": "c", "image": "c", "resources": {"requests": {"cpu": "99"}}}]}}  # fmt: skip
    shared.apply(big)
    shared.run(1)
    assert shared.why("big").refused == {"Insufficient cpu": 3} and "fits nowhere" in str(shared.why("big"))
    shared.delete("pod/big")
    with pytest.raises(NotFound):
        shared.why("nobody")


def test_tables_and_plots(shared: Cluster, tmp_path: Path):
    pods = shared.table("pods")
    assert len(pods) >= 2 and (pods["ready"].dropna() > 0).all()
    assert set(shared.table("nodes")["name"]) == {"node-1", "node-2", "node-3"}
    assert {"Scheduled", "ScalingReplicaSet"} <= set(shared.table("events")["reason"])
    figure = shared.plot({"ready": "ready(deployment/web)"}, title="web")
    assert len(figure.axes[0].lines) >= 1 and figure._repr_png_().startswith(b"\x89PNG")
    shared.save(tmp_path / "r.jsonl.gz")
    assert len(Recording.load(tmp_path / "r.jsonl.gz").changes) == len(shared.recording().changes)


def lost_node(seed: int) -> tuple[list[object], float]:
    with Cluster(2, seed=seed, events=False, set={"controllers.node-monitor-grace-period": "20s"}) as cluster:
        cluster.apply(WEB)
        cluster.wait("available(deployment/web)")
        cluster.fault(power_off="random-node")
        cluster.wait("nodes_ready() == 1")
        lost = cluster.now
        silent = [name for name in ("node-1", "node-2") if not cluster.ask(f'node_ready("{name}")')]
        cluster.end_fault(power_off=silent[0])
        cluster.wait("nodes_ready() == 2")
    return list(cluster.recording().changes), lost


def test_equal_calls_give_equal_clusters():
    changes, lost = lost_node(1)
    assert (changes, lost) == lost_node(1) and changes != lost_node(2)[0] and 15 < lost < 30


def test_a_wrong_cluster_is_refused_with_its_path():
    with pytest.raises(WrongFile, match="heartbeats"):
        Cluster(2, heartbeats="some")
    with pytest.raises(WrongFile, match="cuont"):
        Cluster([{"cuont": 2}])


def test_deeds_and_faults_are_checked_as_those_of_a_file(shared: Cluster):
    for wrong, text in (({"scall": {}}, "do.scall: there is no such deed; did you mean 'scale'"),
                        ({"load": {"web": "1/s"}}, "do.load.web: there is no load on 'web'")):  # fmt: skip
        with pytest.raises(WrongFile, match=text):
            shared.do(**wrong)
    with pytest.raises(WrongFile, match=r"fault\.explode: there is no such fault"):
        shared.fault(explode="node-1")
    with pytest.raises(ValueError, match="has no server"):
        print(shared.kubeconfig)


def test_modes_of_a_cluster(monkeypatch: pytest.MonkeyPatch):
    """Without the labs, which other tests have (tests/e2e/test_experiment.py)."""
    monkeypatch.setattr("lab.interactive.cluster.ClusterThread", lambda session: session)
    with pytest.raises(WrongFile, match="mode: in mode cycle there is nothing but decisions"):
        Cluster(2, mode="cycle")
    with pytest.raises(WrongFile, match=r"cluster.nodes\[0\].trace: .* use mode hollow"):
        Cluster([{"trace": "nodes.csv"}], mode="real")
    with pytest.warns(UserWarning, match="behaviour is not applied: containers are real"):
        Cluster(2, mode="real", behaviour={"default": {"start": "1s"}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session: Any = Cluster(2, mode="real")._thread
    session.deeds = SimpleNamespace(folder=".")
    with pytest.raises(WrongFile, match=r"^do.mend: is not possible in mode real"):
        session._check(Step(do={"mend": "scheduler"}))
    assert session.tape.header["mode"] == "real"


def test_a_cluster_that_is_over_says_so():
    with Cluster(1) as cluster:
        pass
    assert len(cluster.recording().changes) > 0
    with pytest.raises(RuntimeError, match="the cluster has ended"):
        cluster.run(1)


TESTS = """
import pytest
from lab import Recording

@pytest.mark.cluster(2, seed=5, mode="simulated")
def test_that_fails(cluster):
    assert cluster.mode == "simulated"
    assert len(cluster.list("nodes")) == 2
    assert cluster.ask("nodes_ready()") == 3

def test_that_passes(cluster):
    cluster.run(5)
    assert cluster.ask("nodes_ready()") == 3
"""


def test_the_pytest_plugin(tmp_path: Path):
    (tmp_path / "test_mine.py").write_text(TESTS)
    options = ["-p", "lab.testing", "--strict-markers", "-p", "no:cacheprovider", "-q", "--cluster-recordings", "out"]
    words = [sys.executable, "-m", "pytest", *options, "test_mine.py"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "1 failed, 1 passed" in ended.stdout, ended.stdout + ended.stderr
    assert "--- cluster ---" in ended.stdout and "node node-2               ready=True" in ended.stdout
    recordings = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert recordings == ["test_mine.test_that_fails.jsonl.gz", "test_mine.test_that_passes.jsonl.gz"]
    assert Recording.load(tmp_path / "out" / recordings[1]).end >= 5


HEAVY = {"numpy", "pandas", "matplotlib", "distributed", "aiohttp", "yaml", "lab.experiments"}


def test_importing_lab_is_light():
    program = "import sys, lab, lab.testing; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY & set(ended.stdout.split()) == set()
