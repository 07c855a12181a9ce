"""A real lab for tests: the commands as a user types them, and waiting for conditions."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.addresses import index_directory

ROOT = Path(__file__).resolve().parents[2]


def story(words: Sequence[str], end: str, out: str, err: str) -> str:
    """A failed command in one line, for the short excerpt of CI's output: how it ended, and what it said last."""
    told = [f"{name} {text.strip()[-600:]!r}" for name, text in (("stderr", err), ("stdout", out)) if text.strip()]
    return f"{' '.join(words)}: {end}; {'; '.join(told) or 'it said nothing'}"


class Lab:
    """A lab of its own under ``home``. ``enter`` is put before every command: it leads into other namespaces."""

    def __init__(self, home: Path, name: str = "default", enter: Sequence[str] = ()) -> None:
        self.home, self.name, self.enter = home, name, tuple(enter)
        self.environment = os.environ | {
            "NAVARCH_HOME": str(home),
            "NAVARCH_LAB": name,
            "KUBECONFIG": str(home / "labs" / name / "kubeconfig"),
            "KUBECACHEDIR": str(home / "kube-cache"),
        }

    def run(
        self, *words: str, check: bool = True, stdin: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess:
        """AssertionError with the command and both outputs if it fails, or does not end within ``timeout`` seconds."""
        options: dict[str, Any] = {"input": stdin, "timeout": timeout, "env": self.environment, "cwd": ROOT}
        try:
            done = subprocess.run((*self.enter, *words), capture_output=True, text=True, **options)
        except subprocess.TimeoutExpired as error:
            # text=True notwithstanding, these are bytes.
            outputs = [(part or b"").decode(errors="replace") for part in (error.stdout, error.stderr)]  # type: ignore[union-attr]
            raise AssertionError(story(words, f"not done after {timeout:.0f} s", *outputs)) from None
        if check and done.returncode != 0:
            raise AssertionError(story(words, f"exit {done.returncode}", done.stdout, done.stderr))
        return done

    def navarch(self, *words: str, **options: Any) -> str:
        return self.run(sys.executable, "-m", "cli", *words, **options).stdout

    def up(self, *words: str) -> str:
        return self.navarch("up", *words)

    @property
    def directory(self) -> Path:
        return self.home / "labs" / self.name

    @property
    def index(self) -> int:
        """The second byte of the lab's addresses; 0 if there is no such lab."""
        try:
            return int(json.loads((self.directory / "lab.json").read_text())["index"])
        except FileNotFoundError:
            return 0

    @property
    def id(self) -> str:
        """What the machine knows the lab by, the home not being the default one."""
        return f"{self.name}-{hashlib.sha256(str(self.home).encode()).hexdigest()[:6]}"

    def call(self, method: str, path: str, body: Any = None, timeout: float = 5) -> tuple[int, Any]:
        """One request as the lab's administrator, over a connection of its own: status and answer. Raises OSError."""
        pki = self.directory / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        port = json.loads((self.directory / "lab.json").read_text())["port"]
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=context)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        except (http.client.HTTPException, ValueError) as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def kubectl(self, *words: str, **options: Any) -> str:
        return self.run("kubectl", *words, **options).stdout

    def fails(self, *words: str, stdin: str = "") -> str:
        """Runs kubectl, which must fail; its standard error."""
        done = self.run("kubectl", *words, check=False, stdin=stdin)
        assert done.returncode != 0, story(("kubectl", *words), "succeeded", done.stdout, done.stderr)
        return done.stderr

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, text: str) -> str:
        return self.kubectl("apply", "-f", "-", stdin=text)

    def status(self) -> dict[str, Any]:
        return json.loads(self.navarch("status", "-o", "json"))

    def pid(self, process: str) -> int:
        """As `navarch status` says, many times a second."""
        known = json.loads((self.directory / "run" / "processes.json").read_text())
        return int(next(p["process"]["pid"] for p in known if p["spec"]["name"] == process))

    def node(self, name: str) -> dict[str, Any]:
        return next(n for n in self.status()["nodes"] if n["name"] == name)

    def kill(self, process: str) -> int:
        """kill -9 of a component; returns the pid that is gone."""
        pid = self.pid(process)
        os.kill(pid, signal.SIGKILL)
        return pid

    def in_node(self, node: str, *words: str, **options: Any) -> str:
        return self.run("nsenter", "-t", str(self.node(node)["pid"]), "-a", *words, **options).stdout


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 60) -> Any:
    """The condition's first true value; AssertionError (ours count as not yet) after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (AssertionError, KeyError, StopIteration) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {timeout} s; last: {last}")
        time.sleep(0.1)


# Not busybox' wget: linked statically, it crashes on machines whose name service modules it does not fit.
FETCH = """
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], sys.argv[2].encode() or None, float(sys.argv[3])) as answer:
    sys.stdout.write(answer.read().decode())
"""


def fetch(url: str, data: str = "", patience: float = 3) -> list[str]:
    """The command that prints what is at an address, or gives up after ``patience`` seconds; with ``data`` it is a POST."""
    return [sys.executable, "-S", "-c", FETCH, url, data, str(patience)]


def answers(url: str, lab: Lab, patience: float = 3) -> str:
    """The body at an address as the lab's machine sees it; "" if there is none."""
    return lab.run(*fetch(url, patience=patience), check=False).stdout


class Load:
    """load.py at work; ``node`` makes it run in that node's network. Leaving the block ends it; then ``report`` is there.

    The report: sent, failed, failures (texts), slowest (seconds), bodies (first word of the answer -> count).
    """

    def __init__(self, lab: Lab, *urls: str, node: str = "", rate: float = 50) -> None:
        words = [sys.executable, str(ROOT / "tests/e2e/load.py"), "--rate", str(rate), *urls]
        if node:
            words = ["nsenter", "-t", str(lab.node(node)["pid"]), "-n", *words]
        self.urls, self.words = urls, words
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Load:
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        out, _ = self.process.communicate(timeout=30)
        self.report = json.loads(out)

    @property
    def failed(self) -> int:
        return int(self.report["failed"])


def addresses(lab: Lab) -> tuple[str, list[str]]:
    """URLs of the front end: at its cluster IP, and at every node's port."""
    service = lab.get("service", "frontend")["spec"]
    port = service["ports"][0]["nodePort"]
    return f"http://{service['clusterIP']}/version", [
        f"http://{node['address']}:{port}/version" for node in lab.status()["nodes"]
    ]


def loads(lab: Lab, rate: float = 50) -> tuple[Load, Load]:
    """``rate`` requests a second at the cluster IP from inside a node, and as many at every node's port from outside."""
    inside, outside = addresses(lab)
    return Load(lab, inside, node="node-1", rate=rate), Load(lab, *outside, rate=rate)


def traces(lab: Lab, index: int) -> list[str]:
    """What a lab, whose address range was ``index``, left on the machine: processes, cgroups, mounts, links and so on."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_text().split("\0")
            ours = f"NAVARCH_HOME={lab.home}" in environment and f"NAVARCH_LAB={lab.name}" in environment
            if ours or f"/navarch/{lab.id}/" in (entry / "cgroup").read_text():
                found.append(f"process {entry.name} {(entry / 'cmdline').read_text()!r}")
        except OSError:
            continue
    cgroups = Path("/sys/fs/cgroup")
    found += [f"cgroup {p}" for pattern in (f"navarch/{lab.id}", f"*/navarch/{lab.id}") for p in cgroups.glob(pattern)]
    mounts = Path("/proc/mounts").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if str(lab.home) in line or f"navarch-{lab.id}" in line]
    owners = {index_owner(lab, index)}
    listed: list[str] = []
    for command in (
        ["ip", "netns"],
        ["ip", "-o", "link"],
        ["ip", "route", "show", "table", "all"],
        ["nft", "list", "ruleset"],
    ):
        listed += [f"{' '.join(command)}: {line}" for line in lab.run(*command, check=False).stdout.splitlines()]
    owners.add(index_owner(lab, index))
    # Once the lab is down the next one on this machine, of another home, may take the range; its links are no traces.
    addresses = (f" nv{index}", f" 10.{index}.") if owners <= {"", str(lab.directory)} else ()
    return found + [line for line in listed if any(mark in line for mark in (f"navarch-{lab.id}", *addresses))]


def index_owner(lab: Lab, index: int) -> str:
    """The directory of the lab that has the address range on this lab's machine; "" if none has it."""
    return lab.run("cat", str(index_directory() / str(index)), check=False).stdout
