"""A cluster for notebooks and tests, virtual or real, with the same words.

    with Cluster(nodes=3, seed=1) as cluster:
        cluster.apply(WEB)
        cluster.wait("available(deployment/web)")
        cluster.set_image("deployment/web", "web:v2")
        cluster.wait("rolled_out(deployment/web)", timeout=600)
        cluster.plot({"ready": "ready(deployment/web)"})

Conditions are those of an experiment's steps (docs/experiments.md), or a function of the State. Times are in seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.interactive.session import Condition, Session, Tree, Trees
from lab.interactive.thread import ClusterThread
from lab.interactive.why import Why, explained, kubeconfig_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lab.experiments.file import Experiment
    from lab.experiments.recording import Recording
    from lab.experiments.state import State

Manifests = str | Path | Mapping[str, Any] | Sequence[Any]


class Cluster:
    """See the module. Calls return when they are done; of a virtual cluster nothing happens between two of them.

    ``nodes``: a number, or groups as a file has them: ``[{"count": 3, "cpu": "8", "zones": 2}]``. ``mode``: ``simulated``; or a
    lab of its own that is gone when the cluster is closed, with ``hollow`` nodes or ``real`` ones (as root), where time is the
    wall clock's. ``fields``: others of the file's ``cluster`` (``set={"controllers.node-monitor-grace-period": "20s"}``,
    ``scheduler={"plugins": ["mine.py:Mine"]}``), and ``behaviour``. Warns of those that the mode does not apply.
    Raises WrongFile, LabError.
    """

    def __init__(
        self, nodes: int | Sequence[Mapping[str, Any]] = 3, *, mode: str = "simulated", seed: int = 1, **fields: Any
    ) -> None:
        from lab.experiments import limits
        from lab.experiments.drivers.labs import about

        groups = [{"count": nodes}] if isinstance(nodes, int) else list(nodes)
        experiment = _experiment(groups, mode, fields)
        always = limits.notes(_experiment([{}], mode, {}))
        for note in limits.notes(experiment):
            if note not in always:
                warnings.warn(note, stacklevel=2)
        self.mode = mode
        self._thread = ClusterThread(Session(experiment, seed, **(about(mode) if mode != "simulated" else {})))

    @property
    def _session(self) -> Session:
        return self._thread.session

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Puts the cluster away; the recording stays readable."""
        self._thread.close()

    # Objects

    def apply(self, manifests: Manifests, namespace: str = "default") -> None:
        """Creates objects, or patches those that exist: a text, a Path of a file or a folder, an object, or several."""
        self._thread.call(lambda session: session.apply(manifests, namespace))

    def get(self, reference: str, namespace: str = "default") -> Tree:
        """An object, such as ``deployment/web``. Raises NotFound."""
        tree: Tree = self._thread.call(lambda session: session.get(reference, namespace))
        return tree

    def list(self, resource: str, namespace: str | None = "default", selector: str = "") -> Trees:
        """The objects of a kind in a namespace (None: in all), by labels such as ``app=web``."""
        trees: Trees = self._thread.call(lambda session: session.objects(resource, namespace, selector))
        return trees

    def delete(self, reference: str, namespace: str = "default") -> None:
        self._thread.call(lambda session: session.delete(reference, namespace))

    # Deeds of an operator. A reference in another namespace is ``namespace:deployment/web``.

    def do(self, **deeds: Any) -> None:
        """Any deed that a step of an experiment can do: ``do(scale={"deployment/web": 5})``."""
        self._thread.call(lambda session: session.do({k.replace("_", "-"): v for k, v in deeds.items()}))

    def scale(self, reference: str, replicas: int) -> None:
        self.do(scale={reference: replicas})

    def set_image(self, reference: str, image: str) -> None:
        self.do(set_image={reference: image})

    def restart(self, reference: str) -> None:
        """As ``rollout restart``."""
        self.do(restart=reference)

    def patch(self, reference: str, body: Mapping[str, Any]) -> None:
        """A strategic merge patch."""
        self.do(patch={reference: dict(body)})

    def cordon(self, node: str) -> None:
        self.do(cordon=node)

    def uncordon(self, node: str) -> None:
        self.do(uncordon=node)

    def drain(self, node: str) -> None:
        """Cordons it and begins to evict its pods; evictions that a budget refuses are tried again while time goes on."""
        self.do(drain=node)

    # Faults

    def fault(self, **fault: Any) -> None:
        """Any fault of an experiment: ``fault(power_off="node-1")``; with ``for_="60s"`` it ends by itself."""
        names = {k.rstrip("_").replace("_", "-"): v for k, v in fault.items()}
        self._thread.call(lambda session: session.fault(names))

    def end_fault(self, **fault: Any) -> None:
        """Ends one: ``end_fault(power_off="node-1")``."""
        ((name, target),) = ((k.replace("_", "-"), str(v)) for k, v in fault.items())
        self._thread.call(lambda session: session.end_fault(name, target))

    # Time

    @property
    def now(self) -> float:
        """Seconds since the cluster was there."""
        return self._session.now

    def run(self, seconds: float) -> None:
        """Lets so much time go by; of a lab, really."""
        self._thread.call(lambda session: session.driver.sleep(seconds))

    def wait(self, condition: Condition, timeout: float = 60.0) -> Any:
        """Lets time go by until a condition holds, and gives its value. Raises TimeoutError with a picture of the cluster."""
        return self._thread.call(lambda session: session.wait(condition, timeout))

    def ask(self, condition: str) -> Any:
        """The value of a condition now, such as ``ready(deployment/web)``."""
        return self._thread.call(lambda session: session.value(condition))

    # Looking

    def __str__(self) -> str:
        """Nodes and pods as they are now, a line each."""
        from lab.experiments.telling import at

        return "\n".join([f"at {self.now:.3f} s", *at(self.recording(), self.now)])

    @property
    def state(self) -> State:
        """The objects as they are now, for functions of one's own."""
        if self.mode == "simulated" or self._session.is_over:
            return self._session.state
        state: State = self._thread.call(Session.copy_of_state)  # a lab goes on meanwhile
        return state

    @property
    def kubeconfig(self) -> Path:
        """Of a lab, the file with which kubectl and other clients reach it. Raises ValueError for a simulated cluster."""
        if self.mode == "simulated":
            raise ValueError("a simulated cluster has no server that could be reached; mode hollow and mode real have one")
        return kubeconfig_of(self._session)

    def why(self, pod: str, namespace: str = "default") -> Why:
        """The scheduler's reasons. Raises NotFound."""
        return Why(self._thread.call(lambda session: explained(session, namespace, pod.removeprefix("pod/"))))

    def mark(self, name: str) -> None:
        """Names this moment, for measures and plots."""
        self._thread.call(lambda session: session.set_mark(name))

    def recording(self) -> Recording:
        """All that happened so far."""
        return self._session.tape.until(self.now)

    def save(self, path: str | Path) -> None:
        """Writes the recording, for ``navarch experiment show``, ``diff`` and pandas."""
        self._session.tape.write(Path(path), self.now)

    def measure(self, **measures: str) -> dict[str, float]:
        """Measures of an experiment on what was recorded: ``measure(low="min(ready(deployment/web))")``."""
        from lab.experiments.measures import measure

        return measure(self.recording(), measures)

    def table(self, name: str = "pods") -> Any:
        """A pandas DataFrame: pods, nodes, decisions, changes or events."""
        from lab.experiments.tables import frame

        return frame(self.recording(), name)

    def plot(self, series: Mapping[str, str], **more: Any) -> Figure:
        """Lines over time, by name: ``plot({"ready": "ready(deployment/web)"})``."""
        from lab.experiments.figures import lines

        return lines(self.recording(), series, **more)


def _experiment(groups: Sequence[Any], mode: str, fields: Mapping[str, Any]) -> Experiment:
    """The file that says the same. Raises WrongFile."""
    from lab.experiments import file
    from lab.experiments.schema import Problem, WrongFile

    if mode == "cycle":
        text = "in mode cycle there is nothing but decisions on a trace; a Cluster is simulated, hollow, or real"
        raise WrongFile([Problem("mode", text)])
    named = {k.replace("_", "-"): v for k, v in fields.items()}
    behaviour = named.pop("behaviour", {})
    cluster = {"mode": mode, "nodes": groups, **named}
    tree = {"apiVersion": file.VERSION, "kind": file.KIND, "metadata": {"name": "cluster"}, "cluster": cluster}
    return file.parse({**tree, "behaviour": behaviour})
