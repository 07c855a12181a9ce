"""A lab for one run, in the hands of a process of its own: ``Hand`` asks, ``serve`` does.

The lab's operations block, fork and enter namespaces, which a process with an event loop and threads must not do. And a
process of its own sees its parent go, however it ends: when its standard input is closed it takes the lab down and deletes its
data, and nothing is left behind. It is in a session of its own, so that Ctrl-C in a terminal does not reach it.

A request is a line of JSON on its standard input, the answer one or more on its standard output: ``{"progress": text}`` while
it works, then ``{"result": ...}`` or ``{"error": text}``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lab import supervisor
from lab.cluster import Cluster
from lab.namespaces import ProcessId
from lab.nodenamespaces import group
from lab.paths import LabError, list_labs
from lab.starting import Wishes, bring_up
from navarch.linux.cgroups import Hierarchies

PREFIX = "experiment-"
"""Labs of experiments are called so, and after the process that they are of; the second one at a time has a number, too."""
_names: set[str] = set()
_naming = threading.Lock()


class Hand:
    """The lab of a run. Entering it starts the process; leaving it takes the lab down, if it came up."""

    def __init__(self, name: str = "", progress: Callable[[str], None] = lambda text: None) -> None:
        self.name, self.progress = name, progress
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Hand:
        with _naming:
            own = f"{PREFIX}{os.getpid()}"
            numbered = (f"{own}-{n}" if n else own for n in itertools.count())
            self.name = self.name or next(name for name in numbered if name not in _names)
            _names.add(self.name)
        words = [sys.executable, "-m", __spec__.name, self.name]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self.progress("taking the lab down")
        with patient(), self._process.stdout:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
        _names.discard(self.name)

    def ask(self, do: str, **arguments: Any) -> Any:
        """Has something done, and waits for it. Raises LabError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            while line := self._process.stdout.readline():
                answer = json.loads(line)
                if "progress" in answer:
                    self.progress(answer["progress"])
                elif "error" in answer:
                    raise LabError(answer["error"])
                else:
                    return answer["result"]
        except BrokenPipeError:
            pass
        clean = f"navarch down --purge --lab {self.name}"
        raise LabError(f'the process that holds the lab "{self.name}" has ended; to clean up: {clean}')


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """Ctrl-C is left waiting meanwhile: a lab that is half down helps nobody."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread, which then gets it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Telling:
    """Progress (lab/progress.py) as lines to the parent."""

    def __init__(self, out: IO[str]) -> None:
        self.out = out

    def __call__(self, step: str, /) -> None:
        self.tell({"progress": step})

    def detail(self, text: str) -> None:
        pass

    def tick(self) -> None:
        pass

    def tell(self, what: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the parent is gone: the end of our input says so, too
            self.out.write(json.dumps(what) + "\n")
            self.out.flush()


class Holder:
    """The operations; each request is a method ``do_NAME``."""

    def __init__(self, name: str, telling: Telling) -> None:
        self.cluster = Cluster(name, telling)
        self._specs: dict[str, dict[str, Any]] = {}  # of components that were ended

    def do_up(
        self, nodes: list[dict[str, Any]], settings: dict[str, str], files: dict[str, str], custom_metrics: bool = False
    ) -> dict[str, Any]:
        """``files``: by name of a setting, the text of a file that it shall name."""
        cluster = self.cluster
        if cluster.record is not None:
            name = cluster.paths.name
            raise LabError(f'there is a lab "{name}" already; to remove it: navarch down --purge --lab {name}')
        with cluster.locked():
            cluster.paths.make()
            for setting, text in files.items():
                path = cluster.paths.root / f"{setting}.yaml"
                path.write_text(text)
                settings[setting] = str(path)
        bring_up(cluster, Wishes(nodes=len(nodes), listed=nodes, settings=settings, custom_metrics=custom_metrics))
        return {"kubeconfig": str(cluster.paths.kubeconfig), "inits": self.do_inits()}

    def do_inits(self) -> dict[str, int]:
        """By node that is on and connected, the pid of its init, whose network namespace is the node's."""
        entries = [(e, ProcessId.load(e.init)) for e in self.cluster.required_record.nodes if not e.partitioned]
        return {e.name: init.pid for e, init in entries if init is not None and init.enterable()}

    def do_power_off(self, node: str) -> None:
        self.cluster.stop_node(node)

    def do_power_on(self, node: str) -> None:
        """Returns at once; the node becomes Ready when it does."""
        with self.cluster.locked():
            self.cluster.nodes.start(node)

    def do_partition(self, node: str, heal: bool = False) -> None:
        self.cluster.partition_node(node, heal)

    def do_crash(self, component: str) -> None:
        """Kills it, and keeps the supervisor from starting it again."""
        specs = {entry["spec"]["name"]: entry["spec"] for entry, _ in self.cluster.health.recorded()}
        if component not in specs:
            raise LabError(f"there is no component {component!r}; there are {', '.join(sorted(specs))}")
        self._specs[component] = specs[component]
        supervisor.request(self.cluster.paths, "stop", names=[component], grace=0.0)

    def do_start(self, component: str) -> None:
        if component not in self._specs:
            raise LabError(f"{component} runs already")
        supervisor.request(self.cluster.paths, "start", specs=[self._specs.pop(component)])

    def do_kill(self, node: str, container: str) -> None:
        """Kills all processes of a container, by its id."""
        pods = f"{group(self.cluster.paths.id, node)}/pods"
        for root in Hierarchies().hierarchies():
            for path in (root / pods).rglob(container):
                pids = [int(pid) for pid in (path / "cgroup.procs").read_text().split()]
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if pids:
                    return
        raise LabError(f"no container {container} runs on {node}")


def serve(name: str, requests: IO[str], out: IO[str]) -> None:
    """Answers until the requests end; then takes the lab down and deletes it."""
    telling = Telling(out)
    remove_orphans()
    holder = Holder(name, telling)
    in_use = False
    try:
        for line in requests:
            request = json.loads(line)
            in_use = in_use or request["do"] == "up"
            try:
                telling.tell({"result": getattr(holder, f"do_{request.pop('do')}")(**request)})
            except (LabError, OSError) as error:
                telling.tell({"error": str(error)})
    finally:
        if in_use:
            holder.cluster.down(purge=True)


def remove_orphans() -> None:
    """Takes down labs of experiments whose process, and the one that held the lab, were killed."""
    for name in list_labs():
        pid = name.removeprefix(PREFIX).partition("-")[0]
        if name.startswith(PREFIX) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            Cluster(name).down(purge=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    serve(sys.argv[1], sys.stdin, sys.stdout)
