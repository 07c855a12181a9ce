"""Pages beside the report: one run over time, and two folders against each other."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lab.experiments.recording import Recording
from lab.experiments.sweep import Result
from lab.reports.comparing import comparison, differences
from lab.reports.runpage import PHASES, data, run_page
from lab.reports.stories import stories

Results = tuple[Path, list[Result]]


def recording_of(results: Results) -> Recording:
    return Recording.load(results[0] / "runs" / f"{results[1][0].name}.jsonl.gz")


def test_stories_follow_every_pod(results: Results) -> None:
    recording = recording_of(results)
    listed = stories(recording)
    pods = {c.object["metadata"]["uid"] for c in recording.of("pods")}
    assert {s.uid for s in listed} == pods and {s.workload for s in listed} == {"web"}
    for story in listed:
        assert [a.end for a in story.spans[:-1]] == [b.begin for b in story.spans[1:]]  # no gap
        assert {s.phase for s in story.spans} <= set(PHASES) and story.whys[0][1] == "waits for the scheduler"
    assert [s.number for s in listed] == list(range(len(listed)))
    replaced = [s for s in listed if s.image == "web:v1"]
    assert len(replaced) == 4 and all("is stopping" in dict((w, t) for t, w in s.whys) for s in replaced)


def test_a_run_is_a_page_with_a_slider(results: Results) -> None:
    text = run_page(recording_of(results), "a <run>")
    assert "a &lt;run&gt;" in text and 'type="range"' in text
    assert re.findall(r'(?:https?:|src=|@import|url\((?!#))[^"\')]*', text) == []
    shown = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert [name for name, _ in shown["nodes"]] == ["node-1", "node-2", "node-3"]
    assert all("" in [words for _, words in states] for _, states in shown["nodes"])
    assert shown["versions"] == ["web:v1", "web:v2"]
    assert "power-off node-1, for 5s" in [text for _, text, _ in shown["flags"]]
    pod = shown["pods"][0]
    assert pod[0].startswith("default/web-") and "stopping" in [PHASES[s[0]] for s in pod[4]]
    assert data(recording_of(results)) == data(recording_of(results))


def test_two_folders_are_compared_on_a_page(results: Results) -> None:
    _, listed = results
    slower = [r._replace(measures={k: v + 5 for k, v in r.measures.items()}) for r in listed]
    beyond = [d for d in differences(listed, slower) if d.beyond]
    assert len(beyond) == 4 and all(abs(d.mean - 5) < 1e-9 for d in beyond)
    text = comparison(listed, slower, ("before", "after"))
    assert "surge=1: rollout is 5 more in the second" in text and "<svg" in text
    assert "Nothing differs beyond the spread" in comparison(listed, listed, ("before", "after"))
