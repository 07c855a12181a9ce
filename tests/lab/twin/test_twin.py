"""The twin of a simulated cluster: it is like it, and a change does to the twin what it does to the cluster."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from lab.experiments.deeds import Deeds
from lab.experiments.drivers.virtual import Virtual
from lab.experiments.recording import Recorder, Recording
from lab.experiments.state import State
from lab.simulation import Record, Simulation
from lab.twin import answer
from lab.twin.changes import Change, ChangeError, from_files, from_steps, from_words, lose, together
from lab.twin.cluster import Twin, seeds, service_range, unknown
from lab.twin.findings import Findings, findings
from lab.twin.learning import NEVER, Learned, learn, workload_of
from lab.twin.page import page
from lab.twin.rehearsal import Rehearsed, rehearse
from lab.twin.settling import restless
from lab.twin.snapshot import Snapshot, take
from navarch.api.times import format_time, parse_time
from navarch.api.types import apps_v1, core_v1
from navarch.api.wellknown import LAST_APPLIED, MIRROR_POD
from navarch.world import chance
from nodeagent.hollow.fleet import Config
from nodeagent.runtime.spread import Spread, spread
from nodeagent.runtime.stages import Stages

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 6
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: "web:v1"
        resources: {requests: {cpu: 100m}}
        readinessProbe: {periodSeconds: 1, tcpSocket: {port: 80}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 5, selector: {matchLabels: {app: web}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone}
spec: {containers: [{name: c, image: "alone:v1"}]}
"""
STAGES = Stages(start=spread("uniform(1s,2s)"), ready=spread("normal(5s,1s)"), stop=1.0)


def source(
    more: str = "", scenario: Callable[[Simulation], Awaitable[Any]] | None = None, seed: int = 1, **options: Any
) -> Any:
    """A cluster with web on three nodes, of which a snapshot is taken; then ``scenario`` goes on with it."""

    async def play(cluster: Simulation) -> Any:
        await cluster.apply(WEB + more)
        await cluster.run_until(lambda: cluster.ready_pods() >= 7, 100)
        await cluster.sleep(30)
        snapshot = await take(cluster.client, "a simulation")
        return (snapshot, await scenario(cluster)) if scenario else snapshot

    return Simulation(seed, nodes=3, fleet=Config(behaviour=lambda pod, container: STAGES), **options).run(play)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    found: Snapshot = source()
    return found


def one(snapshot: Snapshot, change: Change, seconds: float = 1800.0, seed: int = 1) -> Findings:
    (done,) = rehearse(snapshot, learn(snapshot), change, seeds=[seed], seconds=seconds)
    assert done.findings is not None, done.error
    return done.findings


ADDRESSES = ("ipaddresses", "servicecidrs")  # a controller makes them from the Services that it finds


def test_the_twin_begins_as_its_model_is(snapshot: Snapshot) -> None:
    """Nothing happens by itself: no pod is made, started anew or moved, and the scheduler counts all that runs."""

    async def scenario(cluster: Simulation) -> list[Record]:
        await cluster.sleep(300)
        table = cluster.scheduler.table
        assert sum(int(n) for n in table.requested["cpu"]) == 600
        cluster.check()
        return [r for r in cluster.history() if r.time > 0]

    twin = Twin(snapshot, learn(snapshot), 1)
    twin._history = True
    assert {r.key.split("/")[2] for r in twin.run(scenario)} <= {"events", "nodes", "leases", *ADDRESSES}
    assert twin.world.now() >= snapshot.now + 300


def test_new_pods_have_room_only_where_old_ones_leave_it(snapshot: Snapshot) -> None:
    """Seed 1 made the model, too: uids must not come again, or new pods pass for old ones."""

    async def scenario(cluster: Simulation) -> int:
        await cluster.client[apps_v1.Deployment].patch("web", "default", {"spec": {"replicas": 500}})
        await cluster.sleep(100)
        return sum(bool(p.spec.node_name) for p in cluster.objects(core_v1.Pod))

    assert Twin(snapshot, learn(snapshot), 1).run(scenario) == 3 * 40 + 1  # 40 of web fill 4 cores; alone asks for none


def test_times_are_learned(snapshot: Snapshot) -> None:
    learned = learn(snapshot)
    key = ("Deployment default/web", "web", "web:v1")
    ready = learned.samples["ready"][key]
    assert len(ready) == 6 and 4.0 <= sum(ready) / 6 <= 6.0  # 5 s, and the probe's second
    assert 0.5 <= sum(learned.samples["start"][key]) / 6 <= 2.5
    new = ("Deployment default/web", "web", "web:v2")
    assert isinstance(learned.time("ready", new), Spread | float) and learned.time("ready", new) == learned.time(
        "ready", key
    )
    assert learned.time("stop", key) == spread("uniform(0.2s, 2s)")
    told = learned.explained(["Deployment default/web"], ["web:v2"])
    assert any("web:v2 has never run here" in line for line in told)
    assert any("to stop: a guess" in line for line in told)


@pytest.mark.parametrize("words", [["rollout", "restart", "deploy/web"], ["drain", "node-1"]])
def test_the_twin_predicts_what_then_happens(words: list[str]) -> None:
    """The change is played on the twin, and then on the model itself: counts are equal, times alike."""
    recorder = Recorder({})

    async def really(cluster: Simulation) -> None:
        state = State(orjson.loads)

        def on(record: Record) -> None:
            recorder.change(record.time, record.type, record.key, record.revision, record.value)
            state.apply(record.type, record.key, record.value)

        for key, (revision, value) in cluster._current.items():
            on(Record(cluster.world.monotonic(), revision, "ADDED", key, value))
        cluster.on_record = on
        recorder.mark(cluster.world.monotonic(), "change")
        deeds = Deeds(Virtual(cluster), state, chance("x"))
        await (deeds.drain(words[1]) if words[0] == "drain" else deeds.restart("deployment/web"))
        await cluster.run_until(lambda: cluster.ready_pods(image="web:v1") < 6, 10)
        drained = words[1:] if words[0] == "drain" else []
        await cluster.run_until(lambda: not restless(state, drained), 300)
        recorder.mark(cluster.world.monotonic(), "rest")
        await cluster.sleep(5)
        recorder.finish(cluster.world.monotonic())

    taken, _ = source(scenario=really)
    real = findings(recorder.recording(), tuple(words[1:]) if words[0] == "drain" else ())
    twins = rehearse(taken, learn(taken), from_words(words, taken, "default"), seeds=range(1, 5), seconds=600)
    lows = [r.findings.workloads["Deployment default/web"] for r in twins if r.findings]
    truth = real.workloads["Deployment default/web"]
    assert {low.fewest for low in lows} == {truth.fewest} and {low.before for low in lows} == {6}
    assert all(r.findings and len(r.findings.evicted) == len(real.evicted) for r in twins)
    times = [r.findings.seconds or 0 for r in twins if r.findings]
    assert real.seconds is not None and 0.6 * min(times) <= real.seconds <= 1.6 * max(times), (real.seconds, times)
    assert len({r.findings.seconds for r in twins if r.findings}) > 1  # seeds differ


def test_a_lost_node(snapshot: Snapshot) -> None:
    found = one(snapshot, lose(["node-1"], snapshot))
    assert 300 < (found.seconds or 0) < 400 and 35 < found.noticed["node-1"] < 45
    mine = [p for p in snapshot.of("pods") if p["spec"]["nodeName"] == "node-1"]
    assert len(found.tainted) == len(mine)
    assert found.workloads["Deployment default/web"].fewest == 6 - sum(workload_of(p).startswith("Dep") for p in mine)


def test_a_drain_leaves_static_pods_and_what_has_ended(snapshot: Snapshot) -> None:
    more = Snapshot(snapshot.now, dict(snapshot.objects))
    pod = next(p for p in snapshot.of("pods") if p["spec"]["nodeName"] == "node-1")
    for name, phase, note in (("static", "Running", {MIRROR_POD: "x"}), ("ended", "Failed", {})):
        meta = {**pod["metadata"], "name": name, "uid": name, "annotations": note, "ownerReferences": [], "labels": {}}
        more.objects[f"/registry/pods/default/{name}"] = {
            **pod, "metadata": meta, "status": {**pod["status"], "phase": phase},
        }  # fmt: skip
    found = one(more, from_words(["drain", "node-1"], more, "default"), 120)
    assert found.seconds is not None and not {"default/static", "default/ended"} & found.evicted.keys()


def test_a_budget_that_allows_nothing_blocks_a_drain(snapshot: Snapshot) -> None:
    strict = Snapshot(snapshot.now, {k: dict(v) for k, v in snapshot.objects.items()})
    key = "/registry/poddisruptionbudgets/default/web"
    budget = strict.objects[key]
    strict.objects[key] = {
        **budget,
        "spec": {**budget["spec"], "minAvailable": 6},
        "metadata": {**budget["metadata"], "generation": 2},
    }
    found = one(strict, from_words(["drain", "node-1"], strict, "default"), 120)
    assert found.seconds is None and "Node node-1" in found.restless
    assert any("web needs 6 healthy pods" in text for text in found.blocked), found.blocked
    shown = "\n".join(answer.lines([Rehearsed(1, found)], 120))
    assert "NOT done within 2m" in shown and "blocks evictions" in shown


def test_what_cannot_fit_is_told_with_its_reason(snapshot: Snapshot) -> None:
    found = one(snapshot, from_words(["scale", "deploy/web"], snapshot, "default", 200), 60)
    assert found.seconds is None
    assert "Insufficient cpu" in found.restless["Deployment default/web"], found.restless
    assert found.pending and all("Insufficient cpu" in why for why in found.pending.values())


def test_a_quota_that_is_full() -> None:
    quota = "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {pods: '8'}}\n"
    taken = source(quota)
    found = one(taken, from_words(["scale", "deploy/web"], taken, "default", 12), 60)
    assert found.workloads["Deployment default/web"].after == 7
    assert found.quotas and "exceeded quota: few" in found.quotas[0]


def test_preemption_and_refusals(snapshot: Snapshot) -> None:
    text = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
---
apiVersion: v1
kind: Pod
metadata: {name: big}
spec: {priorityClassName: high, containers: [{name: c, image: "big:v1", resources: {requests: {cpu: "3950m"}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wrong}
spec: {priorityClassName: none, containers: [{name: c, image: "big:v1"}]}
---
apiVersion: example.com/v1
kind: Widget
metadata: {name: w}
"""
    change = from_files({"change.yaml": text}, "default")
    assert change.skipped == ("Widget w (example.com/v1)",)
    found = one(snapshot, change, 300)
    assert found.preempted and set(found.preempted.values()) <= {"Deployment default/web", "Pod default/alone"}
    assert len(found.refused) == 1 and "no PriorityClass with name none" in found.refused[0]


def test_apply_takes_away_what_is_gone_from_the_file() -> None:
    """The objects were applied by kubectl before, with a label of the pods' that the new file no longer has."""
    before = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"},
        "data": {"a": "1", "b": "2"},
    }  # fmt: skip
    note = orjson.dumps(before).decode()
    taken = source()
    stored = {**before, "metadata": {**before["metadata"], "annotations": {LAST_APPLIED: note}}}  # type: ignore[dict-item]
    taken.objects["/registry/configmaps/default/c"] = stored
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '3'}\n"
    (done,) = rehearse(taken, learn(taken), from_files({"c.yaml": text}, "default"), seeds=[1], seconds=60)
    last = [c for c in Recording.of_bytes(done.recording).of("configmaps") if c.key.endswith("/default/c")][-1]
    assert done.findings is not None and done.findings.refused == [] and last.object["data"] == {"a": "3"}


def test_a_pod_that_crashes_goes_on_crashing() -> None:
    crash = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bad}
spec:
  selector: {matchLabels: {app: bad}}
  template:
    metadata: {labels: {app: bad}, annotations: {hollow.navarch.dev/run: 3s, hollow.navarch.dev/exit-code: "1"}}
    spec: {containers: [{name: bad, image: "bad:v1"}]}
"""
    taken = source(crash)
    pod = next(p for p in taken.of("pods") if "bad" in p["metadata"]["name"])
    pod["metadata"].pop("annotations", None)  # what really happens there is not written on pods
    status = pod["status"]["containerStatuses"][0]
    last = status.get("lastState", {}).get("terminated") or status["state"]["terminated"]
    status["state"], status["lastState"] = {"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": last}
    learned = learn(taken)
    assert learned.own[pod["metadata"]["uid"], "bad"]["exit_code"] == 1

    async def scenario(cluster: Simulation) -> int:
        before = pod["status"]["containerStatuses"][0]["restartCount"]
        await cluster.sleep(200)
        found = cluster.object(core_v1.Pod, pod["metadata"]["name"], "default")
        assert found is not None and found.status.container_statuses
        return found.status.container_statuses[0].restart_count - before

    assert Twin(taken, learned, 1).run(scenario) >= 1


@pytest.mark.parametrize("conditions", [{"Ready": 6}, {"Ready": 4, "ContainersReady": 4}])
def test_readiness_that_came_back_is_not_how_long_it_takes(snapshot: Snapshot, conditions: dict[str, int]) -> None:
    """The node of a pod was not heard for a while (Ready alone), or most pods were unready for a while."""
    taken = Snapshot(snapshot.now, copy.deepcopy(snapshot.objects))
    pods = [p for p in taken.of("pods") if "web" in p["metadata"]["name"]]
    for kind, count in conditions.items():
        for number, pod in enumerate(pods[:count]):
            one_ = next(c for c in pod["status"]["conditions"] if c["type"] == kind)
            one_["lastTransitionTime"] = format_time(parse_time(one_["lastTransitionTime"]) + 40 + 30 * number)
    ready = learn(taken).samples["ready"]["Deployment default/web", "web", "web:v1"]
    assert len(ready) == 6 - conditions.get("ContainersReady", 0) and max(ready) <= 7


def test_a_pod_that_never_gets_ready_stays_so(snapshot: Snapshot) -> None:
    taken = Snapshot(snapshot.now + 1000, copy.deepcopy(snapshot.objects))
    pod = next(p for p in taken.of("pods") if "web" in p["metadata"]["name"])
    for one_ in pod["status"]["conditions"]:
        if one_["type"] in ("Ready", "ContainersReady"):
            one_["status"] = "False"
    pod["status"]["containerStatuses"][0]["ready"] = False
    assert learn(taken).own[pod["metadata"]["uid"], "web"]["ready"] == NEVER


def test_a_recording_tells_how_long_pods_take_to_stop() -> None:
    recorder = Recorder({})

    async def play(cluster: Simulation) -> None:
        await cluster.apply(WEB)
        await cluster.run_until(lambda: cluster.ready_pods() >= 7, 100)
        await cluster.client[core_v1.Pod].delete(cluster.objects(core_v1.Pod)[1].metadata.name or "", "default")
        await cluster.sleep(30)
        recorder.finish(cluster.world.monotonic())

    simulation = Simulation(1, nodes=3, fleet=Config(behaviour=lambda pod, container: STAGES))
    simulation.on_record = lambda r: recorder.change(r.time, r.type, r.key, r.revision, r.value)
    simulation.run(play)
    recording = recorder.recording()
    learned = learn(Snapshot.at(recording, recording.end), recording)
    (stop,) = learned.samples["stop"]["Deployment default/web", "web", "web:v1"]
    assert 1.0 <= stop < 1.3


def test_what_the_twin_does_not_know(snapshot: Snapshot) -> None:
    more = dict(snapshot.objects)
    more["/registry/example.com/widgets/default/w"] = {"metadata": {"name": "w", "namespace": "default", "uid": "u"}}
    more["/registry/mutatingwebhookconfigurations/m"] = {"metadata": {"name": "m"}}
    more["/registry/storageclasses/fast"] = {"metadata": {"name": "fast"}, "provisioner": "disk.example.com"}
    more["/registry/horizontalpodautoscalers/default/web"] = {"metadata": {"name": "web", "namespace": "default"}}
    more["/registry/pods/default/strange"] = {
        "metadata": {
            "name": "strange", "namespace": "default", "uid": "s",
            "ownerReferences": [{"kind": "Widget", "name": "w", "uid": "u", "controller": True}],
        },
        "spec": {"schedulerName": "mine", "containers": []},
    }  # fmt: skip
    told = "\n".join(unknown(Snapshot(snapshot.now, more, ["secrets: not allowed"])))
    for text in (
        "secrets: not allowed", "widgets.example.com (1)", "webhooks are not asked: m", "disk.example.com", "autoscalers keep",
        "Widget w owns 1 pods", "other schedulers are not scheduled: mine",
    ):  # fmt: skip
        assert text in told
    strange = dict(seeds(Snapshot(snapshot.now, more)))["/registry/pods/default/strange"]
    assert strange["metadata"]["ownerReferences"] == []  # or the garbage collector would delete it
    assert "/registry/example.com/widgets/default/w" not in dict(seeds(Snapshot(snapshot.now, more)))


def test_rights_that_are_missing_are_told() -> None:
    """A user who may read pods only: the rest is named, and pods are there."""
    role = """
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: few}
rules: [{apiGroups: [""], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: few}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: few}
subjects: [{kind: User, name: bob, apiGroup: rbac.authorization.k8s.io}]
"""

    async def as_bob(cluster: Simulation) -> Snapshot:
        return await take(cluster._connect("bob", "bob", ("system:authenticated",), "test"))

    _, taken = source(role, as_bob)
    assert len(taken.of("pods")) == 7 and not taken.of("nodes")
    assert {"nodes: not allowed", "secrets: not allowed", "deployments.apps: not allowed"} <= {*taken.missing}
    assert "not listed: nodes: not allowed" in unknown(taken)


def test_mistakes_are_told(snapshot: Snapshot, tmp_path: Any) -> None:
    for words, text in (
        (["drain", "node-9"], "there is no node 'node-9'; nodes: node-1"),
        (["scale", "deploy/web"], "--replicas=N is needed"),
        (["scale", "deploy/nothing"], "--replicas"),
        (["set", "image", "deploy/web", "other=x"], "containers of deploy/web: web"),
        (["rollout", "restart", "deploy/nothing"], "there is no deployment 'nothing' in namespace 'default'"),
        (["reboot", "node-1"], "is no change that can be rehearsed"),
        (["delete", "web"], "is no object such as deploy/web"),
    ):
        with pytest.raises(ChangeError, match=text.replace("(", "\\(")):
            from_words(words, snapshot, "default")
    with pytest.raises(ChangeError, match="tell what to rehearse"):
        together([])
    (tmp_path / "steps.yaml").write_text("- {do: {scale: {deployment/web: 3}}, wait: 10s}\n- {dou: {}}\n")
    with pytest.raises(ChangeError, match="dou"):
        rehearse(snapshot, Learned(), from_steps(tmp_path / "steps.yaml"), seeds=[1], seconds=10)


def test_steps_asserts_and_page(snapshot: Snapshot, tmp_path: Any) -> None:
    (tmp_path / "steps.yaml").write_text(
        "- {do: {scale: {deployment/web: 3}}}\n- {wait: 30s}\n- {do: {scale: {deployment/web: 5}}}\n"
    )
    change = from_steps(tmp_path / "steps.yaml")
    done = rehearse(snapshot, learn(snapshot), change, seeds=[1, 2], seconds=600, jobs=2)
    assert [r.error for r in done] == ["", ""] and done[0].recording and not done[1].recording
    low = done[0].findings and done[0].findings.workloads["Deployment default/web"]
    assert low and (low.before, low.fewest, low.after) == (6, 3, 5)
    assert answer.verdicts(answer.checked("available(deployment/web) >= 3 and evicted == 0"), done) == []
    assert [seed for seed, _ in answer.verdicts(answer.checked("duration < 10"), done)] == [1, 2]
    said = answer.verdicts(answer.checked("available(deployment/web) > 4 and evicted == 0"), done)[0]
    assert said == (1, {"evicted": 0, "available('deployment/web')": 3})
    with pytest.raises(ValueError, match="there is no 'evictd'; did you mean 'evicted'"):
        answer.checked("evictd == 0")
    with pytest.raises(ValueError, match="is not touched by this change"):
        answer.verdicts(answer.checked("available(deployment/other) > 1"), done)
    text = page("a <change>", "here", done, answer.lines(done, 600), ["x"])
    assert "a &lt;change&gt;" in text and "<svg" in text and "://" not in text.replace("http://www.w3.org", "")


def test_service_range() -> None:
    def of(*addresses: str) -> Snapshot:
        return Snapshot(
            0.0, {f"/registry/services/d/{a}": {"metadata": {}, "spec": {"clusterIP": a}} for a in addresses}
        )

    assert service_range(of("10.96.0.1", "10.96.7.7", "None")) == "10.96.0.0/16"
    assert service_range(of("10.96.0.1", "10.110.7.7")) == "10.96.0.0/12"
    assert service_range(of("fd00::1")) == "10.96.0.0/16"


def test_equal_seeds_equal_answers(snapshot: Snapshot) -> None:
    change = from_words(["rollout", "restart", "deploy/web"], snapshot, "default")
    first = rehearse(snapshot, learn(snapshot), change, seeds=[7, 8], seconds=600, jobs=2)
    again = rehearse(snapshot, learn(snapshot), change, seeds=[7], seconds=600)
    assert first[0].recording == again[0].recording and first[0].findings == again[0].findings


def test_pods_of_several_seeds_are_not_added_up() -> None:
    """A run's new pods have names of their own: the answer names those of one run."""
    runs = [Rehearsed(seed, Findings(None, pending={f"d/web-{seed}{n}": "no room" for n in range(7)})) for seed in (1, 2)]
    assert "Pending: 7 pods (d/web-10, d/web-11, d/web-12, d/web-13, d/web-14 and 2 more): no room" in answer.lines(runs, 60)
