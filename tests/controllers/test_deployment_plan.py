"""The Deployment plan alone: a rollout simulated replica set by replica set, with properties that must never fail."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.deployment import plan as planning
from controllers.deployment import revisions, sizes
from controllers.deployment.plan import Create, Delete, Update, plan
from navarch.api.conditions import get_condition
from navarch.api.intstr import scaled_value
from navarch.api.times import format_time
from navarch.api.types import apps_v1, core_v1, meta_v1

NOW = 1_700_000_000.0


def deployment(
    replicas: int = 3,
    image: str = "v1",
    *,
    surge: int | str = "25%",
    unavailable: int | str = "25%",
    strategy: str = "RollingUpdate",
    deadline: int | None = 600,
    history: int = 10,
) -> apps_v1.Deployment:
    rolling = apps_v1.RollingUpdateDeployment(max_surge=surge, max_unavailable=unavailable)
    return apps_v1.Deployment(
        metadata=meta_v1.ObjectMeta(name="web", namespace="default", uid="d1", generation=1),
        spec=apps_v1.DeploymentSpec(
            replicas=replicas,
            revision_history_limit=history,
            progress_deadline_seconds=deadline,
            selector=meta_v1.LabelSelector(match_labels={"app": "web"}),
            strategy=apps_v1.DeploymentStrategy(
                type=strategy, rolling_update=rolling if strategy == "RollingUpdate" else None
            ),
            template=template(image),
        ),
    )


def template(image: str) -> core_v1.PodTemplateSpec:
    return core_v1.PodTemplateSpec(
        metadata=meta_v1.ObjectMeta(labels={"app": "web"}),
        spec=core_v1.PodSpec(containers=[core_v1.Container(name="c", image=image)]),
    )


class Cluster:
    """Replica sets as an API server and a replica set controller would keep them, in steps that a test chooses."""

    def __init__(self, d: apps_v1.Deployment) -> None:
        self.deployment = d
        self.sets: dict[str, apps_v1.ReplicaSet] = {}
        self.pods: dict[str, list[bool]] = {}  # by set: is the pod available?
        self.now = NOW
        self.events: list[str] = []

    def reconcile(self) -> planning.Plan:
        self.now += 1
        running = any(
            pods and not revisions.same_template(self.sets[name].spec.template, self.deployment.spec.template)
            for name, pods in self.pods.items()
        )
        made = plan(self.deployment, list(self.sets.values()), self.now, old_pods_run=running)
        for action in made.actions:
            self.apply(action)
        annotations = dict(self.deployment.metadata.annotations or {})
        if made.revision:
            annotations[sizes.REVISION] = made.revision
        metadata = msgspec.structs.replace(self.deployment.metadata, annotations=annotations)
        self.deployment = msgspec.structs.replace(self.deployment, metadata=metadata, status=made.status)
        return made

    def apply(self, action: planning.Action) -> None:
        match action:
            case Create(rs, events):
                name = rs.metadata.name or ""
                assert name not in self.sets
                rs.metadata.uid = f"uid-{name}"
                rs.metadata.generation = 1
                rs.metadata.creation_timestamp = format_time(self.now)
                self.sets[name], self.pods[name] = rs, []
                self.events += events
            case Update(old, new, events):
                assert self.sets[old.metadata.name or ""] is old
                self.sets[new.metadata.name or ""] = new
                self.events += events
            case Delete(rs):
                del self.sets[rs.metadata.name or ""], self.pods[rs.metadata.name or ""]

    def run_set(self, name: str) -> None:
        """What the replica set controller does: unavailable pods go first."""
        want, pods = sizes.size(self.sets[name]), sorted(self.pods[name])
        pods = pods[len(pods) - want :] if len(pods) > want else pods + [False] * (want - len(pods))
        self.pods[name] = pods
        self.tell(name)

    def tell(self, name: str) -> None:
        pods, rs = self.pods[name], self.sets[name]
        new = apps_v1.ReplicaSetStatus(
            replicas=len(pods),
            ready_replicas=sum(pods),
            available_replicas=sum(pods),
            observed_generation=rs.metadata.generation,
        )
        self.sets[name] = msgspec.structs.replace(rs, status=new)

    def become_available(self, name: str, count: int = 1) -> None:
        pods = sorted(self.pods[name])
        for i in range(len(pods)):
            if not pods[i] and count:
                pods[i] = True
                count -= 1
        self.pods[name] = pods
        self.tell(name)

    @property
    def available(self) -> int:
        return sum(sum(p) for p in self.pods.values())

    @property
    def total(self) -> int:
        return sizes.total_size(self.sets.values())

    def change(self, **spec: object) -> None:
        metadata = msgspec.structs.replace(
            self.deployment.metadata, generation=(self.deployment.metadata.generation or 0) + 1
        )
        new = msgspec.structs.replace(self.deployment.spec, **spec)
        self.deployment = msgspec.structs.replace(self.deployment, metadata=metadata, spec=new)

    def settle(self, rounds: int = 400) -> None:
        for _ in range(rounds):
            before = (dict(self.sets), self.deployment.status, {k: list(v) for k, v in self.pods.items()})
            self.reconcile()
            for name in list(self.sets):
                self.run_set(name)
                self.become_available(name, 1000)
            if before == (self.sets, self.deployment.status, self.pods):
                return
        raise AssertionError("does not converge")

    def condition(self, type_: str) -> apps_v1.DeploymentCondition:
        found = get_condition(self.deployment.status.conditions, type_)
        assert found is not None
        return found


def running(replicas: int = 3, **options: object) -> Cluster:
    cluster = Cluster(deployment(replicas, **options))  # type: ignore[arg-type]
    cluster.settle()
    return cluster


INT_OR_PERCENT = st.one_of(st.integers(0, 6), st.integers(0, 100).map(lambda n: f"{n}%"))


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 17), INT_OR_PERCENT, INT_OR_PERCENT, st.data())
def test_rolling_keeps_the_floor_and_the_ceiling(
    replicas: int, surge: int | str, unavailable: int | str, data: st.DataObject
) -> None:
    """In any interleaving of reconciles, replica set controllers and pods becoming available."""
    cluster = running(replicas, surge=surge, unavailable=unavailable)
    cluster.change(template=template("v2"))
    floor = replicas - sizes.max_unavailable(cluster.deployment)
    ceiling = replicas + sizes.max_surge(cluster.deployment)
    for step in range(60):
        if step == 20:
            cluster.change(template=template("v3"))
        names = sorted(cluster.sets)
        match data.draw(st.integers(0, 2)):
            case 0:
                cluster.reconcile()
            case 1:
                cluster.run_set(data.draw(st.sampled_from(names)))
            case 2:
                cluster.become_available(data.draw(st.sampled_from(names)), data.draw(st.integers(1, 3)))
        assert cluster.available >= floor
        assert cluster.total <= ceiling
    cluster.settle()
    new = revisions.find_new(cluster.deployment, cluster.sets.values())
    assert new is not None and sizes.size(new) == replicas == cluster.total == cluster.available
    assert cluster.condition("Progressing").reason == "NewReplicaSetAvailable"


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 30), st.integers(0, 40), INT_OR_PERCENT, INT_OR_PERCENT, st.integers(0, 8))
def test_scaling_in_the_middle_of_a_rollout(
    replicas: int, after: int, surge: int | str, unavailable: int | str, steps: int
) -> None:
    cluster = running(replicas, surge=surge, unavailable=unavailable)
    cluster.change(template=template("v2"))
    for _ in range(steps):
        cluster.reconcile()
        for name in list(cluster.sets):
            cluster.run_set(name)
            cluster.become_available(name, 1)
    cluster.change(replicas=after)
    cluster.reconcile()
    if after:
        assert cluster.total <= after + sizes.max_surge(cluster.deployment)
    cluster.settle()
    assert cluster.total == after


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(1, 60), st.integers(0, 20))
def test_proportional_sizes_add_up(parts: list[int], after: int, surge: int) -> None:
    d = deployment(after, surge=surge, unavailable=1)
    before = deployment(sum(parts), surge=surge, unavailable=1)
    sets = []
    for i, part in enumerate(parts):
        rs = planning.new_replica_set(deployment(image=f"v{i}"))
        rs.spec.replicas = part
        rs.metadata.creation_timestamp = format_time(NOW + i)
        rs.metadata.annotations = revisions.replica_annotations(before)
        sets.append(rs)
    out = sizes.proportional(d, sets)
    assert all(v >= 0 for v in out.values())
    assert sum(out.values()) == after + surge or min(out.values()) == 0


def test_a_new_deployment() -> None:
    cluster = Cluster(deployment(3))
    made = cluster.reconcile()
    (create,) = made.actions
    assert isinstance(create, Create)
    rs = create.replica_set
    short = (rs.metadata.labels or {})["pod-template-hash"]
    assert rs.metadata.name == f"web-{short}"
    assert rs.spec.selector.match_labels == {"app": "web", "pod-template-hash": short}
    assert rs.metadata.annotations == {sizes.REVISION: "1", sizes.DESIRED: "3", sizes.MAXIMUM: "4"}
    assert cluster.events == [f"Scaled up replica set web-{short} from 0 to 3"]
    assert made.revision == "1"
    assert cluster.condition("Progressing").reason == "NewReplicaSetCreated"
    assert cluster.condition("Progressing").message == f'Created new replica set "web-{short}"'
    assert cluster.condition("Available").reason == "MinimumReplicasUnavailable"
    cluster.settle()
    assert cluster.condition("Progressing").message == f'ReplicaSet "web-{short}" has successfully progressed.'
    assert cluster.condition("Available").status == "True"
    assert not cluster.reconcile().actions


def test_the_first_steps_of_an_update() -> None:
    cluster = running(10)
    cluster.change(template=template("v2"))
    cluster.events.clear()
    made = cluster.reconcile()
    create, update = made.actions
    assert isinstance(create, Create) and isinstance(update, Update)
    assert create.replica_set.spec.replicas == 3  # 25 % of 10, up
    assert update.new.spec.replicas == 8  # 25 % of 10, down
    assert cluster.events[1].startswith("Scaled down replica set web-") and cluster.events[1].endswith("from 10 to 8")


def test_rollback_numbers_the_old_set_again() -> None:
    cluster = running(2)
    first = next(iter(cluster.sets))
    cluster.change(template=template("v2"))
    cluster.settle()
    cluster.change(template=template("v1"))
    cluster.settle()
    annotations = cluster.sets[first].metadata.annotations or {}
    assert annotations[sizes.REVISION] == "3" and annotations[sizes.HISTORY] == "1"
    assert (cluster.deployment.metadata.annotations or {})[sizes.REVISION] == "3"
    assert len(cluster.sets) == 2


def test_history_is_limited() -> None:
    cluster = running(1, history=2)
    for i in range(2, 7):
        cluster.change(template=template(f"v{i}"))
        cluster.settle()
    assert sorted(revisions.revision(rs) for rs in cluster.sets.values()) == [4, 5, 6]


def test_recreate_waits_for_the_old_pods() -> None:
    cluster = running(3, strategy="Recreate")
    (old,) = cluster.sets
    cluster.change(template=template("v2"))
    cluster.reconcile()
    assert sizes.size(cluster.sets[old]) == 0 and len(cluster.sets) == 1
    cluster.reconcile()
    assert len(cluster.sets) == 1  # its pods still run
    cluster.run_set(old)
    cluster.reconcile()
    assert cluster.total == 3 and len(cluster.sets) == 2


def test_pause_and_resume() -> None:
    cluster = running(3)
    cluster.change(paused=True, template=template("v2"))
    cluster.reconcile()
    assert len(cluster.sets) == 1
    assert cluster.condition("Progressing").reason == "DeploymentPaused"
    cluster.change(replicas=5)
    cluster.reconcile()
    assert cluster.total == 5
    cluster.change(paused=None)
    cluster.reconcile()
    assert len(cluster.sets) == 2
    cluster.settle()
    assert cluster.condition("Progressing").reason == "NewReplicaSetAvailable"


def test_deadline() -> None:
    cluster = Cluster(deployment(1, deadline=60))
    cluster.reconcile()
    (name,) = cluster.sets
    cluster.run_set(name)
    made = cluster.reconcile()
    assert made.again is not None and made.again <= 61
    cluster.now += 62
    assert cluster.reconcile().again is None
    condition = cluster.condition("Progressing")
    assert (condition.status, condition.reason) == ("False", "ProgressDeadlineExceeded")
    assert condition.message == f'ReplicaSet "{name}" has timed out progressing.'
    cluster.become_available(name)
    cluster.reconcile()
    assert cluster.condition("Progressing").reason == "NewReplicaSetAvailable"


def test_a_broken_update_keeps_the_old_pods_and_is_cleaned_up_by_the_next() -> None:
    cluster = running(4, surge=1, unavailable=0)
    (old,) = cluster.sets
    cluster.change(template=template("broken"))
    for _ in range(10):
        cluster.reconcile()
        for name in list(cluster.sets):
            cluster.run_set(name)
    assert sizes.size(cluster.sets[old]) == 4 and cluster.total == 5
    cluster.change(template=template("v3"))
    for _ in range(3):
        cluster.reconcile()
    broken = next(rs for rs in cluster.sets.values() if rs.metadata.name != old)
    assert sizes.size(broken) == 0


def test_two_reconciles_of_the_same_state_say_the_same() -> None:
    cluster = running(7)
    cluster.change(template=template("v2"))
    sets = list(cluster.sets.values())
    assert plan(cluster.deployment, sets, NOW) == plan(cluster.deployment, sets[::-1], NOW)


@pytest.mark.parametrize(
    ("value", "total", "up", "expected"),
    [("25%", 10, True, 3), ("25%", 10, False, 2), (5, 10, True, 5), (None, 10, True, 0), ("0%", 7, True, 0)],
)
def test_scaled_value(value: int | str | None, total: int, up: bool, expected: int) -> None:
    assert scaled_value(value, total, up=up) == expected
