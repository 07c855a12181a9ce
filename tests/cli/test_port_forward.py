"""Which ports navarch port-forward means, and its way through a connection that plays the server."""

from __future__ import annotations

import pytest

from cli.errors import CommandError
from cli.verbs.portforward import Forward, parse

POD = {
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
}
SERVICE = {
    "metadata": {"name": "s"},
    "spec": {"ports": [{"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 7000}]},
}


@pytest.mark.parametrize(
    "text, pod, service",
    [
        ("80", Forward(80, 80), Forward(80, 8080)),
        ("8888:80", Forward(8888, 80), Forward(8888, 8080)),
        (":80", Forward(0, 80), Forward(0, 8080)),
        ("9000:http", Forward(9000, 8080), None),
        ("http", Forward(8080, 8080), None),
        ("web", None, Forward(8080, 8080)),
        ("7000", Forward(7000, 7000), Forward(7000, 7000)),
        ("0", None, None),
        ("70000:80", None, None),
        ("x", None, None),
    ],
)
def test_ports(text: str, pod: Forward | None, service: Forward | None) -> None:
    for expected, through in ((pod, None), (service, SERVICE)):
        if expected is None:
            with pytest.raises(CommandError):
                parse(text, POD, through)
        else:
            assert parse(text, POD, through) == expected
