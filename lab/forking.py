"""How a component becomes a process: a fork of the supervisor that joins its control group and namespaces and calls the
component's ``main``, or a program that takes the fork's place.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import functools
import gc
import importlib
import io
import os
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from lab import cgroups
from lab.namespaces import ProcessId
from lab.nodenamespaces import ALL_NAMESPACES
from navarch import listening, liveness
from navarch.linux.syscalls import (
    set_process_name,
)

DUMP = signal.SIGUSR2  # a component writes the stacks of its threads into its log, whatever it is doing
CONFIGURATION_ERROR = 2  # exit code of a component whose settings are wrong

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
        "nodeagent.nodeplugins",  # grpcio
    ),
    "proxy.main": (),
    "proxy.ingress.main": (),
    "proxy.gateway.main": (),
    "controllers.custommetrics.main": ("aiohttp.web",),
    "controllers.verticalautoscaler.main": ("aiohttp.web",),
    "nodeagent.hollow.main": ("aiohttp.web",),
    "lab.gateway": (),
}


# Kinds that most components follow, by the module of their structs: their decoders are built before the first fork that
# follows them. The API server is not held up: it is forked before that.
SHARED_KINDS = {
    "core_v1": ("Pod", "Node", "Service", "Namespace", "Event", "ConfigMap", "Secret"),
    "coordination_v1": ("Lease",),
    "discovery_v1": ("EndpointSlice",),
    "networking_v1": ("NetworkPolicy",),
}
SERVER = "apiserver.main"


@dataclass
class Spec:
    """A process to run: a component's ``module`` (its ``main(argv)`` is called in the fork) or a program (``exec``)."""

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
    listen: list[str] = field(default_factory=list)  # HOST:PORT of sockets that are opened for it, and stay open
    alive: str = ""  # the unix socket (or HOST:PORT, with health) where it is asked if it is alive; "": it is not asked
    health: str = ""  # the question's path if the answer comes over HTTP (etcd), "" for a component of ours


def fork(spec: Spec, sockets: Sequence[socket.socket]) -> tuple[ProcessId | None, bool]:
    """Starts the component: its process (None if its node ended meanwhile, or cannot be entered) and whether it is our
    child. Raises OSError."""
    preload(spec.module)
    for stale in spec.stale:
        Path(stale).unlink(missing_ok=True)
    alive = _liveness_listener(spec)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _become(spec, writer, [s.fileno() for s in sockets], alive)
    os.close(writer)
    if alive is not None:
        alive.close()
    with os.fdopen(reader, "rb") as file:
        if spec.node is None:
            return ProcessId.of(pid), True
        inner = file.read()
    os.waitpid(pid, 0)
    return (ProcessId.of(int(inner)) if inner else None), False


def _liveness_listener(spec: Spec) -> socket.socket | None:
    """The socket on which the component will answer. Ours, for inside its node it could not put it where we find it."""
    if not spec.alive or spec.health:
        return None
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(spec.alive)
    with short_path(Path(spec.alive)) as path:
        listener.bind(path)
    os.chmod(spec.alive, 0o600)
    listener.listen(4)
    return listener


def _become(spec: Spec, writer: int, sockets: list[int], alive: socket.socket | None) -> NoReturn:
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
        environment = spec.env | _keep(sockets, alive)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # Python ignores SIGPIPE and raises instead: a client that hangs up must not kill a server. Programs start afresh.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL if spec.exec else signal.SIG_IGN)
        os.environ.update(environment)
        os.chdir(spec.cwd)
        if spec.exec:
            os.execvp(spec.exec[0], spec.exec)
        _run(spec)
    except BaseException:
        traceback.print_exc()
    os._exit(70)


def _keep(sockets: list[int], alive: socket.socket | None) -> dict[str, str]:
    """Puts the descriptors that the component needs behind 0, 1 and 2, closes all others, and says where they are."""
    descriptors = [*sockets, *([alive.fileno()] if alive else [])]
    above = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4096) for fd in descriptors]  # out of the way of each other
    os.closerange(listening.FIRST, 4096)
    for place, fd in enumerate(above, listening.FIRST):
        os.dup2(fd, place, inheritable=False)
        os.close(fd)
    environment = listening.environment(len(sockets)) if sockets else {}
    if alive:
        environment[liveness.VARIABLE] = str(listening.FIRST + len(sockets))
    return environment


class Log(io.FileIO):
    """A log file that loses lines when its disk is full: that must not end whoever writes them."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            return super().write(data) or 0
        return len(data)


def reopen_output() -> None:
    """Lets print and tracebacks go to the descriptors as they are now, line by line."""
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(Log(1, "w", closefd=False)), line_buffering=True, errors="replace")
    sys.stderr = io.TextIOWrapper(io.BufferedWriter(Log(2, "w", closefd=False)), line_buffering=True, errors="replace")


def _run(spec: Spec) -> NoReturn:
    """Calls the component's main in this process."""
    reopen_output()
    faulthandler.register(DUMP, file=2, all_threads=True)
    faulthandler.enable(file=2)
    set_process_name(f"nv-{spec.name}")
    code = 70
    try:
        code = int(importlib.import_module(spec.module).main(spec.argv) or 0)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    if code:
        print(f"exit code {code}")  # in a node nobody else can know
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
    if module != SERVER:
        _prepare_kinds()
    gc.collect()
    gc.freeze()


@functools.cache
def _prepare_kinds() -> None:
    from navarch.client import codec

    for module, names in SHARED_KINDS.items():
        structs = importlib.import_module(f"navarch.api.types.{module}")
        for name in names:
            codec.prepare(getattr(structs, name))


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Another name of a socket file: addresses of unix sockets end at 107 bytes, NAVARCH_HOME may be deeper."""
    directory = os.open(path.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
