"""The lab's supervisor: forks components, watches them, starts them again when they die or hang.

It is the fork server of DESIGN decision 10: it imports what the components share once, freezes that, and has no thread, no
event loop and no channel, so that a component starts in a few milliseconds and shares most of its memory with the others.
It does one thing at a time, on request: a JSON line over a unix socket, a JSON line back. Every few seconds it asks each
component whether it is alive (:mod:`lab.liveness`).

What runs is written to ``processes.json`` at every change. If the supervisor itself is killed, the components go on; the
next one adopts them from that file.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lab import cgroups
from lab.forking import Spec, fork, preload, reopen_output, short_path
from lab.liveness import PERIOD, Pulse, last_lines, reason
from lab.managed import Managed
from lab.namespaces import ProcessId
from lab.paths import LabError, LabPaths, write_private
from lab.ports import OpenSockets, turn_away
from navarch.linux.syscalls import (
    set_process_name,
)

MAX_REQUEST = 1 << 24  # bytes
PATIENT = 1.0  # seconds of back-off from which on clients of the component's sockets are sent away


class Supervisor:
    """``sockets`` listen already, for the components whose specification has their addresses."""

    def __init__(self, paths: LabPaths, sockets: Iterable[socket.socket] = ()) -> None:
        self.paths = paths
        self.managed: dict[str, Managed] = {}
        self.selector = selectors.DefaultSelector()
        self.sockets = OpenSockets(sockets)
        self.stopping = False
        self.last_question = time.monotonic()

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
        self.selector.register(listener, selectors.EVENT_READ, lambda: self.answer(listener))
        self.adopt()
        listening()
        while not self.stopping:
            for key, _ in self.selector.select(self.next_due()):
                key.data()
            self.ask_all()
            self.start_due()
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            self.paths.socket.unlink()

    def answer(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):  # whoever hangs up gets no answer
            connection.settimeout(5)
            with connection.makefile("rb") as stream:
                line = stream.readline(MAX_REQUEST)
            try:
                request = json.loads(line or b"{}")
                reply = {"result": getattr(self, "do_" + request.pop("do"))(**request)}
            except Exception as error:
                traceback.print_exc()
                reply = {"error": f"{type(error).__name__}: {error}"}
            connection.sendall(json.dumps(reply).encode() + b"\n")

    # Requests

    def do_list(self) -> list[dict[str, Any]]:
        return [m.state() for m in self.managed.values()]

    def do_start(self, specs: list[dict[str, Any]]) -> list[int]:
        """Starts what is not running yet; what runs with another specification is ended and started with the new one."""
        pids = []
        for data in specs:  # all first: an import writes to memory that what was forked before shares
            preload(data.get("module", ""))
        for data in specs:
            spec = Spec(**data)
            managed = self.managed.setdefault(spec.name, Managed(spec))
            if managed.runs and managed.spec != spec:
                print(f"{spec.name}: starts again with other settings", flush=True)
                self.end([managed], 10.0)
            managed.spec = spec
            if not managed.runs:
                managed.delay = 0.0
                self.launch(managed)
            pids.append(managed.process.pid if managed.process else 0)
        self.save()
        return pids

    def do_stop(self, names: list[str], grace: float = 10.0) -> None:
        """TERM, and KILL after ``grace`` seconds; they are not started again."""
        going = [self.managed.pop(n) for n in names if n in self.managed]
        for managed in going:
            self.unattended(managed, False)
            self.sockets.close(managed.spec.name)
        self.end(going, grace)
        self.save()

    def do_signal(self, name: str, number: int) -> bool:
        """Sends a component a signal. False if it does not run."""
        managed = self.managed.get(name)
        if managed is None or managed.process is None or not managed.runs:
            return False
        managed.process.kill(number)
        return True

    def do_shutdown(self) -> None:
        self.do_stop(list(self.managed))
        self.stopping = True

    # The inside

    def adopt(self) -> None:
        """Takes over what an earlier supervisor started; what has ended meanwhile is started again."""
        try:
            entries = json.loads(self.paths.processes.read_text())
        except (FileNotFoundError, ValueError):
            return
        for entry in entries:
            process = ProcessId.load(entry["process"])
            managed = Managed(Spec(**entry["spec"]), process, **entry.get("known", {}))
            if process is not None and not process.booted_here():
                continue  # before a reboot
            self.managed[managed.spec.name] = managed
            if process is not None and process.alive():
                self.watch(managed)
            else:
                self.ended(managed)

    def save(self) -> None:
        """Notes what runs. A disk that is full costs the note, not the lab."""
        try:
            write_private(self.paths.processes, json.dumps([m.dump() for m in self.managed.values()]))
        except OSError as error:
            print(f"cannot write {self.paths.processes}: {error.strerror}", flush=True)

    def watch(self, managed: Managed) -> None:
        assert managed.process is not None
        managed.started, managed.since = time.monotonic(), time.time()
        managed.due = 0.0
        managed.pidfd = managed.process.open() or -1
        if managed.runs:
            self.selector.register(managed.pidfd, selectors.EVENT_READ, lambda: self.ended(managed))
            if managed.spec.alive:
                managed.pulse = Pulse(managed.spec.alive, managed.spec.health)
                managed.pulse.ask(managed.process.pid, 0.0)
        else:
            self.ended(managed)

    def forget(self, managed: Managed) -> None:
        if managed.runs:
            with contextlib.suppress(KeyError):
                self.selector.unregister(managed.pidfd)
        managed.reap()

    def end(self, going: list[Managed], timeout: float) -> None:
        for managed in going:
            if managed.process and managed.runs:
                managed.process.kill(signal.SIGTERM)
        end = time.monotonic() + timeout
        for managed in going:
            if managed.process and managed.runs and not managed.process.wait_gone(max(0.0, end - time.monotonic())):
                managed.process.kill(signal.SIGKILL)
                managed.process.wait_gone(5)
            self.forget(managed)

    def ended(self, managed: Managed) -> None:
        managed.last_exit = "ended"
        self.forget(managed)
        if self.dropped(managed):
            return
        managed.ended()
        self.unattended(managed, managed.delay >= PATIENT)
        print(f"{managed.spec.name}: {managed.why}; starts again in {managed.delay:.1f} s", flush=True)

    def unattended(self, managed: Managed, alone: bool) -> None:
        """Sends clients of the component's sockets away as long as it is ``alone``."""
        for each in self.sockets.of_component(managed.spec.name):
            registered = each in self.selector.get_map()
            if alone and not registered:
                self.selector.register(each, selectors.EVENT_READ, lambda each=each: turn_away(each))
            elif registered and not alone:
                self.selector.unregister(each)

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
        if any(m.pulse for m in self.managed.values()):
            due.append(self.last_question + PERIOD)
        return max(0.0, min(due) - time.monotonic()) if due else None

    def ask_all(self) -> None:
        """Asks every component whether it is alive, when it is time to; kills those that have not answered for long."""
        passed = time.monotonic() - self.last_question
        if passed < PERIOD:
            return
        self.last_question = time.monotonic()
        for managed in list(self.managed.values()):
            if managed.pulse and managed.process and managed.runs:
                managed.pulse.ask(managed.process.pid, min(passed, 1.5 * PERIOD))
                if managed.pulse.dead:
                    managed.kill_silent()

    def start_due(self) -> None:
        for managed in list(self.managed.values()):
            if managed.due and managed.due <= time.monotonic() and not self.dropped(managed):
                self.launch(managed)
                self.save()

    def launch(self, managed: Managed) -> None:
        managed.begins()
        try:
            sockets = self.sockets.of(managed.spec.name, managed.spec.listen)
            self.unattended(managed, False)
            managed.process, managed.child = fork(managed.spec, sockets)
        except OSError as error:  # an address that others have, a disk that is full
            managed.process, managed.killed = None, error.strerror or str(error)
        if managed.process is None:
            managed.started = time.monotonic()
            self.ended(managed)
            return
        self.watch(managed)


def spawn(paths: LabPaths, cgroup: str, sockets: Sequence[socket.socket] = ()) -> None:
    """Starts the supervisor as a daemon, hands it sockets that listen, and returns once it listens itself.

    Raises LabError if it ends before that."""
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as file:
            started = file.read()
        for each in sockets:
            each.close()
        if not started:
            text = reason(last_lines(str(paths.logs / "supervisor.log")))
            raise LabError(f"the lab's supervisor did not start: {text}")
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
        descriptors = {writer, *(each.fileno() for each in sockets)}
        for fd in range(3, 4096):
            if fd not in descriptors:
                with contextlib.suppress(OSError):
                    os.close(fd)
        reopen_output()
        os.chdir("/")
        set_process_name("nv-supervisor")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy would start threads, and forks lose them
        supervisor = Supervisor(paths, sockets)
        write_private(paths.run / "supervisor.json", json.dumps(ProcessId.of(os.getpid()).dump()))

        def listening() -> None:
            os.write(writer, b"1")
            os.close(writer)

        supervisor.serve(listening)
    except BaseException:
        traceback.print_exc()
    os._exit(0)


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
