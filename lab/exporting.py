"""All that a person needs after a failed run, in a folder: status, logs, events and objects, without anybody's secrets.

    status.json          the lab, its components, why one is not well
    logs/*.log           what each component wrote (the last megabytes)
    events.txt           all events in the order of time
    objects/KIND.json    every object that the server lists; of Secrets only the names of the keys
    pods/NS/POD/*.log    what the containers wrote
    metrics/*.txt        the components' metrics
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.cluster import Cluster
from lab.paths import LabError, private_directory
from lab.scraping import metrics_of
from navarch.api.wellknown import LAST_APPLIED

MAX_LOG = 8 << 20  # bytes of a log that are kept
HIDDEN = "(not exported)"
ENCODED = ("data", "stringData")


def export_lab(cluster: Cluster, directory: Path) -> list[str]:
    """Writes what there is; texts about what could not be got, because something does not run. Raises LabError."""
    if directory.exists() and any(directory.iterdir()):
        raise LabError(f"{directory} is not empty")
    cluster.required_record  # noqa: B018 - says which lab is missing
    missing: list[str] = []
    try:
        private_directory(directory)
        cluster.progress("status and logs")
        _write(directory / "status.json", cluster.status())
        for log in sorted(cluster.paths.logs.glob("*.log")):
            _copy_end(log, directory / "logs" / log.name)
        for part, what in ((_objects, "objects"), (_pod_logs, "pods' output"), (_metrics, "metrics")):
            cluster.progress(what)
            _tried(lambda part=part: part(cluster, directory), what, missing)  # type: ignore[misc]
    except OSError as error:
        raise LabError(f"cannot write to {directory}: {error.strerror}") from error
    return missing


def _tried(part: Callable[[], None], what: str, missing: list[str]) -> None:
    try:
        part()
    except (LabError, ConnectionError, TimeoutError) as error:
        missing.append(f"no {what}: {error}")


def _write(path: Path, content: Any) -> None:
    private_directory(path.parent)
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    path.write_text(text + "\n")


def _copy_end(source: Path, target: Path) -> None:
    private_directory(target.parent)
    with source.open("rb") as file, target.open("wb") as out:
        file.seek(max(0, source.stat().st_size - MAX_LOG))
        shutil.copyfileobj(file, out)


def _get(cluster: Cluster, path: str) -> Any:
    status, body = cluster.api.call("GET", path, timeout=30)
    if status != 200:
        raise LabError(f"{path}: {status}")
    return json.loads(body)


def _resources(cluster: Cluster) -> list[tuple[str, str]]:
    """(name of a file, path of the list) of every kind in its preferred version."""
    groups = [("v1", "/api/v1", "")]
    for group in _get(cluster, "/apis")["groups"]:
        version = group["preferredVersion"]["groupVersion"]
        groups.append((version, f"/apis/{version}", f".{group['name']}"))
    out = []
    for _, path, suffix in groups:
        for each in _get(cluster, path)["resources"]:
            if "list" in each["verbs"] and "/" not in each["name"]:
                out.append((each["name"] + suffix, f"{path}/{each['name']}"))
    return out


def _objects(cluster: Cluster, directory: Path) -> None:
    for name, path in _resources(cluster):
        if name == "events.events.k8s.io":
            continue  # the same as events
        try:
            listed = _get(cluster, path)
        except LabError as error:  # an API behind ours that is away
            _write(directory / "objects" / f"{name}.error", str(error))
            continue
        items = [without_secrets(listed["kind"], item) for item in listed["items"]]
        if name == "events":
            _write(directory / "events.txt", "\n".join(event_line(e) for e in sorted(items, key=_time)))
        if items:
            _write(directory / "objects" / f"{name}.json", listed | {"items": items})


def without_secrets(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    """The object without what nobody else should read: of a Secret the names of its keys are left."""
    if kind != "SecretList":
        return item
    shown = {part: dict.fromkeys(item[part], HIDDEN) for part in ENCODED if item.get(part)}
    metadata = dict(item["metadata"])
    annotations = metadata.get("annotations") or {}
    if LAST_APPLIED in annotations:  # holds the values once more
        metadata["annotations"] = annotations | {LAST_APPLIED: HIDDEN}
    return item | shown | {"metadata": metadata}


def _time(event: dict[str, Any]) -> str:
    times = (event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return next((t for t in times if t), "")


def event_line(event: dict[str, Any]) -> str:
    about = event.get("involvedObject") or {}
    place = "/".join(filter(None, (about.get("namespace"), (about.get("kind") or "").lower(), about.get("name"))))
    count = f" (x{event['count']})" if (event.get("count") or 1) > 1 else ""
    return f"{_time(event)} {event.get('type', '')} {event.get('reason', '')} {place}: {event.get('message', '')}{count}"


def _pod_logs(cluster: Cluster, directory: Path) -> None:
    for pod in _get(cluster, "/api/v1/pods")["items"]:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        statuses = pod.get("status") or {}
        for each in [*(statuses.get("initContainerStatuses") or ()), *(statuses.get("containerStatuses") or ())]:
            for previous in (False, True) if each.get("restartCount") else (False,):
                path = f"/api/v1/namespaces/{namespace}/pods/{name}/log?container={each['name']}&limitBytes={MAX_LOG}"
                status, body = cluster.api.call("GET", path + ("&previous=true" if previous else ""), timeout=30)
                if status == 200 and body:
                    file = directory / "pods" / namespace / name / f"{each['name']}{'.previous' if previous else ''}.log"
                    private_directory(file.parent)
                    file.write_bytes(body)


def _metrics(cluster: Cluster, directory: Path) -> None:
    names = [n.name for n in cluster.required_record.nodes]
    nodes = [f"{component}/{name}" for component in ("agent", "proxy") for name in names]
    for component in ["apiserver", "scheduler", "controllers", *nodes]:
        try:
            text = metrics_of(cluster, component).decode(errors="replace")
        except LabError as error:
            text = f"# {error}"
        _write(directory / "metrics" / f"{component.replace('/', '-')}.txt", text)
