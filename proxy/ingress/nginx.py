"""nginx as a process of the node: started, found again after a restart of ours, told of a new configuration.

A reload drops nothing: nginx starts new workers on the same sockets, and the old ones finish what they have. So this
process may die at any time, too: nginx goes on, and the next one finds it by its pid file.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Pairs = Mapping[str, tuple[bytes, bytes]]
PATIENCE = 10.0  # seconds for nginx to look at a configuration, or to start
PATIENCE_OF_HOST = 0.02  # seconds more for each host, whose certificate it reads (measured: 0.0016 of CPU)


class NginxError(Exception):
    """nginx refused a configuration or did not start; the text is its own."""


def fallback_pair(now: float) -> tuple[bytes, bytes]:
    """A certificate that nobody trusts, for hosts without one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "navarch ingress: no certificate for this host")])
    begin = datetime.datetime.fromtimestamp(now, datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - datetime.timedelta(days=1)).not_valid_after(begin + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), private


class Nginx:
    """All methods block but ``watch``. ``directory`` is nginx's own and on no disk: keys lie in it."""

    def __init__(self, directory: Path, log: Path) -> None:
        self.directory, self.log = directory, log
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if program is None:
            raise NginxError("nginx is not installed; run deploy/setup")
        self.program = program
        self.configuration = directory / "nginx.conf"
        self._watched = 0  # the pid of the master whose end is waited for
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)

    def write_pairs(self, pairs: Pairs) -> None:
        """Certificates and keys by name. A name stands for its content: what is there stays as it is."""
        for name, parts in pairs.items():
            for suffix, data in zip(("crt", "key"), parts, strict=True):
                path = self.directory / f"{name}.{suffix}"
                if not path.exists():
                    fresh = path.with_suffix(f".{suffix}.new")
                    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                    with os.fdopen(fd, "wb") as file:
                        file.write(data)
                    fresh.rename(path)

    def forget_pairs(self, pairs: Pairs) -> None:
        """Removes certificates and keys that no configuration has any more."""
        for path in self.directory.iterdir():
            if path.suffix in (".crt", ".key") and path.stem not in (*pairs, "fallback"):
                path.unlink(missing_ok=True)

    def refusal(self, text: str) -> str:
        """Why nginx would not take a configuration; "" if it would."""
        trial = self.directory / "trial.conf"
        trial.write_text(text)
        done = self._run(text, "-t", "-q", "-c", str(trial), "-e", "stderr")
        lines = done.stderr.strip().splitlines()
        return "" if done.returncode == 0 else (lines[0] if lines else f"exit code {done.returncode}")

    def apply(self, text: str) -> None:
        """Makes a configuration that nginx takes the one in force; starts nginx if it does not run. Raises NginxError."""
        fresh = self.configuration.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.configuration)
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGHUP)
            return
        self._end_orphans()
        done = self._run(text, "-c", str(self.configuration), "-e", str(self.log))
        if done.returncode != 0:
            raise NginxError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])

    def pid(self) -> int:
        """The running master, 0 if there is none."""
        try:
            pid = int((self.directory / "nginx.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if str(self.configuration).encode() in command else 0

    def watch(self, ended: Callable[[], None]) -> None:
        """Calls ``ended`` in the event loop once the master that runs now has ended. Does not block."""
        pid = self.pid()
        if not pid or pid == self._watched:
            return
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            ended()
            return
        self._watched, loop = pid, asyncio.get_running_loop()

        def master_ended() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            self._watched = 0
            ended()

        loop.add_reader(fd, master_ended)

    def stop(self) -> None:
        """Ends nginx: connections that are open may finish."""
        with contextlib.suppress(ProcessLookupError):
            if pid := self.pid():
                fd = os.pidfd_open(pid)
                try:
                    os.kill(pid, signal.SIGQUIT)
                    select.select([fd], [], [], 1.0)
                    if self.pid() == pid:
                        os.kill(pid, signal.SIGTERM)
                finally:
                    os.close(fd)

    def orphans(self) -> list[int]:
        """Workers of ours that have no master. A worker is ours if it writes our log: its command line names no directory,
        and a worker that was only just forked still calls itself a master.
        """
        out, master = [], self.pid()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                name, rest = (entry / "stat").read_text().rsplit(")", 1)
                if name.partition("(")[2] != "nginx" or master in (int(entry.name), int(rest.split()[1])):
                    continue
                if any(os.readlink(file) == str(self.log) for file in (entry / "fd").iterdir()):
                    out.append(int(entry.name))
            except OSError:  # it ended while it was looked at
                continue
        return out

    def _end_orphans(self) -> None:
        """Ends workers whose master was killed: they listen on, and a new master could not. What they serve they finish."""
        for pid in self.orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGQUIT)

    def _run(self, text: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs nginx for a configuration. Raises NginxError if that takes too long for so many hosts."""
        command = (self.program, "-p", str(self.directory), *words)
        patience = PATIENCE + PATIENCE_OF_HOST * text.count("\nserver {")
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=patience, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise NginxError(f"nginx did not answer within {patience:.0f} s") from None
