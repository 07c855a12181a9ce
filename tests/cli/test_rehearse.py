"""``navarch rehearse`` against a real server with a hollow node: the answer, its exit codes, and that nothing is touched."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Navarch

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:v1"}]}
"""


def test_rehearse(navarch: Navarch, tmp_path: Path) -> None:
    n = ("-n", navarch.namespace)
    (tmp_path / "web.yaml").write_text(WEB)
    navarch.ok("apply", *n, "-f", str(tmp_path / "web.yaml"))
    navarch.ok("wait", *n, "deploy/web", "--for=condition=Available", "--timeout=60s")
    before = navarch.ok("get", "pods", *n, "-o", "name")

    ran = navarch(
        "rehearse", *n, "set", "image", "deploy/web", "web=web:v2", "--seeds", "2", "--report", str(tmp_path / "r.html")
    )
    assert ran.code == 0, ran
    assert "set image deploy/web web=web:v2: 2 runs on a twin of https://" in ran.out and "done after" in ran.out
    assert f"Deployment {navarch.namespace}/web  3" in ran.out and "web:v2 has never run here" in ran.out
    assert "<svg" in (tmp_path / "r.html").read_text()

    (tmp_path / "more.yaml").write_text(WEB.replace("replicas: 3", "replicas: 2000"))
    ran = navarch(
        "rehearse", *n, "-f", str(tmp_path / "more.yaml"), "--seeds", "1", "--for", "30s", "--assert", "pending == 0"
    )
    assert ran.code == 1 and "Too many pods" in ran.out and "NOT TRUE  pending == 0  (seed 1: pending = " in ran.out, (
        ran
    )
    assert navarch.ok("get", "pods", *n, "-o", "name") == before


def test_mistakes(navarch: Navarch) -> None:
    for words, text in (
        (["drain", "nowhere"], "there is no node 'nowhere'; nodes: "),
        ([], "tell what to rehearse"),
        (["drain", "nowhere", "--assert", "evictd == 0"], "did you mean 'evicted'"),
        (["drain", "nowhere", "--for", "never"], "--for never"),
        (["-f", "/nowhere.yaml"], "/nowhere.yaml: No such file or directory"),
    ):
        ran = navarch("rehearse", *words)
        assert ran.code == 2 and text in ran.err, ran
