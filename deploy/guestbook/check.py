"""Writes an entry through the front end's NodePort, waits until a follower has it, and says how to go on."""

import json
import os
import subprocess
import sys
import time
import urllib.request

PORT = 30080


def entries(url: str) -> list[str]:
    with urllib.request.urlopen(f"{url}/entries", timeout=5) as answer:
        return json.load(answer)


def main() -> int:
    status = json.loads(subprocess.check_output(["navarch", "status", "-o", "json"]))
    node = next(n for n in status["nodes"] if n["power"] == "on")
    url = f"http://{node['address']}:{PORT}"
    entry = f"Hello from quickstart at {time.strftime('%H:%M:%S')}"
    end = time.monotonic() + 30
    written = False
    while True:
        try:
            if not written:
                urllib.request.urlopen(f"{url}/entries", entry.encode(), timeout=5).close()
                written = True
            if entry in entries(url):
                break
            error: object = "the follower has not got the entry yet"
        except OSError as caught:
            error = caught
        if time.monotonic() > end:
            print(f"quickstart: the guestbook at {url} does not work: {error}", file=sys.stderr)
            return 1
        time.sleep(0.2)
    lab = "" if status["lab"] == "default" else f" --lab {status['lab']}"
    print(f'    read back: "{entry}"\n')
    print(f"The guestbook runs at   {url}")
    print(f"The kubeconfig is       {status['kubeconfig']}\n")
    path = os.path.dirname(sys.executable)
    print("What to type next:\n")
    print(f"    export PATH={path}:$PATH KUBECONFIG={status['kubeconfig']}")
    print("    kubectl get pods -o wide                     (or: navarch get pods -o wide)")
    print("    kubectl set image deployment/frontend web=localhost/guestbook-frontend:v2")
    print("    kubectl rollout status deployment/frontend")
    print(f"    navarch node stop {status['nodes'][-1]['name']}{lab}")
    print(f"    navarch down{lab}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
