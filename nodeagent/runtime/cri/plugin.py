"""The CNI plugin, a program that a CRI runtime runs: it passes on what it is told to the agent (network.py).

It is started with no site packages, for each sandbox that comes or goes: so it imports nothing of ours and little else.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"]
GATEWAY = "169.254.1.1"  # as in nodeagent/network/network.py
PATIENCE = 30.0  # seconds for the agent's answer
TRY_AGAIN, FAILED = 11, 100  # CNI's error codes


class Refusal(Exception):
    """The agent says no."""


def ask(path: str, question: dict[str, Any]) -> dict[str, Any]:
    """The agent's answer. Raises OSError, ValueError, Refusal."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.sendall(json.dumps(question).encode() + b"\n")
        with connection.makefile("rb") as file:
            answer: dict[str, Any] = json.loads(file.readline())
    if "error" in answer:
        raise Refusal(answer["error"])
    return answer


def ports(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The host ports. Names in any case, as Go reads them: containerd writes HostPort where the convention has hostPort."""
    mappings = [
        {name.lower(): value for name, value in mapping.items()}
        for mapping in config.get("runtimeConfig", {}).get("portMappings") or ()
    ]
    return [
        {
            "container_port": int(m["containerport"]),
            "host_port": int(m["hostport"]),
            "protocol": m.get("protocol", "tcp").upper(),
            "host_ip": m.get("hostip", ""),
        }
        for m in mappings
    ]


def result(version: str, address: str, namespace: str, interface: str) -> dict[str, Any]:
    """CNI's result of ADD."""
    ip: dict[str, Any] = {"interface": 0, "address": f"{address}/32", "gateway": GATEWAY}
    if version < "1":
        ip["version"] = "4"
    interfaces = [{"name": interface, "sandbox": namespace}]
    return {"cniVersion": version, "interfaces": interfaces, "ips": [ip], "dns": {}}


def main() -> int:
    command = os.environ.get("CNI_COMMAND", "")
    if command == "VERSION":
        print(json.dumps({"cniVersion": VERSIONS[-1], "supportedVersions": VERSIONS}))
        return 0
    config = json.load(sys.stdin)
    version = config.get("cniVersion", VERSIONS[0])
    namespace = os.environ.get("CNI_NETNS", "")
    question = {
        "command": command,
        "container": os.environ.get("CNI_CONTAINERID", ""),
        "namespace": namespace,
        "ports": ports(config),
    }
    try:
        answer = ask(config["socket"], question)
    except Refusal as error:
        return fail(version, FAILED, str(error))
    except (OSError, ValueError) as error:
        if command == "DEL":  # the kernel takes the interface with its namespace; the agent finds the rest when it starts
            return 0
        return fail(version, TRY_AGAIN, f"the node agent does not answer: {error}")
    if command == "ADD":
        print(json.dumps(result(version, answer["address"], namespace, os.environ.get("CNI_IFNAME", "eth0"))))
    return 0


def fail(version: str, code: int, message: str) -> int:
    print(json.dumps({"cniVersion": version, "code": code, "msg": message}))
    return 1


if __name__ == "__main__":
    sys.exit(main())
