"""The metrics of a lab's components: from sockets, the API server's and an agent's from the API, a proxy's in its node."""

from __future__ import annotations

from lab.cluster import Cluster
from lab.namespaces import ProcessId, in_child
from lab.pages import page
from lab.paths import LabError
from navarch.linux.syscalls import CLONE_NEWNET

WITH_SOCKET = ("scheduler", "controllers")
PROXY = ("127.0.0.1", 10256)


def metrics_of(cluster: Cluster, component: str) -> bytes:
    """The page /metrics of a component. Raises LabError."""
    name, _, node = component.partition("/")
    try:
        if component in WITH_SOCKET:
            status, body = page(cluster.paths.run / f"{component}.sock", "/metrics")
        elif component == "apiserver":
            status, body = cluster.api.call("GET", "/metrics")
        elif name == "agent" and node:
            cluster.required_record.node(node)
            status, body = cluster.api.call("GET", f"/api/v1/nodes/{node}/proxy/metrics")
        elif name == "proxy" and node:
            init = ProcessId.load(cluster.required_record.node(node).init)
            if init is None or not init.enterable():
                raise LabError(f"node {node} is off")
            status, body = in_child(lambda: _proxy(init))
        else:
            choices = ", ".join(["apiserver", *WITH_SOCKET, "agent/NODE", "proxy/NODE"])
            raise LabError(f"{component} has no metrics; those that have: {choices}")
    except OSError as error:
        raise LabError(f"{component} does not answer ({error}); see: navarch status{cluster.lab_flag}") from error
    if status != 200:
        raise LabError(f"{component} answers {status}: {body.decode(errors='replace')[:300]}")
    return body


def _proxy(init: ProcessId) -> tuple[int, bytes]:
    import http.client

    init.enter(CLONE_NEWNET)
    connection = http.client.HTTPConnection(*PROXY, timeout=5)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    return response.status, response.read()
