"""The page of one run: a slider over time, pods on nodes as they were then, and why each pod was as it was. Pure.

The page holds what it shows as JSON, and a small script (runpage.js) that draws it; it asks no server for anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from lab.experiments.recording import Recording
from lab.experiments.state import Tree, condition
from lab.reports.drawing.canvas import COLOURS
from lab.reports.overtime import flags, span
from lab.reports.placements import natural
from lab.reports.stories import stories, versions
from lab.reports.style import escape, page

PHASES = ("waiting", "starting", "ready", "unready", "stopping", "ended")
MAX_EVENTS = 5000
SCRIPT = Path(__file__).with_suffix(".js")
STYLE = """
body { max-width: 78rem; }
.bar { position: sticky; top: 0; background: var(--paper); padding: .6rem 0 .5rem; z-index: 2;
  border-bottom: 1px solid var(--line); }
.bar .row { display: flex; gap: .8rem; align-items: center; }
.bar input { flex: 1; margin: 0; accent-color: var(--blue); }
.bar button { font: inherit; border: 1px solid var(--line); background: var(--tint); border-radius: 6px; padding: .15rem .7rem;
  cursor: pointer; min-width: 4.6rem; }
#now { font-size: 1.2rem; font-weight: 600; min-width: 7.2rem; text-align: right; font-variant-numeric: tabular-nums; }
#strip { width: 100%; height: 74px; display: block; margin-top: .3rem; cursor: crosshair; }
#main { display: grid; grid-template-columns: minmax(0, 1fr) 23rem; gap: 2rem; margin-top: 1.1rem; }
#nodes { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.4rem, 1fr)); gap: .6rem; align-content: start; }
#nodes.dense { grid-template-columns: repeat(auto-fill, minmax(4.2rem, 1fr)); gap: .25rem; }
.node { border: 1px solid var(--line); border-radius: 6px; padding: .35rem .45rem .45rem; min-height: 3.4rem; }
.node.down { border-color: var(--red); background: #fdf3f0; }
.node.none { grid-column: 1 / -1; border-style: dashed; min-height: 0; }
.node b { display: flex; justify-content: space-between; font-size: .78rem; font-weight: 600; margin-bottom: .3rem; }
.node b span { color: var(--soft); font-weight: 400; }
.node.down b span { color: var(--red); }
.dense .node { padding: .15rem .2rem; min-height: 0; } .dense .node b { font-size: .58rem; margin: 0; }
.pod { display: inline-block; width: 15px; height: 15px; border-radius: 3px; margin: 0 3px 3px 0; border: 1.5px solid var(--c);
  background: var(--c); cursor: pointer; vertical-align: top; }
.dense .pod { width: 7px; height: 7px; margin: 0 1px 1px 0; border-width: 1px; border-radius: 1px; }
.pod.waiting { background: repeating-linear-gradient(45deg, #fff 0 2px, var(--c) 2px 3px); }
.pod.starting { background: color-mix(in srgb, var(--c) 40%, white); }
.pod.unready { background: #fff; }
.pod.stopping { background: #fff; border-style: dotted; }
.pod.ended { opacity: .35; }
.pod.chosen { outline: 2px solid var(--ink); outline-offset: 1px; }
#side h2 { margin: 0 0 .5rem; } #side h2 + * { margin-top: 0; } #side section + section { margin-top: 1.6rem; }
#log, #history { list-style: none; margin: 0; padding: 0; font-size: .84rem; }
#log li, #history li { display: grid; grid-template-columns: 4.2rem 1fr; gap: .6rem; padding: .18rem 0;
  overflow-wrap: anywhere; }
#log time, #history time { color: var(--soft); text-align: right; font-variant-numeric: tabular-nums; }
#log .step { font-weight: 600; } #log .fault, #log .Warning { color: var(--red); } #history .later { opacity: .38; }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .8rem; color: var(--soft); margin: 1rem 0 0; }
.key .pod { cursor: default; margin-right: .35rem; }
@media (max-width: 60rem) { #main { grid-template-columns: 1fr; } }
"""


def data(recording: Recording) -> dict[str, Any]:
    """Nodes, pods, steps and Events of a recording, as the page's script reads them; texts that repeat stand in a list."""
    listed = stories(recording)
    named = versions(s for s in listed if s.workload)
    colours = list(dict.fromkeys([named[s.workload, s.version] if s.workload else "without an owner" for s in listed]))
    texts: dict[str, int] = {}

    def text(words: str) -> int:
        return texts.setdefault(words, len(texts))

    pods = [
        [f"{s.namespace}/{s.name}", s.node, colours.index(named[s.workload, s.version] if s.workload else "without an owner"),
         None if s.bound is None else _time(s.bound), [[PHASES.index(p.phase), _time(p.begin), _time(p.end)] for p in s.spans],
         [[_time(at), text(why)] for at, why in s.whys], s.image] for s in listed
    ]  # fmt: skip
    marks = [[_time(float(f["time"])), str(f["text"]), str(f["series"])] for f in flags(recording)]
    out = {
        **{k: _time(v) for k, v in span(recording).items()},
        "nodes": _nodes(recording), "pods": pods, "versions": colours, "flags": marks,
        "events": _events(recording), "phases": PHASES, "colours": COLOURS,
    }  # fmt: skip
    return out | {"texts": list(texts)}


def _nodes(recording: Recording) -> list[list[Any]]:
    """Name and states ([since, words], "" for a node that is well) of each node."""
    states: dict[str, list[list[Any]]] = {}
    for change in recording.of("nodes"):
        words = "gone" if change.type == "DELETED" else _state(change.object)
        of_node = states.setdefault(change.object["metadata"]["name"], [])
        if not of_node or of_node[-1][1] != words:
            of_node.append([_time(change.time), words])
    return [[name, states[name]] for name in sorted(states, key=natural)]


def _state(node: Tree) -> str:
    words = [] if condition(node, "Ready") == "True" else ["not ready"]
    return ", ".join([*words, *(["cordoned"] if node["spec"].get("unschedulable") else [])] if "spec" in node else words)


def _events(recording: Recording) -> list[list[Any]]:
    """Time, type, reason, message and object of each Event that is told, and told again."""
    out = []
    counts: dict[str, int] = {}
    for change in recording.of("events"):
        tree = change.object
        count = int(tree.get("count") or 1)
        if change.type != "DELETED" and count > counts.get(change.key, 0):
            where = tree.get("involvedObject") or tree.get("regarding") or {}
            who = "/".join(filter(None, (where.get("namespace"), where.get("name"))))
            message = tree.get("message") or tree.get("note") or ""
            kind, reason = tree.get("type", ""), tree.get("reason", "")
            out.append([_time(change.time), kind, reason, message, f"{where.get('kind')} {who}"])
        counts[change.key] = count
    return out[:MAX_EVENTS]


def _time(value: float) -> float:
    return round(value, 3)


def run_page(recording: Recording, title: str, question: str = "") -> str:
    """The whole document."""
    content = orjson.dumps(data(recording)).decode().replace("<", "\\u003c")
    body = f"""<h1>{escape(title)}</h1>
<p class="question">{escape(question)}</p>
<div class="bar"><div class="row"><button id="play" title="space">Play</button><input id="slider" type="range" step="any"
 title="left and right: a change, with shift: a step"><span id="now"></span></div><svg id="strip"></svg></div>
<div id="main"><div><div id="nodes"></div><div class="key" id="key"></div></div>
<div id="side"><section><h2 id="who">Why?</h2><p id="why" class="soft">Choose a pod to see why it was as it was.</p>
<ul id="history"></ul></section>
<section><h2>What happened</h2><ul id="log"></ul></section></div></div>
<script type="application/json" id="data">{content}</script>
<script>{SCRIPT.read_text()}</script>"""
    return page(title, body, STYLE)
