"""kubectl top on a real lab."""

from __future__ import annotations

from tests.e2e.harness import Lab, wait_for


def test_top(guestbook: Lab) -> None:
    rows = guestbook.kubectl("top", "nodes", "--no-headers").splitlines()
    assert [row.split()[0] for row in rows] == ["node-1", "node-2", "node-3"]
    listed = {p["metadata"]["name"] for p in guestbook.get("pods")["items"]}

    def shown() -> bool:
        return {row.split()[0] for row in guestbook.kubectl("top", "pods", "--no-headers").splitlines()} >= listed

    wait_for(shown, "every pod of the guestbook is shown", 30)
    # A Python process needs a few MiB, and no more than there are.
    for row in guestbook.kubectl("top", "pods", "--containers", "--no-headers", "-l", "app=guestbook").splitlines():
        assert 1 <= int(row.split()[3].removesuffix("Mi")) < 500, row
