"""The policy that docs/scheduler.md shows does what it says there."""

from __future__ import annotations

import random
import re
from pathlib import Path

from scheduler.framework.config import SchedulerConfig
from scheduler.framework.cycle import schedule
from scheduler.framework.plugin import Plugin
from scheduler.framework.profiles import load_plugin
from scheduler.state.pods import PodInfo
from tests.scheduler.test_cycle import node, pod, table

TEXT = (Path(__file__).parents[2] / "docs/scheduler.md").read_text()


def block(language: str) -> str:
    return re.search(f"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


def test_the_policy_of_the_page(tmp_path):
    code = block("python")
    file = tmp_path / "cheapest.py"
    file.write_text(code)
    said = [line for line in code.splitlines() if line.strip()]
    assert len(said) <= 20  # "in twenty lines"
    config = SchedulerConfig.load(block("yaml"), [load_plugin(f"{file}:Cheapest")])
    default, thrifty = config.profiles
    assert {s.plugin.name: s.weight for s in thrifty.scorers}["Cheapest"] == 10
    assert "Cheapest" not in [p.name for p in default.plugins]
    t = table(node("dear", cpu="9", labels={"price": "7"}), node("cheap", labels={"price": "2"}))
    assert schedule(pod("100m"), t, thrifty, random.Random(0)).node == "cheap"
    assert schedule(pod("100m"), t, default, random.Random(0)).node == "dear"
    poor = pod("100m")
    poor.pod.metadata.annotations = {"most": "1"}
    decision = schedule(PodInfo(poor.pod), t, thrifty, random.Random(0))
    assert decision.message() == "0/2 nodes are available: 2 node(s) were too dear."


def test_the_full_example_of_the_page():
    found = [b for b in re.findall("```python\n(.*?)```", TEXT, re.DOTALL) if "MILLI" in b]
    assert len(found) == 2
    exec(compile("\n".join(found), "docs/scheduler.md", "exec"), {"__name__": "page"})


def test_every_extension_point_is_on_the_page():
    said = set(re.findall(r"`(?:async )?(\w+)\(|`(\w+)`", TEXT))
    names = {a or b for a, b in said}
    public = {n for n, v in vars(Plugin).items() if not n.startswith("_") and callable(v)}
    assert public <= names, public - names
