"""The oci runtime's work, one blocking operation a method. oci.py runs them in threads, never two at a time for the
same sandbox or container.

Order matters everywhere: first the record, then the thing; and a removal undoes in reverse, each step harmless when
there is nothing to undo. So whatever a crash cuts short, ``remove`` finishes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from navarch.linux import syscalls
from navarch.linux.cgroups import Limits
from nodeagent.images.store import ImageStore, Settings
from nodeagent.linux import trees
from nodeagent.linux.cgroups import Cgroups
from nodeagent.network.hostports import HostPortError, HostPorts
from nodeagent.network.network import NoAddress, PodNetwork
from nodeagent.runtime import cdi, rootfs, sandboxes, security, spec, stragglers
from nodeagent.runtime.conmon import CommandFailed, Crun, signal_number
from nodeagent.runtime.imagevolumes import ImageVolumes
from nodeagent.runtime.runtime import CREATED, EXITED, RUNNING, ContainerConfig, RuntimeError_, SandboxConfig
from nodeagent.runtime.state import ContainerRecord, Directories, SandboxRecord, save_container, save_sandbox

START_ERROR_CODE = 128
ASIDE = "removed-"


class Engine:
    """``now`` gives Unix time."""

    def __init__(
        self,
        directories: Directories,
        images: ImageStore,
        cgroups: Cgroups,
        network: PodNetwork,
        crun: Crun,
        now: Callable[[], float],
        seccomp_directory: Path | None = None,
    ) -> None:
        self.directories, self.images, self.cgroups, self.network = directories, images, cgroups, network
        self.crun, self.now, self.seccomp_directory = crun, now, seccomp_directory
        self.host_ports = HostPorts()
        self.image_volumes = ImageVolumes(directories.state / "images", images, directories.data)
        self.swap_limit = cgroups.limits_swap()
        # Without CAP_SYS_RESOURCE nobody may lower the score.
        self._oom_floor = -1000
        if "CAP_SYS_RESOURCE" not in security.available_capabilities():
            self._oom_floor = int(Path("/proc/self/oom_score_adj").read_text())

    # -- sandboxes

    def reserve_sandbox(self, sandbox_id: str, config: SandboxConfig) -> SandboxRecord:
        """Takes an address and writes the record."""
        address = ""
        if not config.host_network:
            try:
                address = self.network.take_address()
            except NoAddress as error:
                raise RuntimeError_("NetworkNotReady", str(error)) from error
        record = SandboxRecord(sandbox_id, config, self.now(), ip=address)
        try:
            self.directories.sandbox(sandbox_id).mkdir()
            save_sandbox(self.directories, record)
        except OSError as error:  # no room for it
            self.network.give_back(address)
            trees.remove(self.directories.sandbox(sandbox_id))
            raise RuntimeError_("CreatePodSandboxError", str(error)) from error
        return record

    def make_sandbox(self, record: SandboxRecord) -> SandboxRecord:
        """Makes what the record describes; takes it down again, and raises RuntimeError_, if that fails."""
        config, directory = record.config, self.directories.sandbox(record.id)
        try:
            limits = config.resources
            self.cgroups.ensure(
                config.cgroup,
                Limits(limits.cpu_shares, limits.cpu_quota, limits.cpu_period, limits.memory_limit, limits.pids_limit),
            )
            network = None if config.host_network else self.network
            sandboxes.create(directory, record.id, config, network, record.ip)
            if record.ip:
                self.host_ports.add(record.ip, config.port_mappings)
            if config.log_directory:
                Path(config.log_directory).mkdir(parents=True, exist_ok=True)
            if config.share_process_namespace and not config.host_pid:
                record = self._start_pause(record)
            record = msgspec.structs.replace(record, ready=True)
            save_sandbox(self.directories, record)
            return record
        except (OSError, CommandFailed, HostPortError, ValueError, RuntimeError) as error:
            self.remove_sandbox(self.stop_sandbox(record), last_of_pod=False)
            raise RuntimeError_("CreatePodSandboxError", str(error)) from error

    def _start_pause(self, record: SandboxRecord) -> SandboxRecord:
        """A process that does nothing but reap: the first of the pod's shared PID namespace."""
        program = shutil.which("catatonit")
        if program is None:
            raise RuntimeError("a pod that shares its process namespace needs catatonit, which is not installed")
        root = self.directories.state / "pause"
        if not (root / "pause").exists():
            for name in ("proc", "dev", "sys"):
                (root / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(program, root / ".pause")
            os.chmod(root / ".pause", 0o755)
            os.rename(root / ".pause", root / "pause")
        bundle = self.directories.sandbox(record.id)
        around = self._surroundings(record, "", bundle)
        namespaces = {**around.namespaces, "pid": ""}
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 65535, "gid": 65535},
                "args": ["/pause", "-P"],
                "cwd": "/",
                "env": ["PATH=/"],
                "noNewPrivileges": True,
                "capabilities": {"bounding": []},
            },
            "root": {"path": str(root), "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro"]}],
            "linux": {
                "namespaces": [{"type": k, "path": p} if p else {"type": k} for k, p in namespaces.items()],
                "cgroupsPath": self.cgroups.path(f"{record.config.cgroup}/{record.id}"),
                **({"resources": {"devices": [{"allow": False, "access": "rwm"}]}} if around.device_rules else {}),
            },
        }
        (bundle / "config.json").write_bytes(msgspec.json.encode(config))
        launched = self.crun.create(
            record.id, bundle, log_path="/dev/null", exits=self.directories.exits, persist=bundle / "conmon"
        )
        record = msgspec.structs.replace(record, pause_pid=launched.pid, pause_start=syscalls.start_time(launched.pid))
        save_sandbox(self.directories, record)
        self.crun.start(record.id)
        return record

    def stop_sandbox(self, record: SandboxRecord) -> SandboxRecord:
        """Takes network and namespaces down (its containers are dead already)."""
        if record.config.share_process_namespace:
            self.crun.delete(record.id)
            self.cgroups.end(self.cgroups.path(f"{record.config.cgroup}/{record.id}"))
        if not record.stopped:
            if record.ip:
                self.host_ports.remove(record.ip, record.config.port_mappings)
                self.network.detach(record.id, record.ip)
            sandboxes.destroy(self.directories.sandbox(record.id))
            record = msgspec.structs.replace(record, stopped=True, ready=False)
            # Without room for it the next agent sees that the namespaces are gone. Whoever is to make room must be able to go.
            with contextlib.suppress(OSError):
                save_sandbox(self.directories, record)
        return record

    def remove_sandbox(self, record: SandboxRecord, last_of_pod: bool) -> None:
        directory = self.directories.sandbox(record.id)
        (self.directories.exits / record.id).unlink(missing_ok=True)
        if last_of_pod:
            self.image_volumes.remove(record.config.pod_uid)
        if last_of_pod and record.config.cgroup:
            self.cgroups.remove(record.config.cgroup)
        trees.remove(directory)

    def check_sandbox(self, record: SandboxRecord) -> SandboxRecord | None:
        """After a restart: is what the record says still so? None if it was never finished, and is removed now."""
        if not record.ready and not record.stopped:
            self.remove_sandbox(self.stop_sandbox(record), last_of_pod=False)
            return None
        ready = record.ready and sandboxes.alive(self.directories.sandbox(record.id), record.config)
        if record.pause_pid and syscalls.start_time(record.pause_pid) != record.pause_start:
            ready = False
        return record if ready == record.ready else msgspec.structs.replace(record, ready=ready)

    # -- containers

    def _surroundings(self, sandbox: SandboxRecord, cgroup: str, directory: Path, target: int = 0) -> spec.Surroundings:
        config = sandbox.config
        namespaces = {"mount": "", "cgroup": ""}
        if not config.host_pid:
            joined = sandbox.pause_pid or target
            namespaces["pid"] = f"/proc/{joined}/ns/pid" if joined else ""
        for kind in sandboxes.own_namespaces(config):
            namespaces[kind] = str(directory / kind)
        return spec.Surroundings(
            namespaces,
            shm="/dev/shm" if config.host_ipc else str(directory / "shm"),
            cgroup=cgroup,
            oom_score_floor=self._oom_floor,
            swap_limit=self.swap_limit,
            open_files=security.open_files(),
            device_rules=security.can_install_device_rules(self.cgroups.unified),
            seccomp_directory=self.seccomp_directory,
        )

    def create_container(
        self, container_id: str, sandbox: SandboxRecord, config: ContainerConfig, target: int = 0
    ) -> ContainerRecord:
        """Record, root file system and config.json; no process yet. ``target``: a process whose PID namespace to join."""
        image = self.images.record(config.image) if config.image.startswith("sha256:") else None
        if image is None:
            raise RuntimeError_("CreateContainerError", f'image "{config.image}" not found')
        settings = self.images.config(image.id).config or Settings()
        cgroup = self.cgroups.path(f"{sandbox.config.cgroup}/{container_id}")
        log = os.path.join(sandbox.config.log_directory, config.log_path) if config.log_path else ""
        record = ContainerRecord(
            id=container_id,
            sandbox_id=sandbox.id,
            config=config,
            image=config.image_name or config.image,
            image_id=image.identity(config.image_name),
            created=self.now(),
            log_path=log,
            cgroup=cgroup,
            stop_signal=signal_number(settings.stop_signal or "SIGTERM"),
            own_pid_namespace=not (sandbox.config.host_pid or sandbox.pause_pid or target),
        )
        bundle = self.directories.bundle(container_id)
        try:
            bundle.mkdir()
            save_container(self.directories, record)
            self.images.use(self.directories.data, container_id, image.id)
            root = bundle / "rootfs"
            root.mkdir()
            # An image may bring device nodes along. Where no rules say which of them work, none does.
            devices = security.can_install_device_rules(self.cgroups.unified)
            layers = [self.images.layer(layer) for layer in image.layers]
            rootfs.mount(root, layers, self.directories.uppers / container_id, devices=devices)
            around = self._surroundings(sandbox, cgroup, self.directories.sandbox(sandbox.id), target)
            document = spec.build(cdi.resolved(config), sandbox.config, settings, root, around, os.uname().nodename)
            syscalls.write_atomic(bundle / "config.json", msgspec.json.encode(document))  # last: now it is whole
            return record
        except RuntimeError_:
            trees.remove(self.remove_container(record))
            raise
        except (OSError, KeyError) as error:
            trees.remove(self.remove_container(record))  # nobody has written to it, and nobody else knows of it
            raise RuntimeError_("CreateContainerError", str(error)) from error

    def start_container(self, record: ContainerRecord) -> ContainerRecord:
        """Starts it under a conmon. If it cannot run, the record returned is exited."""
        bundle = self.directories.bundle(record.id)
        config = record.config
        try:
            log = record.log_path or str(bundle / "log")
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            command = msgspec.json.decode((bundle / "config.json").read_bytes())["process"]["args"]
            launched = self.crun.create(
                record.id,
                bundle,
                log_path=log,
                exits=self.directories.exits,
                persist=bundle / "conmon",
                tty=config.tty,
                stdin=config.stdin,
                leave_stdin_open=not config.stdin_once,
                program=command[0],
            )
            record = msgspec.structs.replace(
                record,
                pid=launched.pid,
                pid_start=syscalls.start_time(launched.pid),
                monitor=launched.monitor,
                monitor_start=syscalls.start_time(launched.monitor),
            )
            save_container(self.directories, record)
            self.crun.start(record.id)
            record = msgspec.structs.replace(record, state=RUNNING, started=self.now())
            save_container(self.directories, record)
            return record
        except (OSError, CommandFailed) as error:
            self._tear_down(record)
            now = self.now()
            record = msgspec.structs.replace(
                record,
                state=EXITED,
                started=now,
                finished=now,
                exit_code=START_ERROR_CODE,
                reason="StartError",
                message=f"failed to start container {record.id}: {error}",
            )
            with contextlib.suppress(OSError):  # no room for it: the next agent finds it as it was before the start
                save_container(self.directories, record)
            return record

    def send_signal(self, record: ContainerRecord, number: int) -> None:
        """Signals the container's first process; KILL reaches all of them."""
        syscalls.signal_process(record.pid, record.pid_start, number)
        if number == signal.SIGKILL and not record.own_pid_namespace:
            self.cgroups.kill(record.cgroup)

    def finish(self, record: ContainerRecord) -> ContainerRecord:
        """After its conmon ended: how did it end? What it held is let go; root file system and log wait for remove."""
        path = self.directories.exits / record.id
        try:
            code = int(path.read_text())
            finished = path.stat().st_mtime
        except (OSError, ValueError):  # conmon itself was killed: nobody knows, and nobody holds its streams
            code, finished = 128 + signal.SIGKILL, self.now()
            self.send_signal(record, signal.SIGKILL)
        reason = "Completed" if code == 0 else "Error"
        if code != 0 and self.cgroups.oom_kills(record.cgroup):
            reason = "OOMKilled"
        record = msgspec.structs.replace(
            record, state=EXITED, exit_code=code, reason=reason, finished=max(finished, record.started)
        )
        save_container(self.directories, record)
        self._tear_down(record)
        return record

    def _tear_down(self, record: ContainerRecord) -> None:
        """Frees processes, cgroup and mount."""
        self.crun.delete(record.id, dead=record.pid > 0 and syscalls.start_time(record.pid) != record.pid_start)
        self.cgroups.end(record.cgroup)  # with whoever is still in it: it may not have been a PID namespace of its own
        rootfs.unmount(self.directories.bundle(record.id) / "rootfs")

    def tidy_created(self, record: ContainerRecord) -> ContainerRecord | None:
        """After a restart: a creation that was cut short is undone (None); nobody was told of it. A start that was cut
        short leaves a process that nobody watches: it goes, and the container can be started again."""
        if record.state == CREATED and not (self.directories.bundle(record.id) / "config.json").exists():
            self.remove_container(record)
            return None
        if record.state == CREATED and (self.directories.bundle(record.id) / "ctl").exists():
            self.crun.delete(record.id)
            self.cgroups.end(record.cgroup)
            record = msgspec.structs.replace(record, pid=0, pid_start=0, monitor=0, monitor_start=0)
            for name in ("conmon.pid", "pid", "attach", "ctl", "winsz"):
                (self.directories.bundle(record.id) / name).unlink(missing_ok=True)
            (self.directories.exits / record.id).unlink(missing_ok=True)
            save_container(self.directories, record)
        return record

    def remove_container(self, record: ContainerRecord) -> Path:
        """Removes everything but the log, and but what it wrote: that is put aside, and its place returned."""
        self._tear_down(record)
        aside = self.directories.uppers / f"{ASIDE}{record.id}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.directories.uppers / record.id, aside)
        (self.directories.exits / record.id).unlink(missing_ok=True)
        self.images.release(self.directories.data, record.id)
        trees.remove(self.directories.bundle(record.id))
        return aside

    def end_stragglers(self, sandboxes: list[SandboxRecord], containers: list[ContainerRecord]) -> None:
        """After a restart: ends what the last agent had not finished."""
        keep = [s.id for s in sandboxes if s.ready] + [c.id for c in containers if c.state == RUNNING]
        stragglers.end(self.crun.root, self.crun.program, frozenset(keep))

    def sweep(self, containers: frozenset[str], pods: frozenset[str]) -> list[Path]:
        """After a restart: forgets the image uses of containers that went with the power; the writable directories that
        they left, which are to be removed."""
        volumes = self.image_volumes.sweep(pods)
        self.images.release_node(self.directories.data, containers | volumes)
        return [path for path in sorted(self.directories.uppers.iterdir()) if path.name not in containers]
