"""The guestbook on the embedded store."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.conftest import guestbook_up
from tests.e2e.harness import Lab, answers, fetch, wait_for
from tests.e2e.test_down import down_at_last
from tests.e2e.writer import Writer


def test_guestbook_on_sqlite(home: Path) -> None:
    lab = Lab(home, "sqlite")
    with down_at_last(lab):
        lab.up("--nodes", "3", "--store", "sqlite")
        assert lab.status()["store"]["kind"] == "sqlite"
        assert not any(p["name"] == "etcd" for p in lab.status()["processes"])
        guestbook_up(lab)
        url = f"http://{lab.node('node-2')['address']}:30080/entries"
        lab.run(*fetch(url, "kept in sqlite"))
        wait_for(lambda: "kept in sqlite" in answers(url, lab), "a follower has the entry", 30)

        with Writer(lab) as writer:
            for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
                old = lab.pid("apiserver")
                os.kill(old, number)
                wait_for(lambda o=old: lab.pid("apiserver") not in (o, 0), "the API server is started again", 20)
                writer.progress()
        writer.check()
        assert "kept in sqlite" in answers(url, lab), "the pods did not notice"

        lab.navarch("down")
        lab.up()
        guestbook_up(lab)
        wait_for(lambda: answers(url, lab), "the guestbook answers again", 30)
