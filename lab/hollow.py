"""A lab's simulated nodes: the roster that says which there are, and the one process that plays them all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from lab import components, supervisor
from lab.apiclient import Api
from lab.forking import Spec
from lab.lab import Lab
from lab.pages import page
from lab.paths import LabError, write_private
from nodeagent.hollow.roster import Group, Roster, name_of

COMPONENT = "hollow"


@dataclass(frozen=True)
class HollowNodes:
    """``count`` nodes to be: what `--hollow` and its companions say."""

    count: int
    cpu: str = "4"
    memory: str = "16Gi"
    pods: int = 110
    zones: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    tainted: bool | None = None  # None: if the lab has real nodes, so that nothing lands there by mistake


class Fleet:
    """The simulated nodes of a lab. What changes the roster needs the lab's lock."""

    def __init__(self, lab: Lab, api: Api) -> None:
        self.lab, self.api = lab, api
        self.file = lab.paths.hollow

    @property
    def roster(self) -> Roster:
        return Roster.load(self.file)

    def __contains__(self, name: str) -> bool:
        return name in self.roster

    def _change(self, change: Callable[[Roster], None]) -> None:
        roster = self.roster
        change(roster)
        write_private(self.file, roster.text())
        self.tell()

    def plan(self, new: HollowNodes, real: bool) -> list[str]:
        """Notes more nodes; gives the names of the first and the last."""
        roster = self.roster
        tainted = real if new.tainted is None else new.tainted
        first = roster.next_number
        group = Group(
            first, new.count, new.cpu, new.memory, new.pods, new.zones, dict(new.labels), tainted
        )
        try:
            roster.add(group)
        except ValueError as error:
            raise LabError(str(error)) from error
        write_private(self.file, roster.text())
        return [name_of(first), name_of(first + new.count - 1)]

    def start(self) -> None:
        """Starts the process if there are nodes for it; one that runs reads the roster again."""
        if not len(self.roster):
            return
        supervisor.request(self.lab.paths, "start", specs=[asdict(self._spec())])
        self.tell()

    def _spec(self) -> Spec:
        return components.hollow(self.lab.paths, self.lab.required_record)

    def remove(self, name: str) -> None:
        self._change(lambda roster: roster.remove(name))

    def stop(self, name: str) -> None:
        """Power loss."""
        self._change(lambda roster: roster.stop(name))

    def start_node(self, name: str) -> None:
        self._change(lambda roster: roster.off.pop(name, None))

    def partition(self, name: str, heal: bool) -> None:
        if name in self.roster.off:
            raise LabError(f"node {name} is off; start it with: navarch node start {name}{self.lab.lab_flag}")
        self._change(lambda roster: roster.cut.pop(name, None) if heal else roster.cut.update({name: None}))

    def went_down(self) -> None:
        """The whole lab is switched off: when it comes up again, all nodes boot."""
        roster = self.roster
        if roster.groups:
            roster.downs += 1
            write_private(self.file, roster.text())

    def tell(self) -> dict[str, Any] | None:
        """Lets the process read the roster; what it says of itself, None if it does not run (it will read it then)."""
        try:
            return self._ask()
        except OSError:
            return None

    def _ask(self) -> dict[str, Any]:
        status, body = page(self.lab.paths.hollow_socket, "/status")
        if status != 200:
            raise OSError(body.decode(errors="replace"))
        answer: dict[str, Any] = json.loads(body)
        return answer

    def wait(self, timeout: float) -> None:
        """Waits until all nodes that are on and connected are Ready. ``timeout`` is without progress, in seconds."""
        roster = self.roster
        expected = len(roster) - len(roster.off | roster.cut)
        if expected <= 0:
            return
        self.lab.progress(f"hollow nodes: {expected}")
        best, since = -1, time.monotonic()
        while True:
            answer = self.tell()
            ready = min(expected, answer["ready"]) if answer else 0
            if ready == expected:
                return
            if ready > best:
                best, since = ready, time.monotonic()
                self.lab.progress.detail(f"{ready} Ready")
            if time.monotonic() > since + timeout:
                log = self.lab.paths.logs / f"{COMPONENT}.log"
                raise LabError(
                    f"{ready} of {expected} hollow nodes are Ready, and no more for {timeout:.0f} s; see {log}"
                )
            self.lab.progress.tick()
            time.sleep(0.1)

    def wait_node(self, name: str, timeout: float = 60) -> None:
        """Waits until one node is Ready and has said so lately."""
        began = time.time()
        path = f"/api/v1/nodes/{name}"

        def ready() -> bool:
            status, body = self.api.call("GET", path)
            conditions = json.loads(body)["status"].get("conditions", ()) if status == 200 else ()
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions) and self._renewed(
                name, began
            )

        self.api.wait_for(ready, timeout, f"hollow node {name} did not become Ready", COMPONENT)

    def _renewed(self, name: str, since: float) -> bool:
        from navarch.api.times import parse_time

        status, body = self.api.call(
            "GET", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
        )
        return status == 200 and parse_time(json.loads(body)["spec"]["renewTime"]) >= since

    def status(self) -> dict[str, Any]:
        """The fleet's part of `navarch status -o json`."""
        roster = self.roster
        answer = (self.tell() if self.lab.running() else None) or {}
        groups = [
            {
                "first": name_of(g.first),
                "last": name_of(g.first + g.count - 1),
                "count": sum(name_of(n) not in roster.removed for n in g.numbers),
                "cpu": g.cpu,
                "memory": g.memory,
                "pods": g.pods,
                "zones": g.zones,
                "labels": g.labels,
                "tainted": g.tainted,
            }
            for g in roster.groups
        ]
        return {
            "count": len(roster),
            "ready": answer.get("ready", 0),
            "pods": answer.get("pods", 0),
            "leaseSeconds": answer.get("lease", 0),
            "groups": [g for g in groups if g["count"]],
            "off": list(roster.off),
            "partitioned": list(roster.cut),
        }


def rights() -> list[tuple[str, dict[str, Any]]]:
    """The rights of the fleet's user, and no more: (path of the collection, object) pairs."""
    group, name = "rbac.authorization.k8s.io", "navarch:hollow-nodes"
    allowed = {
        ("", "nodes"): "create get list watch",
        ("", "nodes/status"): "patch",
        ("", "pods"): "delete get list watch",
        ("", "pods/status"): "patch",
        ("coordination.k8s.io", "leases"): "create get list update",
        ("authentication.k8s.io", "tokenreviews"): "create",
        ("authorization.k8s.io", "subjectaccessreviews"): "create",
    }
    rules = [{"apiGroups": [g], "resources": [r], "verbs": verbs.split()} for (g, r), verbs in allowed.items()]
    common = {"apiVersion": f"{group}/v1", "metadata": {"name": name}}
    subjects = [{"kind": "User", "apiGroup": group, "name": components.HOLLOW_USER}]
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": name}
    return [
        (f"/apis/{group}/v1/clusterroles", common | {"kind": "ClusterRole", "rules": rules}),
        (
            f"/apis/{group}/v1/clusterrolebindings",
            common | {"kind": "ClusterRoleBinding", "roleRef": reference, "subjects": subjects},
        ),
    ]
