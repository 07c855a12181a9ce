"""kubectl logs, exec, attach, cp and run: everything that is a stream of a container."""

from __future__ import annotations

import re
from pathlib import Path

from tests.clients.conftest import FOREVER, IMAGE, Kubectl, Terminal
from tests.e2e.harness import wait_for

PAIR = f"""
apiVersion: v1
kind: Pod
metadata: {{name: pair}}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - {{name: first, image: {IMAGE}, command: [sh, -c, "echo from first >&2"]}}
  containers:
  - {{name: one, image: {IMAGE}, command: [sh, -c, "echo from one; exec sleep 1000"]}}
  - {{name: two, image: {IMAGE}, command: [sh, -c, "echo from two; exit 3"]}}
"""


def test_logs(kubectl: Kubectl) -> None:
    kubectl.pod("talker", "for i in 1 2 3 4 5; do echo line $i; done; " + FOREVER)
    wait_for(lambda: "started" in kubectl("logs", "talker"), "all is said")
    assert kubectl("logs", "talker").startswith("line 1\nline 2\nline 3\nline 4\nline 5\n")
    assert kubectl("logs", "talker", "--tail=1") == "started\n"
    assert kubectl("logs", "talker", "--limit-bytes=6") == "line 1"
    assert kubectl("logs", "talker", "--since=1h").startswith("line 1\n")
    assert kubectl("logs", "talker", "--since-time=2100-01-01T00:00:00Z") == ""
    stamped = kubectl("logs", "talker", "--timestamps", "--tail=1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z started\n", stamped), stamped
    assert kubectl("logs", "-l", "app=talker", "--tail=1", "--prefix") == "[pod/talker/talker] started\n"


def test_logs_follow(kubectl: Kubectl) -> None:
    kubectl.pod(
        "talker", "until [ -e /tmp/go ]; do sleep 0.1; done; echo went; sleep 0.2; echo over", "--restart=Never"
    )
    following = kubectl.popen("logs", "-f", "talker")
    kubectl("exec", "talker", "--", "touch", "/tmp/go")
    assert following.communicate(timeout=20)[0] == "went\nover\n", "the stream ends with the container"
    assert following.returncode == 0


def test_logs_of_several_containers(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=PAIR)
    wait_for(lambda: kubectl.get("pod", "pair")["status"]["containerStatuses"][1]["restartCount"], "two has restarted")
    first = kubectl.run("logs", "pair")
    assert (first.stdout, first.stderr) == (
        "from one\n", 'Defaulted container "one" out of: one, two, first (init)\n',
    )  # fmt: skip
    assert kubectl("logs", "pair", "-c", "first") == "from first\n"
    assert kubectl("logs", "pair", "-c", "two", "--previous") == "from two\n"
    everything = kubectl("logs", "pair", "--all-containers", "--prefix")
    assert {"[pod/pair/one] from one", "[pod/pair/first] from first"} <= set(everything.splitlines())
    assert kubectl.fails("logs", "pair", "-c", "one", "-p") == (
        'Error from server (BadRequest): previous terminated container "one" in pod "pair" not found'
    )
    assert kubectl.fails("logs", "pair", "-c", "nope") == "error: container nope is not valid for pod pair"
    assert kubectl.get("pod", "pair")["status"]["containerStatuses"][1]["lastState"]["terminated"]["exitCode"] == 3


def test_streams_that_cannot_be(kubectl: Kubectl) -> None:
    kubectl("run", "waits", f"--image={IMAGE}", "--overrides", '{"spec":{"nodeSelector":{"no":"where"}}}')
    for words in (["logs", "waits"], ["exec", "waits", "--", "ls"], ["attach", "waits"]):
        assert "pod waits does not have a host assigned" in kubectl.fails(*words), words
    assert kubectl.fails("exec", "nope", "--", "ls") == 'Error from server (NotFound): pods "nope" not found'
    kubectl("run", "once", f"--image={IMAGE}", "--restart=Never", "--", "true")
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/once", "--timeout=30s")
    assert kubectl.fails("exec", "once", "--", "ls") == (
        "error: cannot exec into a container in a completed pod; current phase is Succeeded"
    )
    kubectl("apply", "-f", "-", stdin=PAIR)
    waiting = 'error: Internal error occurred: unable to upgrade connection: container not found ("two")'
    wait_for(lambda: kubectl.fails("exec", "pair", "-c", "two", "--", "ls") == waiting, "two is between two starts")
    kubectl.pod("web")


def test_exec(kubectl: Kubectl) -> None:
    kubectl.pod("web")
    assert kubectl("exec", "web", "--", "hostname") == "web\n"
    done = kubectl.run("exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert done.stderr == "err\ncommand terminated with exit code 7\n"
    assert kubectl("exec", "-i", "web", "--", "cat", stdin="hello\n" * 50000) == "hello\n" * 50000
    assert kubectl("exec", "pod/web", "-c", "web", "--", "echo", "a b", "$HOME") == "a b $HOME\n"
    absent = kubectl.run("exec", "web", "--", "nope", check=False)
    assert absent.returncode != 0 and "executable file" in absent.stderr


def test_exec_on_a_terminal(kubectl: Kubectl) -> None:
    kubectl.pod("web")
    terminal = Terminal(kubectl, "exec", "-it", "web", "--", "sh")
    terminal.expect("# ")
    terminal.say("stty size; tty; echo done-$((40+2))\n")
    assert "/dev/pts/" in terminal.expect("done-42\r\n")
    terminal.say("sh -c 'echo begun; exec sleep 100'\n")  # in the terminal's foreground before it says so
    terminal.expect("begun\r\n")
    terminal.say("\x03")  # ^C ends the command, not the shell
    terminal.expect("# ")
    terminal.say("exit 5\n")
    assert terminal.wait() == 5


def test_attach(kubectl: Kubectl) -> None:
    kubectl("run", "echo", f"--image={IMAGE}", "--stdin", "--attach=false", "--command", "--", "cat")
    kubectl("wait", "--for=condition=Ready", "pod/echo", "--timeout=30s")
    attached = kubectl.popen("attach", "-i", "echo")
    assert attached.stdin is not None and attached.stdout is not None
    attached.stdin.write("said\n")
    attached.stdin.flush()
    lines = [attached.stdout.readline(), attached.stdout.readline()]
    assert "said\n" in lines
    attached.kill()
    attached.communicate()


def test_run_interactively(kubectl: Kubectl) -> None:
    terminal = Terminal(kubectl, "run", "shell", "--rm", "-it", f"--image={IMAGE}", "--restart=Never", "--", "sh")
    terminal.expect("try pressing enter.")
    terminal.say("\n")
    terminal.expect("# ")
    terminal.say("echo pid-$$; exit 3\n")
    terminal.expect("pid-1\r\n")
    said = terminal.expect("deleted")
    assert 'pod "shell"' in said
    assert terminal.wait() == 3
    assert kubectl.run("get", "pods").stderr == f"No resources found in {kubectl.namespace} namespace.\n"
    done = kubectl.run("run", "brief", "--rm", "-i", f"--image={IMAGE}", "--restart=Never", "--", "echo", "hi")
    assert "hi\n" in done.stdout and 'pod "brief" deleted' in done.stdout


def test_copy(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.pod("web")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "text").write_text("text\n")
    (folder / "bytes").write_bytes(bytes(range(256)) * 4096)
    kubectl("cp", str(folder), "web:/tmp")
    assert kubectl("exec", "web", "--", "cat", "/tmp/folder/text") == "text\n"
    kubectl("cp", "web:/tmp/folder", str(tmp_path / "back"))
    assert (tmp_path / "back" / "bytes").read_bytes() == (folder / "bytes").read_bytes()
