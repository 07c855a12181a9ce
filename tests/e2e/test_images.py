"""Images from the lab's own registry: pushed on the machine, pulled for the nodes; what is told when one does not come."""

from __future__ import annotations

import base64
import sys
from typing import Any

import pytest

from tests.e2e.conftest import FRONTEND
from tests.e2e.harness import Lab, wait_for
from tests.nodeagent.images.realregistry import Faults, front

PASSWORD = "hunter2-and-no-more"


def events(lab: Lab, pod: str) -> dict[str, str]:
    """Reason -> message of the newest event of that reason about a pod."""
    found = lab.get("events", "--field-selector", f"involvedObject.name={pod}")["items"]
    return {event["reason"]: event["message"] for event in found}


def failures(lab: Lab, pod: str) -> list[str]:
    found = lab.get("events", "--field-selector", f"involvedObject.name={pod},reason=Failed")["items"]
    return [event["message"] for event in found]


def status(lab: Lab, pod: str) -> Any:
    return lab.get("pod", pod)["status"]["containerStatuses"][0]


def ready(lab: Lab, pod: str) -> bool:
    now = status(lab, pod)
    assert now["ready"], now
    return True


def waiting(lab: Lab, pod: str) -> str:
    return str(status(lab, pod)["state"]["waiting"]["reason"])


def test_pushed_pulled_run_and_told_if_not(lab: Lab) -> None:
    lab.up("--registry")
    try:
        place = f"localhost:{lab.status()['registry']}"
        digest = lab.navarch("image", "push", "-q", f"{FRONTEND}:v1", f"{place}/shop/web:v1").strip()
        for name, image in (
            ("pulled", f"{place}/shop/web:v1"), ("by-digest", f"registry.e2e:{place[10:]}/shop/web@{digest}"),
            ("missing", f"{place}/shop/web:v9"), ("outside", "nginx"),
        ):  # fmt: skip
            lab.kubectl("run", name, f"--image={image}", "--image-pull-policy=Always", "--restart=Never")
        lab.kubectl("run", "never", f"--image={place}/shop/web:v9", "--image-pull-policy=Never")
        for name in ("pulled", "by-digest"):
            wait_for(lambda name=name: ready(lab, name), f"{name} is ready", 60)
        assert status(lab, "pulled")["imageID"] == f"{place}/shop/web@{digest}"
        pulled = events(lab, "pulled")["Pulled"]
        assert pulled.startswith(f'Successfully pulled image "{place}/shop/web:v1" in ') and "Image size: " in pulled
        for name in ("missing", "outside"):
            wait_for(lambda name=name: waiting(lab, name) == "ImagePullBackOff", f"{name} backs off", 30)
        missing, outside = failures(lab, "missing"), failures(lab, "outside")
        assert any("manifest unknown (404)" in message for message in missing) and "Error: ErrImagePull" in missing
        assert any("egress is off on this machine (NAVARCH_EGRESS=off)" in message for message in outside), outside
        private(lab, place)
        wait_for(lambda: waiting(lab, "never") == "ErrImageNeverPull", "never is told", 30)
    finally:
        lab.kubectl("delete", "pod", "pulled", "by-digest", "missing", "outside", "never", "--now", "--ignore-not-found")
        lab.up("--no-registry")
    assert lab.status()["registry"] == 0
    assert not any(process["name"] == "registry" for process in lab.status()["processes"])


def private(lab: Lab, registry: str) -> None:
    """A registry that wants a login: the service account's secret opens it for its namespace, and shows nowhere."""
    with front(registry.replace("localhost", "127.0.0.1"), Faults("user", PASSWORD)) as address:
        login = (f"--docker-server={address}", "--docker-username=user", f"--docker-password={PASSWORD}")
        lab.kubectl("create", "secret", "docker-registry", "mine", *login)
        lab.kubectl("create", "namespace", "other")
        try:
            lab.kubectl("create", "serviceaccount", "puller")
            lab.kubectl("patch", "serviceaccount", "puller", "-p", '{"imagePullSecrets": [{"name": "mine"}, {"name": "gone"}]}')
            image = f"{address}/shop/web:v1"
            overrides = '{"spec": {"serviceAccountName": "puller"}}'
            lab.kubectl("run", "private", f"--image={image}", "--image-pull-policy=Always", f"--overrides={overrides}")
            lab.kubectl("run", "private", f"--image={image}", "--image-pull-policy=Always", "-n", "other")
            wait_for(lambda: ready(lab, "private"), "private is ready", 60)
            assert "(gone)" in events(lab, "private")["FailedToRetrieveImagePullSecret"]

            def refused() -> str:
                found = lab.get("events", "-n", "other", "--field-selector", "reason=Failed")["items"]
                return "".join(event["message"] for event in found)

            wait_for(lambda: "incorrect username or password (401)" in refused(), "the other namespace is refused", 60)
            seen = [lab.kubectl("get", "pods,events,nodes", "-A", "-o", "json"), lab.navarch("why", "private", "--container")]
            seen += [path.read_text(errors="replace") for path in (lab.directory / "logs").iterdir()]
            encoded = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
            assert not any(word in text for text in seen for word in (PASSWORD, encoded))
        finally:
            lab.kubectl("delete", "pod", "private", "--now", "--ignore-not-found")
            lab.kubectl("delete", "namespace", "other")
            lab.kubectl("delete", "secret/mine", "serviceaccount/puller", "--ignore-not-found")


@pytest.mark.parametrize("what", [["image", "pull", "nginx"], ["image", "push", f"{FRONTEND}:v1", "r.example/x"]])
def test_the_command_line_says_that_nothing_leaves(lab: Lab, what: list[str]) -> None:
    done = lab.run(sys.executable, "-m", "cli", *what, check=False)
    assert done.returncode == 1 and "is not asked: egress is off on this machine" in done.stderr, done.stderr
