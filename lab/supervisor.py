"""The lab's supervisor: forks components, watches them, starts them again when they die.

It is the fork server of DESIGN decision 10: it imports what the components share once, freezes that, and has no thread, no
event loop and no channel, so that a component starts in a few milliseconds and shares most of its memory with the others.
It does one thing at a time, on request: a JSON line over a unix socket, a JSON line back.

What runs is written to ``processes.json`` at every change. If the supervisor itself is killed, the components go on; the
next one adopts them from that file.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lab import cgroups
from lab.namespaces import ProcessId, set_process_name
from lab.nodenamespaces import ALL_NAMESPACES
from lab.paths import LabError, LabPaths, write_private

# What each component imports, by its entry: imported once, before its first fork.
PRELOAD = {
    "apiserver.main": ("uvloop", "apiserver.assembly", "apiserver.storage.etcd", "apiserver.storage.sqlite"),
    "controllers.main": (),
    "scheduler.main": (),
    "nodeagent.main": (
        "nodeagent.linux.hostnamespace",
        "nodeagent.images.store",
        "nodeagent.runtime.oci",
        "aiohttp.web",  # its server
    ),
    "proxy.main": (),
    "nodeagent.hollow.main": ("aiohttp.web",),
}
FIRST_DELAY, MOST_DELAY, STEADY = 0.1, 10.0, 10.0  # seconds: restart back-off, and after how long it is forgotten


@dataclass
class Spec:
    """What to run: a component's ``module`` (its ``main(argv)`` is called in the fork) or a program (``exec``)."""

    name: str
    module: str = ""
    argv: list[str] = field(default_factory=list)
    exec: list[str] = field(default_factory=list)
    cwd: str = "/"
    log: str = "/dev/null"
    cgroup: str = ""
    node: dict[str, Any] | None = None  # the init of the node to run it in
    env: dict[str, str] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)  # files that one which was killed leaves and the next stumbles over


@dataclass
class Managed:
    spec: Spec
    process: ProcessId | None = None
    child: bool = False  # ours to reap
    pidfd: int = -1
    started: float = 0.0
    delay: float = 0.0
    due: float = 0.0  # when to start it again, 0 if it runs
    restarts: int = 0
    last_exit: str = ""


class Supervisor:
    def __init__(self, paths: LabPaths) -> None:
        self.paths = paths
        self.managed: dict[str, Managed] = {}
        self.selector = selectors.DefaultSelector()
        self.stopping = False

    # The outside

    def serve(self, listening: Callable[[], None]) -> None:
        """Runs until asked to shut down; calls ``listening`` once requests can come."""
        with contextlib.suppress(FileNotFoundError):
            self.paths.socket.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_path(self.paths.socket) as path:
            listener.bind(path)
        os.chmod(self.paths.socket, 0o600)
        listener.listen(16)
        self.selector.register(listener, selectors.EVENT_READ, None)
        self.adopt()
        listening()
        while not self.stopping:
            for key, _ in self.selector.select(self.next_due()):
                if key.data is None:
                    self.answer(listener)
                else:
                    self.ended(key.data)
            self.start_due()
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            self.paths.socket.unlink()

    def answer(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            connection.settimeout(5)
            try:
                request = json.loads(stream.readline() or b"{}")
                reply = {"result": getattr(self, "do_" + request.pop("do"))(**request)}
            except Exception as error:
                traceback.print_exc()
                reply = {"error": f"{type(error).__name__}: {error}"}
            with contextlib.suppress(OSError):
                stream.write(json.dumps(reply).encode() + b"\n")
                stream.flush()

    # Requests

    def do_list(self) -> list[dict[str, Any]]:
        return [
            {
                "name": m.spec.name,
                "pid": m.process.pid if m.process and m.pidfd >= 0 else 0,
                "restarts": m.restarts,
                "last_exit": m.last_exit,
            }
            for m in self.managed.values()
        ]

    def do_start(self, specs: list[dict[str, Any]]) -> list[int]:
        """Starts what is not running yet; a changed specification takes effect at the next start."""
        pids = []
        for data in specs:
            spec = Spec(**data)
            managed = self.managed.setdefault(spec.name, Managed(spec))
            managed.spec = spec
            if managed.pidfd < 0:
                managed.delay = 0.0
                self.launch(managed)
            pids.append(managed.process.pid if managed.process else 0)
        self.save()
        return pids

    def do_stop(self, names: list[str], timeout: float = 10.0) -> None:
        """TERM, and KILL after ``timeout`` seconds; they are not started again."""
        going = [self.managed.pop(n) for n in names if n in self.managed]
        for managed in going:
            if managed.process:
                managed.process.kill(signal.SIGTERM)
        end = time.monotonic() + timeout
        for managed in going:
            if managed.process and not managed.process.wait_gone(max(0.0, end - time.monotonic())):
                managed.process.kill(signal.SIGKILL)
                managed.process.wait_gone(5)
            self.forget(managed)
        self.save()

    def do_shutdown(self, timeout: float = 10.0) -> None:
        self.do_stop(list(self.managed), timeout)
        self.stopping = True

    # The inside

    def adopt(self) -> None:
        """Takes over what an earlier supervisor started and is still there."""
        try:
            known = json.loads(self.paths.processes.read_text())
        except (FileNotFoundError, ValueError):
            return
        for entry in known:
            process = ProcessId.load(entry["process"])
            if process is not None and process.alive():
                managed = Managed(Spec(**entry["spec"]), process)
                self.managed[managed.spec.name] = managed
                self.watch(managed)

    def save(self) -> None:
        state = [
            {"spec": asdict(m.spec), "process": m.process.dump()}
            for m in self.managed.values()
            if m.process is not None
        ]
        write_private(self.paths.processes, json.dumps(state))

    def watch(self, managed: Managed) -> None:
        assert managed.process is not None
        managed.started = time.monotonic()
        managed.due = 0.0
        managed.pidfd = managed.process.open() or -1
        if managed.pidfd >= 0:
            self.selector.register(managed.pidfd, selectors.EVENT_READ, managed)
        else:
            self.ended(managed)

    def forget(self, managed: Managed) -> None:
        if managed.pidfd >= 0:
            with contextlib.suppress(KeyError):
                self.selector.unregister(managed.pidfd)
            os.close(managed.pidfd)
            managed.pidfd = -1
        if managed.child and managed.process:
            with contextlib.suppress(ChildProcessError):
                _, status = os.waitpid(managed.process.pid, 0)
                code = os.waitstatus_to_exitcode(status)
                managed.last_exit = f"signal {-code}" if code < 0 else f"exit {code}"

    def ended(self, managed: Managed) -> None:
        managed.last_exit = "ended"
        self.forget(managed)
        if self.dropped(managed):
            return
        if time.monotonic() - managed.started > STEADY:
            managed.delay = 0.0
        managed.delay = min(MOST_DELAY, managed.delay * 2 or FIRST_DELAY)
        managed.due = time.monotonic() + managed.delay
        managed.restarts += 1
        print(f"{managed.spec.name}: {managed.last_exit}; starts again in {managed.delay:.1f} s", flush=True)

    def dropped(self, managed: Managed) -> bool:
        """Whether the component went down with its node, and is given up."""
        node = ProcessId.load(managed.spec.node)
        if node is None or node.enterable():
            return False
        self.managed.pop(managed.spec.name, None)
        self.save()
        return True

    def next_due(self) -> float | None:
        due = [m.due for m in self.managed.values() if m.due]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def start_due(self) -> None:
        for managed in list(self.managed.values()):
            if managed.due and managed.due <= time.monotonic() and not self.dropped(managed):
                self.launch(managed)
                self.save()

    def launch(self, managed: Managed) -> None:
        spec = managed.spec
        preload(spec.module)
        for stale in spec.stale:
            Path(stale).unlink(missing_ok=True)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self.first_fork(spec, writer)
        os.close(writer)
        if spec.node is None:
            os.close(reader)
            managed.child, managed.process = True, ProcessId.of(pid)
        else:
            with os.fdopen(reader, "rb") as file:
                inner = file.read()
            os.waitpid(pid, 0)
            managed.child, managed.process = False, ProcessId.of(int(inner)) if inner else None
        if managed.process is None:  # the node ended meanwhile, or cannot be entered
            managed.started = time.monotonic()
            self.ended(managed)
            return
        self.watch(managed)

    def first_fork(self, spec: Spec, writer: int) -> NoReturn:
        """In the child: joins cgroup and namespaces, forks once more for a node, and runs the component."""
        try:
            if spec.cgroup:
                cgroups.join(spec.cgroup)
            os.setsid()
            log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if spec.node is not None:
                init = ProcessId.load(spec.node)
                assert init is not None
                init.enter(ALL_NAMESPACES)
                pid = os.fork()  # PID namespaces apply to children; the node's init adopts this one
                if pid:
                    os.write(writer, str(pid).encode())
                    os._exit(0)
                os.setsid()
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.closerange(3, 1024)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            # Python ignores SIGPIPE and raises instead: a client that hangs up must not kill a server. Programs start afresh.
            signal.signal(signal.SIGPIPE, signal.SIG_DFL if spec.exec else signal.SIG_IGN)
            os.environ.update(spec.env)
            os.chdir(spec.cwd)
            if spec.exec:
                os.execvp(spec.exec[0], spec.exec)
            run_component(spec)
        except BaseException:
            traceback.print_exc()
        os._exit(70)


def reopen_output() -> None:
    """Lets print and tracebacks go to the descriptors as they are now, line by line."""
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def run_component(spec: Spec) -> NoReturn:
    """Calls the component's main in this process."""
    reopen_output()
    set_process_name(f"nv-{spec.name}")
    code = 70
    try:
        code = int(importlib.import_module(spec.module).main(spec.argv) or 0)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def preload(module: str) -> None:
    """Imports what a component's forks share, so that they have it for free. The API server comes first and boots while
    the others' turn comes."""
    if module in sys.modules or module not in PRELOAD:
        return
    for name in (module, *PRELOAD[module]):
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"not preloaded: {name}: {error}", flush=True)
    gc.collect()
    gc.freeze()


def spawn(paths: LabPaths, cgroup: str) -> None:
    """Starts the supervisor as a daemon and returns once it listens."""
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as file:
            file.read()
        return
    try:
        if cgroup:
            cgroups.join(cgroup)
        os.setsid()
        if os.fork():
            os._exit(0)
        log = os.open(paths.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # What our parent has open, the lab's lock above all, must not stay open with us.
        os.closerange(3, writer)
        os.closerange(writer + 1, 4096)
        reopen_output()
        os.chdir("/")
        set_process_name("nv-supervisor")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads, and forks lose them
        supervisor = Supervisor(paths)
        (paths.run / "supervisor.json").write_text(json.dumps(ProcessId.of(os.getpid()).dump()))
        supervisor.serve(lambda: os.close(writer))
    except BaseException:
        traceback.print_exc()
    os._exit(0)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another name of a socket file: addresses of unix sockets end at 107 bytes, NAVARCH_HOME may be deeper."""
    directory = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def identity(paths: LabPaths) -> ProcessId | None:
    """The running supervisor of the lab, None if there is none."""
    try:
        process = ProcessId.load(json.loads((paths.run / "supervisor.json").read_text()))
    except (FileNotFoundError, ValueError):
        return None
    return process if process is not None and process.alive() else None


def request(paths: LabPaths, do: str, timeout: float = 60.0, **arguments: Any) -> Any:
    """Asks the lab's supervisor. Raises LabError if it is not there or refuses."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            with short_path(paths.socket) as path:
                connection.connect(path)
            connection.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as stream:
                reply = json.loads(stream.readline() or b'{"error": "no answer"}')
        except OSError as error:
            raise LabError(f'lab "{paths.name}" is not up ({error}); start it with: navarch up') from error
    if "error" in reply:
        raise LabError(f"supervisor: {reply['error']}")
    return reply["result"]
