"""A real API server with a real one behind it, used by the real kubectl."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from apiserver.aggregation.remote import tls_of
from lab.certificates import Authority
from navarch.world import RealWorld
from tests.apiserver.crd.test_kubectl import ROOT, Kubectl, running

APISERVICE = """
apiVersion: v1
kind: Service
metadata: {name: jokes, namespace: default}
spec: {type: ExternalName, externalName: localhost}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1alpha1.fun.example.com}
spec:
  group: fun.example.com
  version: v1alpha1
  groupPriorityMinimum: 2000
  versionPriority: 10
  caBundle: %s
  service: {name: jokes, namespace: default, port: %s}
"""
JOKE = """
apiVersion: fun.example.com/v1alpha1
kind: Joke
metadata: {name: %s, namespace: default}
text: A pod walks into a bar.
"""


@contextmanager
def jokes(home: Path) -> Iterator[str]:
    """The server of jokes as a process; gives its port."""
    place, port = home / "jokes", home / "jokes" / "port"
    place.mkdir()
    Authority(place, "jokes-ca").issue("server", "jokes", hosts=("jokes.default.svc",))
    files = [str(place / "server.crt"), str(place / "server.key"), str(home / "pki" / "front-proxy-ca.crt"), str(port)]
    server = subprocess.Popen([sys.executable, "-m", "tests.apiserver.aggregation.jokes", *files], cwd=ROOT)
    world = RealWorld()

    async def ready() -> None:
        while not port.exists() or not port.read_text():
            assert server.poll() is None
            await world.sleep(0.02)

    try:
        world.run(ready)
        yield port.read_text()
    finally:
        server.kill()
        server.wait(20)


def test_kubectl(tmp_path: Path) -> None:
    kubectl = Kubectl(tmp_path)
    with running(tmp_path):
        with jokes(tmp_path) as port:
            bundle = base64.b64encode((tmp_path / "jokes" / "ca.crt").read_bytes()).decode()
            kubectl("apply", "-f", "-", text=APISERVICE % (bundle, port))
            kubectl("wait", "apiservice/v1alpha1.fun.example.com", "--for=condition=Available", "--timeout=20s")
            row = kubectl("get", "apiservice", "v1alpha1.fun.example.com", "--no-headers").split()
            assert row[:3] == ["v1alpha1.fun.example.com", "default/jokes", "True"]
            assert "jokes" in kubectl("api-resources", "--api-group=fun.example.com")
            assert "created" in kubectl("create", "-f", "-", text=JOKE % "bar")
            assert kubectl("get", "jk", "-o", "jsonpath={.items[0].text}") == "A pod walks into a bar."
            assert kubectl("get", "joke", "bar", "-o", "jsonpath={.teller}") == "kubernetes-admin"
            assert "What is told." in kubectl("explain", "joke.text")
            watch = subprocess.Popen(
                [kubectl.binary, "get", "jokes", "-w", "-o", "name"], stdout=subprocess.PIPE, text=True,
                env={"HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "pki" / "admin.kubeconfig")},
            )  # fmt: skip
            try:
                assert watch.stdout is not None
                assert watch.stdout.readline() == "joke.fun.example.com/bar\n"
                kubectl("create", "-f", "-", text=JOKE % "baz")
                assert watch.stdout.readline() == "joke.fun.example.com/baz\n"
            finally:
                watch.kill()
                watch.wait(20)
            assert "deleted" in kubectl("delete", "joke", "bar")
            assert RealWorld().run(lambda: said_twice(tmp_path, "baz")) == "haha"
        # It is gone: what it served cannot be had, which is noticed at once; and the rest works on.
        assert "unable to handle the request" in kubectl.fails("get", "--raw", "/apis/fun.example.com/v1alpha1/jokes")
        kubectl("wait", "apiservice/v1alpha1.fun.example.com", "--for=condition=Available=False", "--timeout=60s")
        assert "unable to handle the request" in kubectl.fails("get", "--raw", "/apis/fun.example.com/v1alpha1/jokes")
        assert "kube-system" in kubectl("get", "namespaces", "-o", "name")
        kubectl("delete", "apiservice", "v1alpha1.fun.example.com")
        assert "NotFound" in kubectl.fails("get", "--raw", "/apis/fun.example.com/v1alpha1/jokes")


async def said_twice(home: Path, name: str) -> str:
    """A WebSocket through the API server."""
    server = (home / "pki" / "admin.kubeconfig").read_text().partition("server: ")[2].split()[0].strip("'\"")
    spec = {"caBundle": base64.b64encode((home / "pki" / "ca.crt").read_bytes()).decode()}
    context = tls_of(spec, str(home / "pki" / "admin.crt"), str(home / "pki" / "admin.key"))
    url = f"{server}/apis/fun.example.com/v1alpha1/namespaces/default/jokes/{name}/tell"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, ssl=context) as socket:
        await socket.send_str("ha")
        return str(await socket.receive_str())
