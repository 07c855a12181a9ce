"""What the verbs do that cannot be compared line by line: editors, files of containers, draining, URLs, completion."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.main import main
from cli.verbs.cp import _place, _unpack
from tests.cli.conftest import Navarch

CONF = "{apiVersion: v1, kind: ConfigMap, metadata: {name: conf}, data: {a: '1'}}"


@pytest.fixture
def url() -> Iterator[str]:
    """A web server on the loopback that has a manifest, and nothing else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/conf.yaml"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(CONF.encode() if found else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_apply_from_a_url(navarch: Navarch, url: str) -> None:
    n = ("-n", navarch.namespace)
    assert navarch.ok("apply", "--server-side", "-f", f"{url}/conf.yaml", *n) == "configmap/conf serverside-applied\n"
    assert navarch.ok("get", "cm", "conf", "-o", "jsonpath={.data.a}", *n) == "1"
    ran = navarch("apply", "-f", f"{url}/none.yaml", *n)
    assert ran.code == 1
    assert f'error: unable to read URL "{url}/none.yaml", server reported 404' in ran.err


def test_edit(navarch: Navarch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = ("-n", navarch.namespace)
    file = tmp_path / "conf.yaml"
    file.write_text(CONF)
    navarch.ok("apply", "-f", str(file), *n)
    monkeypatch.setenv("KUBE_EDITOR", "true")
    assert navarch("edit", "cm", "conf", *n).err == "Edit cancelled, no changes made.\n"
    monkeypatch.setenv("KUBE_EDITOR", "truncate -s0")
    assert navarch("edit", "cm", "conf", *n).err == "Edit cancelled, saved file was empty.\n"
    monkeypatch.setenv("KUBE_EDITOR", 'sed -i \'s/a: "1"/a: "2"/\'')
    assert navarch.ok("edit", "cm/conf", *n) == "configmap/conf edited\n"
    assert navarch.ok("get", "cm", "conf", "-o", "jsonpath={.data.a}", *n) == "2"
    # Refused at first: the editor comes again, with what was wrong, and gives up by saving the same.
    shown = tmp_path / "shown"
    monkeypatch.setenv("KUBE_EDITOR", f"sh -c 'cp $0 {shown}; sed -i s/^data:/immutable:/ $0'")
    ran = navarch("edit", "cm/conf", *n)
    assert ran.code == 1 and ran.err.endswith("error: Edit cancelled, no valid changes were saved.\n"), ran
    assert "# " in shown.read_text() and "immutable" in shown.read_text()
    monkeypatch.setenv("KUBE_EDITOR", "false")
    assert navarch("edit", "cm/conf", *n).err == 'error: there was a problem with the editor "false"\n'


def test_drain(navarch: Navarch, tmp_path: Path) -> None:
    n = ("-n", navarch.namespace)
    file = tmp_path / "pods.yaml"
    pod = "{{apiVersion: v1, kind: Pod, metadata: {{name: {0}, labels: {{drain: me}}}}, spec: {spec}}}"
    spec = "{{containers: [{{name: c, image: x}}]}}"
    file.write_text("\n---\n".join(pod.replace("{spec}", spec).format(name) for name in ("one", "two")))
    navarch.ok("apply", "-f", str(file), *n)
    navarch.ok("wait", "pod", "-l", "drain=me", "--for=condition=Ready", *n)
    try:
        refused = navarch("drain", "n1", "--pod-selector=drain=me")
        names = f"{navarch.namespace}/one, {navarch.namespace}/two"
        why = f"cannot delete cannot delete Pods that declare no controller (use --force to override): {names}"
        assert (refused.code, refused.out) == (1, "node/n1 cordoned\n")
        assert refused.err == (
            f'error: unable to drain node "n1" due to error: {why}, continuing command...\n'
            f"There are pending nodes to be drained:\n n1\n{why}\n"
        )
        ran = navarch("drain", "n1", "--pod-selector=drain=me", "--force")
        assert ran.code == 0, ran
        assert ran.out.startswith("node/n1 already cordoned\n") and ran.out.endswith("node/n1 drained\n")
        assert "pod/one evicted\n" in ran.out and f"evicting pod {navarch.namespace}/two\n" in ran.err
        assert navarch.ok("get", "pods", "-o", "name", *n) == ""
    finally:
        navarch.ok("uncordon", "n1")


def test_completion(navarch: Navarch, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert f"_NAVARCH_COMPLETE={shell}" in navarch.ok("completion", shell)

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("_NAVARCH_COMPLETE", "bash")
        monkeypatch.setattr("sys.argv", ["navarch", "--", *line.split(" ")[1:]])
        capfd.readouterr()
        main()
        out, err = capfd.readouterr()
        assert err == ""
        return out.split()

    assert {"get", "label", "drain", "top"} <= set(complete("navarch "))
    assert complete("navarch unco") == ["uncordon"]
    assert complete("navarch get deploym") == ["deployments"]
    assert complete("navarch describe node n") == ["n1"]
    assert complete("navarch label node/") == ["node/n1"]
    assert complete(f"navarch get -n {navarch.namespace} cm kube-root") == ["kube-root-ca.crt"]
    assert complete("navarch get nonsense x") == []
    assert complete("navarch get --kubeconfig /nowhere pods x") == []


def test_places_of_copies() -> None:
    assert _place("web:/tmp/x", "ns") == ("web", "ns", "/tmp/x")
    assert _place("other/web:x", "ns") == ("web", "other", "x")
    assert _place("./a:b", "ns") == ("", "", "./a:b")
    assert _place("/a/b", "ns") == ("", "", "/a/b")


def test_an_archive_does_not_get_out_of_its_folder(tmp_path: Path) -> None:
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("var/log/a", "var/log/../../../evil", "var/log/deep/b"):
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"hi"))
    target = tmp_path / "log"
    _unpack(buffer.getvalue(), "/var/log", target)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == ["log/a", "log/deep/b"]


def test_what_navarch_does_not_take_is_said(command: Navarch) -> None:
    for words in (("apply", "-k", "x"), ("diff", "--kustomize=x")):
        ran = command(*words)
        assert ran.code == 1 and f"kubectl kustomize DIR | navarch {words[0]} -f -" in ran.err
    for more in ((), ("--image=x",)):
        ran = command("create", "deployment", "web", *more)
        assert (
            ran.code == 1 and "kubectl create deployment ... --dry-run=client -o yaml | navarch create -f -" in ran.err
        )
