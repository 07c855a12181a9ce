"""The pod's state machine: a pod's whole life as data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navarch.api.types import core_v1
from nodeagent.pods.backoff import BackoffTable
from nodeagent.pods.machine import CreateSandbox, Decision, PodMachine, StartContainer, StopSandbox
from nodeagent.pods.observed import duration
from nodeagent.runtime.runtime import EXITED, RUNNING
from tests.nodeagent.life import Life

ONE: dict[str, Any] = {"containers": [{"name": "a", "image": "i:1"}]}


def states(life: Life) -> dict[str, str]:
    """Container -> running, or the reason of its state."""
    out = {}
    status = life.decision.status
    for s in (*(status.init_container_statuses or ()), *(status.container_statuses or ())):
        assert s.state is not None
        if s.state.running:
            out[s.name] = "running"
        else:
            out[s.name] = (s.state.waiting or s.state.terminated).reason or ""  # type: ignore[union-attr]
    return out


def test_a_simple_pod_runs() -> None:
    life = Life(ONE)
    life.step()
    assert life.decision.status.phase == "Pending" and states(life) == {"a": "ContainerCreating"}
    assert life.condition("PodReadyToStartContainers").status == "False"
    status = life.settle()
    assert status.phase == "Running" and states(life) == {"a": "running"}
    assert (status.pod_ip, status.host_ip) == ("10.1.0.1", "10.0.0.1")
    assert all(c.status == "True" for c in status.conditions or ())
    assert (status.container_statuses or [])[0].container_id == "oci://s0-a-0"


def test_restart_with_growing_backoff() -> None:
    life = Life(ONE)
    life.settle()
    life.exit("a", 1)
    life.settle()
    assert life.running() == ["a"]  # the first restart comes at once
    waits = []
    for _ in range(7):
        life.now += 1
        life.exit("a", 1)
        status = life.settle()
        assert states(life) == {"a": "CrashLoopBackOff"} and status.phase == "Running"
        assert life.decision.wake is not None
        waits.append(life.decision.wake - life.now)
        life.now = life.decision.wake - 0.1
        life.step()
        assert not life.running()
        life.now += 0.1
        life.settle()
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    found = (life.decision.status.container_statuses or [])[0]
    assert found.restart_count == 8 and found.last_state is not None and found.last_state.terminated is not None
    assert any("Back-off restarting failed container a in pod p_ns(u1)" in t for t in life.told)
    life.now += 700  # it ran well for ten minutes: all is forgiven
    life.exit("a", 1)
    life.settle()
    assert life.running() == ["a"]
    assert len(life.containers) == 2  # the dead one before is kept for its log, no more


def test_policies() -> None:
    for policy, code, phase in (
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 3, "Running"),
        ("Always", 0, "Running"),
    ):
        life = Life(ONE | {"restartPolicy": policy})
        life.settle()
        life.exit("a", code)
        assert life.settle().phase == phase, (policy, code)
        assert bool(life.running()) == (phase == "Running")
        ready = life.condition("Ready")
        if phase == "Succeeded":
            assert (ready.status, ready.reason) == ("False", "PodCompleted")
            assert life.condition("Initialized").reason == "PodCompleted"
        if phase == "Failed":
            assert ready.reason == "PodFailed"
        if phase != "Running":
            assert not any(s.ready for s in life.sandboxes.values()) and life.decision.ended


def test_init_containers_run_one_by_one() -> None:
    life = Life(ONE | {"initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}]})
    life.settle()
    assert life.running() == ["i1"]
    assert states(life) == {"i1": "running", "i2": "PodInitializing", "a": "PodInitializing"}
    assert life.condition("Initialized").message == "containers with incomplete status: [i1 i2]"
    life.exit("i1", 1)
    life.settle()
    assert life.running() == ["i1"]
    life.exit("i1", 0)
    life.settle()
    assert life.running() == ["i2"] and life.decision.status.phase == "Pending"
    life.exit("i2", 0)
    assert life.settle().phase == "Running" and life.started == ["i1", "i1", "i2", "a"]


def test_failed_init_container_with_never_fails_the_pod() -> None:
    life = Life(ONE | {"restartPolicy": "Never", "initContainers": [{"name": "i1", "image": "i"}]})
    life.settle()
    life.exit("i1", 2)
    assert life.settle().phase == "Failed"
    assert states(life) == {"i1": "Error", "a": "PodInitializing"} and life.decision.ended


def test_sidecars() -> None:
    init = [
        {"name": "s1", "image": "i", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}},
        {"name": "i1", "image": "i"},
    ]
    life = Life(ONE | {"restartPolicy": "Never", "initContainers": init})
    life.settle()
    assert life.running() == ["s1"]  # the next waits until it has started
    life.probe("s1", started=True)
    life.settle()
    assert life.running() == ["s1", "i1"]
    life.exit("i1", 0)
    life.settle()
    assert life.running() == ["s1", "a"]
    life.exit("s1", 1)
    life.settle()
    assert sorted(life.running()) == ["a", "s1"]  # restarted although the pod's policy is Never
    life.probe("s1", started=True)
    life.exit("a", 0)
    assert life.settle().phase == "Succeeded" and not life.running()


def test_deletion_stops_main_containers_then_sidecars() -> None:
    life = Life(ONE | {"initContainers": [{"name": "s1", "image": "i", "restartPolicy": "Always"}]})
    life.settle()
    life.obedient = False
    life.delete(20)
    life.step()
    assert life.stopping == {"s0-a-0": life.now + 20} and not life.decision.ended
    life.delete(5)  # a grace period may be shortened
    life.step()
    assert life.stopping == {"s0-a-0": life.now + 5}
    life.now += 5
    life.exit("a", 137)
    life.step()
    assert list(life.stopping) == ["s0-s1-0"]
    life.exit("s1", 0)
    status = life.settle()
    assert life.decision.ended and status.phase == "Failed" and states(life)["a"] == "Error"
    assert life.sandboxes  # kept until the API object is gone
    life.gone = True
    life.settle()
    assert not life.sandboxes and not life.containers


def test_a_pod_deleted_before_it_started() -> None:
    life = Life(ONE)
    life.delete()
    status = life.settle()
    assert life.decision.ended and status.phase == "Failed" and not life.started


def test_probes() -> None:
    probe = {"httpGet": {"port": 80}}
    spec = {"name": "a", "image": "i", "startupProbe": probe, "livenessProbe": probe, "readinessProbe": probe}
    life = Life({"containers": [spec], "readinessGates": [{"conditionType": "example.org/gate"}]})
    life.settle()
    found = (life.decision.status.container_statuses or [])[0]
    assert (found.started, found.ready) == (False, False)
    assert life.condition("Ready").message == "containers with unready status: [a]"
    life.probe("a", started=True, ready=True)
    life.settle()
    assert life.condition("ContainersReady").status == "True"
    assert life.condition("Ready").reason == "ReadinessGatesNotReady"
    life.probe("a", started=True, ready=True, failed="Liveness")
    life.settle()
    assert life.running() == ["a"] and life.started == ["a", "a"]


def test_image_that_does_not_come() -> None:
    life = Life({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]})
    life.starting_fails["a"] = ("ErrImagePull", "no such image")
    life.settle()
    assert life.running() == ["b"] and states(life) == {"a": "ErrImagePull", "b": "running"}
    assert life.decision.status.phase == "Pending"
    life.starting_fails.clear()
    life.settle()
    assert life.running() == ["b"]
    life.now += 10
    assert life.settle().phase == "Running"


def test_lost_sandbox_is_made_again() -> None:
    life = Life(ONE | {"initContainers": [{"name": "i1", "image": "i"}]})
    life.settle()
    life.exit("i1", 0)
    life.settle()
    life.exit("a", 137)
    s = life.sandboxes["s0"]
    life.sandboxes["s0"] = type(s)(s.id, s.config, False, s.created)
    life.settle()
    assert life.running() == ["i1"]  # init containers run again
    life.exit("i1", 0)
    life.settle()
    status = life.decision.status
    assert (status.container_statuses or [])[0].restart_count == 1 and status.pod_ip == "10.1.0.2"
    assert status.phase == "Running"


def test_power_loss_keeps_the_restart_count() -> None:
    life = Life(ONE)
    life.settle()
    life.sandboxes.clear()
    life.containers.clear()
    life.machine = type(life.machine)()
    life.settle()
    found = (life.decision.status.container_statuses or [])[0]
    assert found.restart_count == 1 and life.running() == ["a"]


def test_deadline() -> None:
    life = Life(ONE | {"activeDeadlineSeconds": 60})
    life.settle()
    assert life.decision.wake == life.now + 60
    life.now += 60
    status = life.settle()
    assert (status.phase, status.reason) == ("Failed", "DeadlineExceeded") and life.decision.ended


def test_rejected_pod() -> None:
    life = Life(ONE)
    life.machine.fail("OutOfcpu", "too big")
    status = life.settle()
    assert (status.phase, status.reason, status.message) == ("Failed", "OutOfcpu", "too big") and not life.sandboxes


EVENTS = st.lists(
    st.tuples(st.sampled_from(["exit0", "exit1", "time", "unwell", "sandbox", "delete", "gone"]), st.integers(0, 3)),
    max_size=25,
)


def happens(life: Life, event: str, n: int) -> None:
    """Lets one of EVENTS happen to the pod; ``n`` chooses the container, the seconds or the grace period."""
    running = life.running()
    if event.startswith("exit") and running:
        life.exit(running[n % len(running)], int(event[-1]))
    elif event == "time":
        life.now += (1, 11, 100, 1000)[n]
    elif event == "unwell" and running:
        life.probe(running[n % len(running)], failed="Liveness")
    elif event == "sandbox" and life.sandboxes:
        s = list(life.sandboxes.values())[-1]
        for c in list(life.containers.values()):
            if c.state == RUNNING:
                life.exit(c.name, 137)
        life.sandboxes[s.id] = type(s)(s.id, s.config, False, s.created)
    elif event == "delete":
        life.delete(n)
    elif event == "gone":
        life.delete(n)
        life.gone = True


class Invariants:
    """Judges each status of a pod by those before it."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.counts: dict[str, int] = {}
        self.final = ""

    def check(self, status: core_v1.PodStatus) -> None:
        life = self.life
        for s in (*(status.container_statuses or ()), *(status.init_container_statuses or ())):
            if not life.gone:
                assert s.restart_count >= self.counts.get(s.name, 0)
            self.counts[s.name] = s.restart_count
        if self.final:
            assert status.phase == self.final
        if status.phase in ("Succeeded", "Failed"):
            self.final = status.phase
        if life.decision.ended:
            assert all(c.state == EXITED for c in life.containers.values())
            assert status.phase in ("Succeeded", "Failed")
        if life.pod.spec.restart_policy == "Never":
            assert all(s.restart_count == 0 or life.decision for s in status.container_statuses or ())
        if life.pod.metadata.deletion_timestamp:
            assert life.decision.ended


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.sampled_from(["Always", "OnFailure", "Never"]), st.integers(0, 2))
def test_whatever_happens(events: list[tuple[str, int]], policy: str, inits: int) -> None:
    """No container runs twice, counts never fall, a final phase stays, and an ended pod has nothing alive."""
    init: list[dict[str, Any]] = [{"name": f"i{n}", "image": "i"} for n in range(inits)]
    if inits == 2:
        init[0]["restartPolicy"] = "Always"
    life = Life({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}], "initContainers": init})
    life.pod.spec.restart_policy = policy
    invariants = Invariants(life)
    for event, n in events:
        happens(life, event, n)
        invariants.check(life.settle())



def test_backoff_table() -> None:
    table = BackoffTable()
    assert table.until("k", 5.0) == 0
    table.next("k", 5.0, 5.0)
    assert table.until("k", 6.0) == 16.0
    table.next("k", 6.0, 16.0)
    assert table.delay("k") == 20
    assert table.until("k", 16.0 + 601) == 0


def test_durations() -> None:
    assert [duration(s) for s in (10, 80, 300, 0.012, 1.5, 3661)] == ["10s", "1m20s", "5m0s", "12ms", "1.5s", "1h1m1s"]


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (Decision([CreateSandbox(0), CreateSandbox(1)]), "two sandboxes"),
        (Decision([StartContainer("a", 0, "s"), StartContainer("a", 1, "s")]), "started twice"),
        (Decision([StopSandbox("s"), StartContainer("a", 0, "s")]), "started where all stops"),
        (Decision([StopSandbox("s"), StopSandbox("s")]), "same thing twice"),
        (Decision([CreateSandbox(0)], ended=True), "the pod ends"),
    ],
)
def test_decisions_that_contradict_themselves_are_seen(decision: Decision, why: str) -> None:
    machine = PodMachine()
    machine.check(Decision([CreateSandbox(0)]))
    with pytest.raises(AssertionError, match=why):
        machine.check(decision)
    machine.rejected = True
    with pytest.raises(AssertionError, match="rejected without a reason"):
        machine.check()
