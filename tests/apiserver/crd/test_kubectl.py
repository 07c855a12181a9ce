"""Definitions and custom resources through the real kubectl, on a real server that is stopped and started again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from navarch.world import RealWorld
from tests.apiserver.crd.support import CRONTAB

ROOT = Path(__file__).parents[3]
OBJECT = """
apiVersion: stable.example.com/v1
kind: CronTab
metadata: {name: one}
spec: {cronSpec: "* * *", color: red, parts: [{name: a, size: 1}]}
"""


@contextmanager
def running(home: Path) -> Iterator[None]:
    """An API server on an sqlite store in ``home``."""
    log = home / "server.log"
    flags = ("--store", f"sqlite:{home / 'db'}", "--cert-dir", str(home / "pki"), "--secure-port", "0")
    with log.open("wb") as file:
        server = subprocess.Popen([sys.executable, "-m", "apiserver", *flags], cwd=ROOT, stdout=file, stderr=file)
    world = RealWorld()

    async def ready() -> None:
        end = world.monotonic() + 30
        while b"serving on" not in log.read_bytes():
            assert server.poll() is None and world.monotonic() < end, log.read_text()
            await world.sleep(0.02)

    try:
        world.run(ready)
        yield
    finally:
        server.terminate()
        server.wait(20)


class Kubectl:
    def __init__(self, home: Path) -> None:
        found = shutil.which("kubectl")
        if found is None:
            pytest.fail("kubectl is not installed: run deploy/test")
        self.binary, self.home = found, home

    def run(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        environment = {
            "HOME": str(self.home),
            "KUBECONFIG": str(self.home / "pki" / "admin.kubeconfig"),
            "PATH": "/usr/bin:/bin",
            "EDITOR": "sed -i s/green/red/",
        }
        return subprocess.run(
            [self.binary, *arguments], input=text, capture_output=True, text=True, env=environment, timeout=60
        )

    def __call__(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def fails(self, *arguments: str, text: str = "") -> str:
        done = self.run(*arguments, text=text)
        assert done.returncode != 0, (arguments, done.stdout)
        return done.stderr


DEFINITION = "crd/crontabs.stable.example.com"


def define(kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", text=CRONTAB)
    assert "condition met" in kubectl("wait", "--for", "condition=established", "--timeout=20s", DEFINITION)
    assert "unchanged" in kubectl("apply", "-f", "-", text=CRONTAB)
    assert "crontabs.stable.example.com" in kubectl("get", "crd")


def create_and_show(kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", text=OBJECT)
    assert "unchanged" in kubectl("apply", "-f", "-", text=OBJECT)
    head, row = kubectl("get", "ct").splitlines()
    assert head.split() == ["NAME", "SPEC", "REPLICAS", "AGE"] and row.split()[:5] == ["one", "*", "*", "*", "1"]
    assert "crontab.stable.example.com/one" in kubectl("get", "all")
    assert "When it runs." in kubectl("explain", "crontab.spec.cronSpec")
    assert "Cron Spec:" in kubectl("describe", "crontab", "one")


def change(kubectl: Kubectl) -> None:
    kubectl("patch", "ct", "one", "--type", "merge", "-p", '{"spec":{"color":"green"}}')
    kubectl("patch", "ct", "one", "--type", "json", "-p", '[{"op":"add","path":"/spec/image","value":"i"}]')
    refused = kubectl.fails("patch", "ct", "one", "-p", '{"spec":{"color":"red"}}')
    assert "application/strategic-merge-patch+json is not supported by stable.example.com/v1" in refused
    assert "edited" in kubectl("edit", "ct", "one")
    assert kubectl("get", "ct", "one", "-o", "jsonpath={.spec.color} {.spec.image}") == "red i"
    kubectl("scale", "ct", "one", "--replicas=4")
    kubectl("patch", "ct", "one", "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Fine"}}')
    kubectl("wait", "ct/one", "--for=jsonpath={.status.phase}=Fine", "--timeout=20s")


def refuse(kubectl: Kubectl) -> None:
    bad = OBJECT.replace("red", "blue").replace("size: 1", "sise: 1")
    assert 'unknown field "spec.parts[0].sise"' in kubectl.fails("apply", "-f", "-", text=bad)
    refused = kubectl.fails("apply", "--validate=false", "-f", "-", text=bad)
    assert 'spec.color: Unsupported value: "blue": supported values: "red", "green"' in refused


def apply_on_the_server(kubectl: Kubectl) -> None:
    green = OBJECT.replace("red", "green")
    # As another manager: kubectl itself takes over what its client-side apply had set to this very value.
    clash = kubectl.fails("apply", "--server-side", "--field-manager=other", "-f", "-", text=green)
    assert "Apply failed with 1 conflict" in clash and ".spec.color" in clash
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=green)
    assert "crontabs" in kubectl("api-resources", "--api-group=stable.example.com")


def delete(kubectl: Kubectl) -> None:
    assert "deleted" in kubectl("delete", "ct", "one")
    kubectl("apply", "--server-side", "-f", "-", text=OBJECT)
    assert "deleted" in kubectl("delete", DEFINITION, "--timeout=30s")
    assert "NotFound" in kubectl.fails("get", DEFINITION)


def define_again(kubectl: Kubectl) -> None:
    """The same name again begins with nothing."""
    kubectl("apply", "-f", "-", text=CRONTAB)
    kubectl("wait", "--for", "condition=established", "--timeout=20s", DEFINITION)
    assert kubectl("get", "ct", "-o", "name") == ""


def test_kubectl(tmp_path: Path) -> None:
    kubectl = Kubectl(tmp_path)
    with running(tmp_path):
        define(kubectl)
        create_and_show(kubectl)
        change(kubectl)
        refuse(kubectl)
    with running(tmp_path):
        # Served again at once, with all that was there.
        assert kubectl("get", "ct", "-o", "jsonpath={.items[0].spec.replicas}") == "4"
        apply_on_the_server(kubectl)
        delete(kubectl)
        define_again(kubectl)
