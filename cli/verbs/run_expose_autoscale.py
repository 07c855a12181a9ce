"""``navarch run``, ``expose`` and ``autoscale``: objects made from a few words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from cli.errors import CommandError
from cli.objectchanges import Change, chosen
from cli.options import App, Argument, Option
from cli.session import Session, Tree
from cli.targets import LiveObject, Query
from cli.verb import DryRun, FieldManager, Filenames, Output, Recursive, Resources, Where, verb
from navarch.api.patch.merge import apply_merge

app = App()

RESTARTS = ("Always", "OnFailure", "Never")
Labels = Annotated[str, Option("-l", "--labels", metavar="KEY=VALUE,...", help="Labels of what is made.")]


def pairs(text: str) -> dict[str, str]:
    """``a=b,c=d``. Raises CommandError."""
    out = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise CommandError(f"unexpected label spec: {part}")
        out[key] = value
    return out


def _policy_of(where: Where, image: str) -> str:
    """IfNotPresent for an image that the lab's store has; else "", and the server decides. An image that was built here has
    no registry: Always, which Kubernetes takes for the tag latest, would ask one for it in vain."""
    if where.kubeconfig or where.context:
        return ""  # it may be any cluster's
    from nodeagent.images.reference import InvalidReference
    from nodeagent.images.store import ImageStore

    root = Path(os.environ.get("NAVARCH_HOME") or Path.home() / ".navarch") / "images"
    try:
        return "IfNotPresent" if root.is_dir() and ImageStore(root).find(image) else ""
    except (InvalidReference, OSError):
        return ""


@verb(app)
def run(
    where: Where,
    name: Annotated[str, Argument("NAME")] = "",
    words: Annotated[list[str] | None, Argument("-- [COMMAND] [ARG...]")] = None,
    image: Annotated[str, Option("--image", metavar="IMAGE", help="What to run.")] = "",
    port: Annotated[int, Option("--port", help="The port that the container listens on.")] = 0,
    expose: Annotated[bool, Option("--expose", help="With a service for the port.")] = False,
    env: Annotated[
        list[str] | None, Option("--env", metavar="NAME=VALUE", help="An environment variable.")
    ] = None,
    labels: Labels = "",
    annotations: Annotated[
        list[str] | None, Option("--annotations", metavar="KEY=VALUE", help="An annotation.")
    ] = None,
    restart: Annotated[str, Option("--restart", metavar="|".join(RESTARTS), help="When it ends.")] = "Always",
    command: Annotated[bool, Option("--command", help="The words are the command, not its arguments.")] = False,
    image_pull_policy: Annotated[
        str, Option("--image-pull-policy", metavar="POLICY", help="Always, IfNotPresent, Never.")
    ] = "",
    privileged: Annotated[bool, Option("--privileged", help="With all rights of the node.")] = False,
    stdin: Annotated[bool, Option("-i", "--stdin", help="Keep standard input open.")] = False,
    tty: Annotated[bool, Option("-t", "--tty", help="With a terminal.")] = False,
    overrides: Annotated[str, Option("--overrides", metavar="JSON", help="Merged into the pod.")] = "",
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-run",
) -> None:
    """Run an image in a pod: navarch run web --image=nginx --port=80 --expose."""

    async def main(session: Session) -> None:
        change = Change(output, dry_run, field_manager)
        if not image:
            raise CommandError('required flag(s) "image" not set')
        if not name:
            raise CommandError("NAME is required for run\nSee 'navarch run -h' for help and examples")
        if restart not in RESTARTS:
            raise CommandError(f"invalid restart policy: {restart}\nSee 'navarch run -h' for help and examples")
        if any(c.isspace() for c in image):
            raise CommandError(f'Invalid image name "{image}": invalid reference format')
        if expose and not port:
            raise CommandError("--port must be set when exposing a service")
        own = pairs(labels) or {"run": name}
        container: Tree = {"name": name, "image": image, "resources": {}}
        if words:
            container["command" if command else "args"] = words
        if env:
            container["env"] = [_variable(each) for each in env]
        if port:
            container["ports"] = [{"containerPort": port}]
        if policy := image_pull_policy or _policy_of(where, image):
            container["imagePullPolicy"] = policy
        if privileged:
            container["securityContext"] = {"privileged": True}
        if stdin:
            container |= {"stdin": True, "stdinOnce": True}
        if tty:
            container["tty"] = True
        meta: Tree = {"name": name, "labels": own}
        if annotations:
            meta["annotations"] = dict(a.partition("=")[::2] for a in annotations)
        spec = {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": restart}
        pod: Tree = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        if overrides:
            try:
                pod = dict(apply_merge(pod, json.loads(overrides)))
            except ValueError as error:
                raise CommandError(f"invalid character in --overrides: {error}") from None
        if expose:
            ports = [{"port": port, "protocol": "TCP", "targetPort": port}]
            service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": own}}
            service["spec"] = {"ports": ports, "selector": own}
            resource = await session.resource("services")
            change.say(resource, await change.create(session, resource, service), "created")
        resource = await session.resource("pods")
        change.say(resource, await change.create(session, resource, pod), "created")

    where.run(main)


def _variable(text: str) -> Tree:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CommandError(f"invalid env: {text}")
    return {"name": name, "value": value}


@verb(app)
def expose(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    port: Annotated[str, Option("--port", help="The service's port or ports; else the containers'.")] = "",
    target_port: Annotated[str, Option("--target-port", help="The pods' port, by number or name.")] = "",
    name: Annotated[str, Option("--name", help="The service's name; else the object's.")] = "",
    protocol: Annotated[str, Option("--protocol", metavar="TCP|UDP", help="Else the containers'.")] = "",
    type_: Annotated[str, Option("--type", metavar="TYPE", help="ClusterIP, NodePort, LoadBalancer.")] = "",
    selector: Annotated[str, Option("--selector", metavar="LABELS", help="Which pods; else the object's.")] = "",
    labels: Labels = "",
    external_ip: Annotated[str, Option("--external-ip", metavar="IP", help="Also at this address.")] = "",
    load_balancer_ip: Annotated[str, Option("--load-balancer-ip", metavar="IP", help="Of a load balancer.")] = "",
    cluster_ip: Annotated[str, Option("--cluster-ip", metavar="IP", help="The service's address, or None.")] = "",
    session_affinity: Annotated[
        str, Option("--session-affinity", metavar="None|ClientIP", help="A client stays at its pod.")
    ] = "",
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-expose",
) -> None:
    """Make a service for an object: navarch expose deploy/web --port=80 --target-port=8080."""
    query = Query(resources or (), filename or (), recursive)

    async def main(session: Session) -> None:
        change = Change(output, dry_run, field_manager)
        service = await session.resource("services")
        for live in await chosen(session, query):
            with query.failures.collect():
                pod_labels = pairs(selector) or _selector(live)
                meta: Tree = {"name": name or live.name, "namespace": live.namespace}
                if own := pairs(labels) or live.tree["metadata"].get("labels"):
                    meta["labels"] = own
                spec: Tree = {"ports": _ports(live, port, target_port, protocol), "selector": pod_labels}
                extras = {"type": type_, "clusterIP": cluster_ip, "sessionAffinity": session_affinity}
                extras["loadBalancerIP"] = load_balancer_ip
                spec |= {key: value for key, value in extras.items() if value}
                if external_ip:
                    spec["externalIPs"] = [external_ip]
                tree = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}
                change.say(service, await change.create(session, service, tree), "exposed")
        query.failures.raise_any()

    where.run(main)


def _selector(live: LiveObject) -> dict[str, str]:
    """The labels that choose an object's pods. Raises CommandError."""
    spec, kind = live.tree.get("spec") or {}, live.resource.kind.kind
    if live.resource.full not in (
        "pods", "services", "replicationcontrollers", "deployments.apps", "replicasets.apps",
    ):  # fmt: skip
        raise CommandError(f"cannot expose a {kind}")
    if kind == "Pod":
        labels = live.tree["metadata"].get("labels")
        if not labels:
            raise CommandError("couldn't retrieve selectors via --selector flag or introspection: the pod has no labels "
                               "and cannot be exposed")  # fmt: skip
        return dict(labels)
    own_selector = spec.get("selector") or {}
    if kind in ("Service", "ReplicationController"):
        if not own_selector:
            raise CommandError("couldn't retrieve selectors via --selector flag or introspection: invalid service")
        return dict(own_selector)
    if own_selector.get("matchExpressions"):
        raise CommandError("couldn't retrieve selectors via --selector flag or introspection: couldn't convert "
                           "expressions to map-based selector format")  # fmt: skip
    return dict(own_selector.get("matchLabels") or {})


def _ports(live: LiveObject, port: str, target: str, protocol: str) -> list[Tree]:
    """The ports asked for, else those of the containers (or of the service). Raises CommandError."""
    spec = live.tree.get("spec") or {}
    own: list[tuple[int, str]]
    if live.resource.full == "services":
        own = [(p["port"], p.get("protocol") or "TCP") for p in spec.get("ports") or ()]
    else:
        pod = spec if live.resource.full == "pods" else (spec.get("template") or {}).get("spec") or {}
        own = [
            (p["containerPort"], p.get("protocol") or "TCP")
            for c in pod.get("containers") or ()
            for p in c.get("ports") or ()
        ]
    protocols = dict(own)
    try:
        numbers = [int(text) for text in port.split(",") if text] or [number for number, _ in own]
    except ValueError:
        raise CommandError(f'invalid port "{port}"') from None
    if not numbers:
        raise CommandError("couldn't find port via --port flag or introspection")
    out: list[Tree] = []
    for index, number in enumerate(numbers):
        aim: Any = int(target) if target.isdigit() else target or number
        each = {"port": number, "protocol": protocol or protocols.get(number, "TCP"), "targetPort": aim}
        out.append(({"name": f"port-{index + 1}"} if len(numbers) > 1 else {}) | each)
    return out


@verb(app)
def autoscale(
    where: Where,
    resources: Resources = None,
    filename: Filenames = None,
    recursive: Recursive = False,
    max_: Annotated[int, Option("--max", help="At most so many pods.")] = -1,
    min_: Annotated[int, Option("--min", help="At least so many pods.")] = -1,
    cpu_percent: Annotated[int, Option("--cpu-percent", help="Of the requested CPU, on average.")] = -1,
    name: Annotated[str, Option("--name", help="The autoscaler's name; else the object's.")] = "",
    output: Output = "",
    dry_run: DryRun = "",
    field_manager: FieldManager = "kubectl-autoscale",
) -> None:
    """Scale by load: navarch autoscale deploy/web --min=2 --max=5 --cpu-percent=70."""
    query = Query(resources or (), filename or (), recursive)

    async def main(session: Session) -> None:
        change = Change(output, dry_run, field_manager)
        if max_ < 0:
            raise CommandError('required flag(s) "max" not set')
        if max_ < 1:
            raise CommandError(f"--max=MAXPODS is required and must be at least 1, max: {max_}")
        if max_ < min_:
            raise CommandError(f"--max=MAXPODS must be larger or equal to --min=MINPODS, max: {max_}, min: {min_}")
        scaler = await session.resource("horizontalpodautoscalers.v1.autoscaling")
        for live in await chosen(session, query):
            with query.failures.collect():
                kind = live.resource.kind
                if "scale" not in live.resource.subresources:
                    raise CommandError(
                        f"cannot autoscale a {kind.kind}: could not find scale subresource for "
                        f"{kind.group}/{kind.version}, Resource={kind.resource} in discovery information"
                    )
                target = {"apiVersion": kind.api_version, "kind": kind.kind, "name": live.name}
                spec: Tree = {"maxReplicas": max_, "scaleTargetRef": target}
                if min_ > 0:
                    spec["minReplicas"] = min_
                if cpu_percent >= 0:
                    spec["targetCPUUtilizationPercentage"] = cpu_percent
                meta = {"name": name or live.name, "namespace": live.namespace}
                tree = {"apiVersion": scaler.kind.api_version, "kind": scaler.kind.kind, "metadata": meta, "spec": spec}
                change.say(scaler, await change.create(session, scaler, tree), "autoscaled")
        query.failures.raise_any()

    where.run(main)
