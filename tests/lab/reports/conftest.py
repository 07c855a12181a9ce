"""One small experiment for all tests of reports: a rolling update under load, two levels, two seeds, a node that dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.experiments import file, sweep

ROLLOUT = """
metadata: {name: rollout}
question: Does surge keep pods?
cluster: {heartbeats: elided, nodes: [{count: 3, cpu: "4", zones: 2}]}
behaviour: {default: {pull: 0s, start: "uniform(0.5s, 2s)", ready: "uniform(1s, 2s)", stop: 1s}}
factors: {surge: [1, 2]}
seeds: 2
workload:
- apply: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: web}
    spec:
      replicas: 4
      selector: {matchLabels: {app: web}}
      strategy: {rollingUpdate: {maxSurge: ${surge}, maxUnavailable: 1}}
      template:
        metadata: {labels: {app: web}}
        spec: {containers: [{name: web, image: "web:v1", resources: {requests: {cpu: 500m}}}]}
    ---
    apiVersion: v1
    kind: Service
    metadata: {name: web}
    spec: {selector: {app: web}, ports: [{port: 80}]}
- load: {service: web, rate: 5/s}
steps:
- {until: available(deployment/web), within: 1m}
- {mark: start, do: {set-image: {deployment/web: "web:v2"}}}
- {until: rolled_out(deployment/web), within: 2m, mark: end}
- {fault: {power-off: node-1, for: 5s}, wait: 10s}
measure:
  rollout: end - start
  low: min(ready(deployment/web), start..end)
expect: [low >= 3, {compare: rollout, factor: surge, less: 2, than: 1}, low > 100]
report: {formats: [svg, md, latex], plots: all, pareto: {rollout: least, low: most}}
"""


def tree(text: str = ROLLOUT) -> dict[str, Any]:
    return {"apiVersion": file.VERSION, "kind": file.KIND, **yaml.safe_load(text)}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[sweep.Result]]:
    """The folder and what came of it. Tests write below ``plots`` and pages only."""
    folder = tmp_path_factory.mktemp("rollout")
    return folder, sweep.sweep(tree(), folder)
