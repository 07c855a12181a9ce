"""One lab for all tests with real clients: three nodes and a busybox image. Each test gets a namespace of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.images.build import build
from nodeagent.images.store import ImageStore
from tests.e2e.harness import Lab, traces, wait_for

BUSYBOX = """
FROM scratch
COPY --from=host /bin/busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN ["/bin/mkdir", "-m", "1777", "/tmp"]
CMD ["sh"]
"""
IMAGE = "localhost/busybox:1"
FOREVER = "trap 'exit 0' TERM; echo started; while true; do sleep 0.1; done"


def tool(name: str) -> str:
    """The path of a program that ``deploy/setup --test`` fetched; the test fails if it did not."""
    path = Path(sys.prefix) / "clients" / name
    if not path.exists():
        pytest.fail(f"no {path}: run deploy/setup --test")
    return str(path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


class Kubectl:
    """kubectl in one namespace of the lab. Called with its words, it gives standard output; it must succeed."""

    def __init__(self, lab: Lab, namespace: str) -> None:
        self.lab, self.namespace = lab, namespace

    def __call__(self, *words: str, stdin: str = "", editor: str = "") -> str:
        return self.run(*words, stdin=stdin, editor=editor).stdout

    def run(self, *words: str, stdin: str = "", editor: str = "", check: bool = True) -> subprocess.CompletedProcess:
        """The finished process, with both its outputs. ``editor``: a script that is called with the file to edit."""
        environment = ["env", f"EDITOR={editor}"] if editor else []
        return self.lab.run(*environment, "kubectl", "-n", self.namespace, *words, stdin=stdin, check=check, timeout=40)

    def fails(self, *words: str, stdin: str = "") -> str:
        """Its standard error, without the last line end; it must fail."""
        done = self.run(*words, stdin=stdin, check=False)
        assert done.returncode != 0, f"kubectl {' '.join(words)} succeeded: {done.stdout}"
        return done.stderr.rstrip("\n")

    def get(self, *words: str) -> Any:
        return self.lab.get("-n", self.namespace, *words)

    def popen(self, *words: str) -> subprocess.Popen[str]:
        """A kubectl that goes on; the caller ends it."""
        return subprocess.Popen(
            ["kubectl", "-n", self.namespace, *words],
            env=self.lab.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def pod(self, name: str, script: str = FOREVER, *more: str) -> None:
        """Runs a shell script in a pod and waits until the pod is ready."""
        self("run", name, f"--image={IMAGE}", "--labels", f"app={name}", *more, "--", "sh", "-c", script)
        self("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")


class Terminal:
    """kubectl on a terminal of its own, as a person has it."""

    def __init__(self, kubectl: Kubectl, *words: str) -> None:
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe("kubectl", ["kubectl", "-n", kubectl.namespace, *words], kubectl.lab.environment)

    def say(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, timeout: float = 20) -> str:
        """Reads until ``text`` appears after what was found before; what came until then."""
        end = time.monotonic() + timeout
        while text not in self.text:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            try:
                data = os.read(self.fd, 65536) if ready else b""
            except OSError:  # the other side has closed
                data = b""
            if not data:
                raise AssertionError(f"no {text!r} on the terminal, but {self.text!r}")
            self.text += data.decode()
        before, _, self.text = self.text.partition(text)
        return before

    def wait(self) -> int:
        """The exit code, once it ends."""
        try:
            while os.read(self.fd, 65536):
                pass
        except OSError:
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("clients")
    build(ImageStore(home / "images"), home, [IMAGE, "localhost/busybox:2"], text=BUSYBOX)
    lab = Lab(home, "clients")
    try:
        lab.up("--nodes", "3")
        yield lab
    finally:
        index = lab.index
        lab.navarch("down", "--purge")
        assert traces(lab, index) == []


@pytest.fixture
def kubectl(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own, which is ready for pods and goes away afterwards."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_"))[:50].strip("-")
    lab.kubectl("create", "namespace", name)
    wait_for(lambda: lab.get("-n", name, "serviceaccounts", "default"), "the namespace's service account")
    yield Kubectl(lab, name)
    lab.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def widgets(kubectl: Kubectl) -> Any:
    """A custom resource, served."""
    from tests.clients.widgets import Widgets

    return Widgets(kubectl)
