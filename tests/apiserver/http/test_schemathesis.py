"""A short run of schemathesis over all that is published; see fuzz.py for long ones.

No answer may be a 5xx, come never, or have a status, a content type or a body that the documents do not tell of.
"""

from __future__ import annotations

from tests.apiserver.http.fuzz import Server, fuzz
from tests.sampling import sample

ALWAYS = ("api/v1", "apis/apps/v1")


def test_no_answer_is_outside_of_what_is_published() -> None:
    """In two group-versions and a third of the others."""
    with Server() as server:
        others = sorted(name for name in server.get("/openapi/v3")["paths"] if name not in ALWAYS)
        some = {*ALWAYS, *sample(others, len(others) // 3, "published")}
        found = [f"{label}: {error}" for label, error in fuzz(server, 2, 1, some.__contains__)]
        assert not found, "\n\n".join(found)
        codes = {code for _, code in server.statuses}
        assert {200, 201, 400, 404, 409, 422} <= codes and max(codes) < 500


def test_watches_end_and_send_events() -> None:
    with Server() as server:
        only = "apis/coordination.k8s.io/v1"
        found = [f"{label}: {error}" for label, error in fuzz(server, 5, 1, lambda name: name == only, watches=True)]
        assert not found, "\n\n".join(found)
