"""The parts of an experiment's file as structs: every field, its type, its default and its meaning."""

from __future__ import annotations

from typing import Any

import msgspec

from lab.experiments.schema import Strict, Words
from lab.experiments.state import State

VERSION, KIND = "lab.navarch.dev/v1", "Experiment"
MODES = ("simulated", "cycle", "hollow", "real")
MAX_COUNT = 100_000  # seeds, nodes of a group, objects of a template, clients
DESIGNS = ("full", "one-at-a-time", "pairs")

CONDITIONS = {
    "ready": "`ready([ref])`: pods that are Ready", "desired": "`desired(ref)`: the replicas that a workload asks for",
    "unavailable": "`unavailable(ref)`: the one less the other", "total": "`total([ref])`: pods that live",
    "pending": "`pending([ref])`: pods that no node has", "succeeded": "`succeeded([ref])`: pods that ended well",
    "running_image": '`running_image(ref, "image")`: pods of an image', "nodes_ready": "`nodes_ready()`: nodes that are Ready",
    "available": "`available(ref)`: all pods that a workload asks for are ready",
    "rolled_out": "`rolled_out(ref)`: as `kubectl rollout status` sees it",
    "stuck": "`stuck(ref)`: a deployment whose progress deadline has passed",
    "node_ready": '`node_ready("name")`: a node is Ready', "cel": '`cel(ref, "CEL over object")`: the expression is true',
}  # fmt: skip
"""The functions of State that ``until`` and ``when`` may call."""
assert all(hasattr(State, name) for name in CONDITIONS)

FAULTS = {
    "power-off": "a node: its machine stops dead", "partition": "a node: its pods run on, and nobody hears of it",
    "crash": "a component ends in the middle of its work", "cut": "a component's connection to the API server",
    "slow": "a component's requests take longer, so much as `by` says",
    "kill": "a container dies: of `pod/NAME/CONTAINER`, or of the first pod of a workload",
    "delay-store": "a time that each question to the store, and each write, takes longer",
    "fail-store": "the store fails: `all` of it, or its `writes`",
}  # fmt: skip
DEEDS = {
    "apply": "manifests, as in `workload`", "delete": "a reference", "scale": "by reference, the replicas",
    "set-image": "by reference, an image for all containers, or images by container",
    "patch": "by reference, a strategic patch",
    "restart": "a workload, as `kubectl rollout restart`", "pause": "a deployment's rollout",
    "resume": "a deployment's rollout",
    "undo": "a workload, as `kubectl rollout undo`; or by reference, the revision", "cordon": "a node", "uncordon": "a node",
    "drain": "a node; it goes on while other steps begin", "evict": "a pod", "load": "by service, the rate from now on",
    "run": "a command in the file's folder, only with `--allow-commands`", "power-on": "a node", "heal": "a partitioned node",
    "start": "a component that crashed", "mend": "a component that is cut or slow",
    "restore-store": "a store that is slow or fails: `all`",
}  # fmt: skip
COMPONENTS = ("scheduler", "controllers", "nodes")


class Metadata(Strict):
    name: str
    """Of the experiment; the folder of results is called after it."""


class Taint(Strict):
    key: str
    value: str = ""
    effect: str = "NoSchedule"


class Nodes(Strict):
    """A group of nodes that are alike; or those of a ``trace``, a file of one of the [formats](#formats-of-traces)."""

    count: int = 1
    trace: str = ""
    """A file of nodes; then only ``format`` and ``pods`` count beside it."""
    cluster: str = ""
    """A kubeconfig: nodes like those of its cluster, as they are when the file is read."""
    listed: list[dict[str, Any]] = []
    """Nodes by name: name, cpu, memory, pods, labels, resources, taints. ``cluster`` fills it in."""
    format: str = "csv"
    prefix: str = "node-"
    """Of the names: node-1, node-2 and so on."""
    cpu: Words = "4"
    memory: Words = "16Gi"
    pods: int = 110
    zones: int = 0
    """In so many zones they lie in turn (zone-1, zone-2 and so on)."""
    labels: dict[str, Words] = {}
    resources: dict[str, Words] = {}
    taints: list[Taint] = []


class SchedulerPart(Strict):
    plugins: list[str] = []
    """``file.py:Class``, ``module:Class``, or the name of one that comes with navarch."""
    config: str = ""
    """A KubeSchedulerConfiguration: a file, or its text."""
    tie_break: str = "random"
    """Among equal nodes: random, name, or shuffled (one order from the seed)."""


class NodeGroup(Strict):
    """Nodes that are alike, of which the autoscaler adds and removes some. Those up to ``min`` are there from the start."""

    name: str
    """Of the group, and with a number of its nodes: small-1, small-2 and so on."""
    max: int
    min: int = 0
    cpu: Words = "4"
    memory: Words = "16Gi"
    pods: int = 110
    zone: str = ""
    labels: dict[str, Words] = {}
    resources: dict[str, Words] = {}
    taints: list[Taint] = []
    boot: Words = "60s"
    """From the order of a machine until its Node is there; may be a distribution."""
    price: float = 0.0
    """Of a node, an hour."""


class Autoscaler(Strict):
    """A simulated Cluster Autoscaler, in mode simulated; names, defaults and meanings of the options are its own."""

    groups: list[NodeGroup]
    expander: str = "random"
    """Which group grows, if several would help: random, least-waste, price (the least for each pod), or most-pods."""
    scan_interval: Words = "10s"
    scale_down_enabled: bool = True
    scale_down_utilization_threshold: float = 0.5
    scale_down_unneeded_time: Words = "10m"
    scale_down_delay_after_add: Words = "10m"
    scale_down_delay_after_delete: Words = "0s"
    scale_down_delay_after_failure: Words = "3m"
    max_empty_bulk_delete: int = 10
    max_graceful_termination: Words = "10m"
    max_pod_eviction_time: Words = "2m"
    ignore_daemonsets_utilization: bool = False
    skip_nodes_with_local_storage: bool = True
    skip_nodes_with_system_pods: bool = True


class ClusterPart(Strict):
    nodes: list[Nodes] = []
    autoscaler: Autoscaler | None = None
    mode: str = "simulated"
    """simulated: on virtual time; hollow: on the wall clock, a real control plane and simulated nodes; real: real nodes and
    containers, as root; cycle: the scheduler's decisions alone. The same file in all of them."""
    heartbeats: str = "full"
    """Or elided, with the same outcome at less cost."""
    events: bool = True
    """Whether Event objects are written."""
    set: dict[str, Words] = {}
    """Settings of components, such as controllers.node-monitor-grace-period."""
    objects: list[Any] = []
    """Manifests, as in ``apply``, that are there before anything begins: PriorityClasses, quotas, namespaces, budgets."""
    scheduler: SchedulerPart = msgspec.field(default_factory=SchedulerPart)


class Arrivals(Strict):
    """Objects that come over time: ``poisson`` or ``every``; ``draw`` gives ``${draw.NAME}`` in the template its values."""

    template: Any
    for_: Words
    poisson: str = ""
    """A rate, such as `12/min`: at random times."""
    every: Words = ""
    """At even times, so far apart."""
    count: int = 0
    """At most so many; 0: no limit."""
    draw: dict[str, Words] = {}


class Generate(Strict):
    """Objects of one shape, all at the start: ``${n}`` in the template is their number, from 1 on; ``draw`` as in arrivals."""

    count: int
    template: Any
    draw: dict[str, Words] = {}


class Trace(Strict):
    """Pods of a file. ``window``: from and to, in the trace's time; ``sample``: so large a part of them, such as 10%;
    ``speed``: so many seconds of the trace go by in one; ``order``: recorded or shuffled; ``demand``: of a resource, the part
    of the cluster's capacity (such as 130%) until which more pods are drawn. ``one-by-one``: each arrives once the one before
    is decided upon, none leaves, and those that fit nowhere are dropped."""

    file: str
    format: str = "csv"
    speed: float = 1.0
    window: list[Words] = []
    sample: Words = "100%"
    order: str = "recorded"
    demand: dict[str, Words] = {}
    one_by_one: bool = False


class Load(Strict):
    """Requests to a service. ``rate``: also [a shape](#shapes-of-load-and-what-requests-meet); ``latency``: the way there and
    back; ``capacity``: requests a second that one pod can answer; ``cpu``: time of a core that a request takes; pods use so
    much, by the annotation hollow.navarch.dev/cpu that metrics read; ``metric``: the custom metric of pods that tells
    autoscalers how many requests a second each of them answers (in mode real, the pods' own pages have to tell it)."""

    service: str
    rate: Words
    timeout: Words = "2s"
    latency: Words = "10ms"
    capacity: Words = "100/s"
    programming: Words = "50ms"
    """How long after a change of the endpoints each node's proxy knows of it; may be a distribution."""
    for_: Words = ""
    cpu: Words = ""
    metric: str = ""
    retries: int = 0
    """How often a request that failed is tried again."""
    backoff: Words = "100ms"
    """From a failure to the next try."""
    connections: str = "new"
    """``new`` for each request, or ``kept``: each client keeps its connection to one pod until a request on it fails."""
    clients: int = 10
    """With ``connections: kept``."""
    from_: str = "outside"
    """``outside``: through a Ready node at random; or ``node/NAME``: clients on this node."""
    path: str = "/"
    """Of the requests; in mode real."""


class Work(Strict):
    """Exactly one of these."""

    apply: Any = None
    """Manifests: a file, a text, an object, a list, ``{helm: CHART, name, values}`` or ``{kustomize: FOLDER}``; at the
    start."""
    generate: Generate | None = None
    arrivals: Arrivals | None = None
    load: Load | None = None
    trace: Trace | None = None


class Step(Strict):
    """At most one of ``do`` and ``fault``. It begins once the step before it is over, or the one that ``after`` names, at
    ``at``, once ``when`` holds; it ends after ``wait``, once ``until`` holds."""

    name: str = ""
    """For ``after`` of others."""
    after: str = ""
    """The name of a step, or begin: this one begins once that is over, beside all others."""
    at: Words = ""
    """A time since the beginning, or a mark and a time, such as ``start+3s``."""
    when: str = ""
    """A condition on which it begins: `ready(deployment/web) >= 2`; see [Conditions](#conditions)."""
    do: dict[str, Any] = {}
    """The deed of an operator, by its word: `{scale: {deployment/web: 3}}`; see [Deeds](#deeds)."""
    fault: dict[str, Words] = {}
    """The fault, by its word: `{power-off: node-1, for: 60s}`; see [Faults](#faults)."""
    wait: Words = ""
    """A time that passes before `until` is asked."""
    until: str = ""
    """The condition on which it ends."""
    within: Words = "10m"
    """For so long `when` and `until` are waited for."""
    on_timeout: str = "record"
    """After that: `record` (the run goes on, and says so) or `fail`."""
    mark: str = ""
    """A name for the time at which its `do` or `fault` begins; of a step without these, at which it ends."""


class Expectation(Strict):
    """``expr`` holds for every run, or for the mean over the seeds of each cell (``of: mean``); ``where`` picks levels.

    Or a measure that is in the ``reference``: the mean of each cell is not further from its than so many of its ``deviations``.

    Or ``compare`` a measure between two levels of a factor: ``less`` is below ``than``, in the mean over all pairs of runs that
    differ in this factor only. With ``times: 1.1`` it is at most 1.1 times as much. With ``confidence: 95%`` the whole interval
    of the mean difference (bootstrap over the pairs, from a fixed seed) has to lie there.
    """

    expr: str = ""
    """Over measures: `low >= 2 and failed == 0`."""
    of: str = "every"
    """`every` run, or the `mean` of each cell."""
    where: dict[str, Words] = {}
    """By factor, the level of the runs that are asked."""
    compare: str = ""
    """A measure."""
    factor: str = ""
    """Of whose levels two are compared."""
    less: Words = ""
    """The level at which it is less."""
    than: Words = ""
    """The level at which it is more."""
    times: float = 1.0
    """So many times as much is allowed."""
    confidence: Words = ""
    """Such as `95%`: of the interval that has to lie below."""
    reference: str = ""
    deviations: float = 1.0
    """How far away a mean may be, in standard deviations of the reference."""


class Plot(Strict):
    """A series over another, or over time: a line for each cell, with its spread over the seeds. ``step``: of x."""

    name: str
    y: str
    """An expression over time, or the name of a series."""
    x: str = ""
    """The same; without it, seconds since the start."""
    title: str = ""
    step: float = 1.0
    x_label: str = ""
    y_label: str = ""
    x_range: list[float] = []
    y_range: list[float] = []


class Reference(Strict):
    """Results of others, to be set beside ours: CSV with a column for each factor, and measure, mean, deviation."""

    file: str
    title: str = "Reference"


FIGURES = {
    "declared": "those of `plots`", "differences": "paired differences to the first cell, a panel a measure",
    "levels": "every run as a point, by cell", "factors": "means over the first two factors, as shades",
    "pareto": "the two measures of `report.pareto`", "waits": "how long pods waited for a node, as shares of all",
    "queue": "pods that wait, over time", "used": "the share of the cluster that is requested, over time",
    "nodes": "how full each node is over time, a panel a cell", "replicas": "of a workload, over time",
    "rollout": "a bar a pod by version, and the pods that are ready", "requests": "answered, failed, and their latency",
    "gantt-nodes": "pods on nodes", "gantt-owners": "pods by their owner", "utilisation": "how full each node is, over time",
    "pending": "pods that wait, and how long each did", "events": "Events by reason",
}  # fmt: skip
"""From ``replicas`` on, of the first run of each cell."""
FILES = ("svg", "png", "pdf", "md", "latex")


class Report(Strict):
    """How the report is written: report.html, and CSV files of all tables and plots, always are."""

    formats: list[str] = msgspec.field(default_factory=lambda: ["svg", "md", "latex"])
    """Files beside the page: drawings of each plot, and the table for a README and a paper."""
    plots: str | list[str] = "default"
    """``default`` (those in which the runs have something to show), ``all``, ``none``, or a list of
    [kinds of plots](#kinds-of-plots)."""
    pareto: dict[str, str] = {}
    """Two measures, each ``least`` or ``most``: the cells that are best in both are named."""


class Experiment(Strict):
    metadata: Metadata
    api_version: str = ""
    """``lab.navarch.dev/v1``."""
    kind: str = ""
    """``Experiment``."""
    allow_commands: str = ""
    """Not for the file: the option ``--allow-commands`` sets it, to the folder in which steps may run commands."""
    question: str = ""
    """Stands at the head of the report."""
    cluster: ClusterPart = msgspec.field(default_factory=ClusterPart)
    stages: list[Any] = []
    """KWOK's Stage resources, as objects, texts or names of files: see [KWOK's Stages](#kwoks-stages)."""
    behaviour: dict[str, dict[str, Words]] = {}
    """Stages of simulated containers: by ``default``, ``label=value`` or ``image:NAME``; times, distributions,
    empirical(file). Also ``capacity: 100/s`` (requests a second), and ``cpu`` and ``memory``: use such as ``50m + 10m*rate``,
    where rate is the requests a second that the pod answers."""
    workload: list[Work] = []
    factors: dict[str, Any] = {}
    """By name, the levels: a list of values, or a map of level to values (``${name.key}``) and to parts of the file, which it
    changes: ``scheduler``, ``cluster``, ``behaviour``, ``stages``, ``workload``, ``steps``, or any in ``patch``."""
    design: str | list[Any] = "full"
    """The combinations of levels that are run; see [Words](#words)."""
    seeds: int = 1
    """Of each cell, so many runs, with seeds from 1 on."""
    steps: list[Step] = []
    """One after another."""
    for_: Words = "0s"
    """How long a run goes on after its last step."""
    series: dict[str, str] = {}
    """Names for values over time, which measures and plots use."""
    measure: dict[str, str] = {}
    """By name, an expression that gives a number."""
    plots: list[Plot] = []
    report: Report = msgspec.field(default_factory=Report)
    reference: Reference | None = None
    expect: list[str | Expectation] = []
    """Expectations; the exit code of ``run`` is 1 if something is not. A text is an ``expr``."""
