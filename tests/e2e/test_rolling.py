"""Rolling updates under load: no client notices one that is done as Kubernetes' documentation recommends."""

from __future__ import annotations

import json
import time

from tests.e2e.conftest import FRONTEND, guestbook_up
from tests.e2e.harness import Lab, loads, wait_for

V1, V2 = f"{FRONTEND}:v1", f"{FRONTEND}:v2"


def images(lab: Lab) -> list[str]:
    pods = lab.get("pods", "-l", "app=guestbook")["items"]
    return sorted(p["spec"]["containers"][0]["image"] for p in pods)


def rolled_out(lab: Lab) -> None:
    lab.kubectl("rollout", "status", "deployment/frontend", "--timeout=60s")


def test_update_and_undo_fail_no_request(guestbook: Lab) -> None:
    lab = guestbook
    inside, outside = loads(lab)
    began = time.monotonic()
    with inside, outside:
        lab.kubectl("set", "image", "deployment/frontend", f"web={V2}")
        rolled_out(lab)
        updated = time.monotonic() - began
        # Old pods still drain. Undo when they are gone, so that both directions are seen from start to end.
        wait_for(lambda: images(lab) == [V2] * 3, "only v2 is left")
        lab.kubectl("rollout", "undo", "deployment/frontend")
        rolled_out(lab)
        wait_for(lambda: images(lab) == [V1] * 3, "only v1 is left")
    print(f"update {updated:.2f} s; {inside.report}; {outside.report}")
    for load in (inside, outside):
        assert load.report["failed"] == 0, load.report
        assert set(load.report["bodies"]) == {"v1", "v2"}, "the load saw both versions"
    assert inside.report["sent"] > 200
    assert outside.report["sent"] > 600


def without_pre_stop() -> str:
    container = {"name": "web", "lifecycle": None, "env": [{"name": "DRAIN", "value": "no"}]}
    return json.dumps({"spec": {"template": {"spec": {"containers": [container]}}}})


def test_without_pre_stop_and_drain_requests_fail(guestbook: Lab) -> None:
    """The test above can fail: a server that ends at once when told to breaks connections that are open."""
    lab = guestbook
    try:
        lab.kubectl("patch", "deployment", "frontend", "-p", without_pre_stop())
        rolled_out(lab)
        inside, outside = loads(lab)
        with inside, outside:
            lab.kubectl("set", "image", "deployment/frontend", f"web={V2}")
            rolled_out(lab)
        assert inside.failed + outside.failed > 0, (inside.report, outside.report)
    finally:
        guestbook_up(lab)
