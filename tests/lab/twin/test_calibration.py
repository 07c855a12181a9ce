"""Calibrations: what is measured on a cluster whose times are known, and what reads the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.experiments.file import cells, load, parse
from lab.experiments.schema import WrongFile
from lab.simulation import Simulation
from lab.twin import calibration, measuring
from lab.twin.learning import Learned
from navarch.api.types import core_v1
from nodeagent.hollow.fleet import Config
from nodeagent.runtime.spread import Spread, spread
from nodeagent.runtime.stages import Stages

STAGES = Stages(sandbox=0.0, start=spread("uniform(1s, 2s)"), ready=3.0, stop=spread("uniform(0.5s, 1s)"))


def measured(count: int, ready: tuple[str, ...] = ()) -> tuple[dict[str, list[float]], int]:
    """The samples, and how many pods are there afterwards."""

    async def play(cluster: Simulation) -> tuple[dict[str, list[float]], int]:
        samples = await measuring.measure(cluster.client, "default", "web:v1", ["run"], count, ready)
        await cluster.sleep(20)
        return samples, len(cluster.objects(core_v1.Pod))

    return Simulation(1, nodes=2, fleet=Config(behaviour=lambda pod, container: STAGES)).run(play)


def test_measures_what_is_there() -> None:
    samples, pods = measured(8, ("test", "-f", "/ready"))
    assert pods == 0 and {k: len(v) for k, v in samples.items()} == {"start": 8, "ready": 8, "stop": 8}
    assert all(0.95 <= s <= 2.2 for s in samples["start"]) and max(samples["start"]) > min(samples["start"])
    assert all(2.5 <= s <= 3.8 for s in samples["ready"])  # seen up to a probe period late, of which half is left out
    assert all(0.45 <= s <= 1.2 for s in samples["stop"])
    assert set(measured(1)[0]) == {"start", "stop"}


def test_a_pod_that_never_runs_is_told() -> None:
    async def play(cluster: Simulation) -> None:
        with pytest.raises(BaseExceptionGroup) as raised:
            await measuring.measure(cluster.client, "default", "web:v1", [], 1)
        assert raised.group_contains(
            measuring.TooSlow, match="calibration-1 is not running after 120 s: ImagePullBackOff"
        )
        await cluster.sleep(60)
        assert not cluster.objects(core_v1.Pod)

    stages = Stages(fail="pull")
    Simulation(1, nodes=1, fleet=Config(behaviour=lambda pod, container: stages)).run(play)


def test_the_file_is_read_by_twins_and_experiments(tmp_path: Path) -> None:
    images = {"web:v2": {"start": [0.5], "stop": [3.0]}}
    samples = {"start": [1.25, 0.75], "stop": [2.0]}
    (tmp_path / "times.json").write_text(calibration.text(samples, {"source": "here"}, images))
    times = calibration.load(tmp_path / "times.json")
    assert times.stages == {"start": "choice(0.750s, 1.250s)", "stop": "choice(2.000s)"}
    assert times.images == {"web:v2": {"start": "choice(0.500s)", "stop": "choice(3.000s)"}}
    learned = Learned()
    learned.calibrate(tmp_path / "times.json")
    assert learned.time("start", ("Deployment d/w", "c", "i")) == Spread("choice", (0.75, 1.25))
    assert learned.time("start", ("Deployment d/w", "c", "web:v2")) == spread("choice(0.5s)")
    assert any("calibrated, choice" in line for line in learned.explained(["Deployment d/w"]))

    text = """
apiVersion: lab.navarch.dev/v1
kind: Experiment
metadata: {name: x}
cluster: {nodes: [{count: 1}]}
behaviour: {calibrated: times.json, default: {stop: 1s}}
"""
    (tmp_path / "x.yaml").write_text(text)
    (cell,) = cells(load(tmp_path / "x.yaml"))
    assert parse(cell.tree).behaviour == {
        "default": {"start": "choice(0.750s, 1.250s)", "stop": "1s"}, "image:web:v2": {"start": "choice(0.500s)"},
    }  # fmt: skip
    (tmp_path / "x.yaml").write_text(text.replace("default: {stop: 1s}", "default: [1s], image:web:v2: 5"))
    with pytest.raises(WrongFile, match=r"(?s)behaviour\.default: .*behaviour\.image:web:v2: 5 is not a mapping"):
        parse(cells(load(tmp_path / "x.yaml"))[0].tree)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "times.json: "),
        ("{}", "is no calibration of format 1; make one with: navarch calibrate"),
        (json.dumps({"calibration": 1, "stages": {"begin": "1s"}}), "texts by pull, start, ready, stop were expected"),
        (json.dumps({"calibration": 1, "stages": {"start": "soon"}}), "stages.start: 'soon' is no time"),
        (json.dumps({"calibration": 1, "stages": {}, "images": {"a:1": {"stop": "x"}}}), "images.a:1.stop: 'x' is no time"),
        (json.dumps({"calibration": 1, "stages": {}, "images": []}), "images: stages by image were expected"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "times.json").write_text(content)
    with pytest.raises(ValueError, match=r"times\.json") as raised:
        calibration.load(tmp_path / "times.json")
    assert told in str(raised.value)
    (tmp_path / "x.yaml").write_text("kind: Experiment\nbehaviour: {calibrated: times.json}\n")
    with pytest.raises(WrongFile) as wrong:
        load(tmp_path / "x.yaml")
    assert wrong.value.problems[0].path == "behaviour.calibrated"
