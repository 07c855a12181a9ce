"""The scheduler's settings: its flags, and the file that --config names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from navarch.api.serialization import decode_yaml
from scheduler.plugin import Plugin, Profile
from scheduler.profiles import DEFAULT_SCHEDULER, default_profile, profiles

__all__ = ["DEFAULT_SCHEDULER", "FLAGS", "SchedulerConfig", "default_profile"]

GROUP = "kubescheduler.config.k8s.io/"


def _seconds(text: str) -> float:
    value = float(text)
    if value <= 0:
        raise ValueError("must be above 0")
    return value


FLAGS: Mapping[str, Callable[[str], float]] = {
    "pod-initial-backoff-seconds": _seconds,
    "pod-max-backoff-seconds": _seconds,
}


@dataclass
class SchedulerConfig:
    """Seconds, as in KubeSchedulerConfiguration (podInitialBackoffSeconds, podMaxBackoffSeconds)."""

    pod_initial_backoff_seconds: float = 1.0
    pod_max_backoff_seconds: float = 10.0
    leader_elect: bool = False
    profiles: list[Profile] = field(default_factory=lambda: [default_profile()])

    def set(self, text: str) -> None:
        """Takes a ``flag=value``. Raises ValueError."""
        flag, _, value = text.partition("=")
        if flag not in FLAGS:
            raise ValueError(f'unknown setting "{flag}"; known: {", ".join(FLAGS)}')
        try:
            setattr(self, flag.replace("-", "_"), FLAGS[flag](value))
        except ValueError as error:
            raise ValueError(f'invalid value "{value}" of {flag}: {error}') from error

    @classmethod
    def load(cls, text: str, user: Sequence[type[Plugin]] = ()) -> SchedulerConfig:
        """A KubeSchedulerConfiguration in YAML, or "" for the defaults. Raises ValueError."""
        documents: list[Any] = decode_yaml(text) if text.strip() else [{}]
        if len(documents) != 1 or not isinstance(documents[0], dict):
            raise ValueError("one KubeSchedulerConfiguration is expected")
        tree = documents[0]
        version, kind = tree.get("apiVersion", GROUP + "v1"), tree.get("kind", "KubeSchedulerConfiguration")
        if not str(version).startswith(GROUP) or kind != "KubeSchedulerConfiguration":
            raise ValueError(f'no kind "{kind}" is registered for version "{version}"')
        if tree.get("extenders"):
            raise ValueError("extenders: not supported yet")
        config = cls(profiles=profiles(tree, user))
        for name in ("podInitialBackoffSeconds", "podMaxBackoffSeconds"):
            if tree.get(name) is not None:
                flag = "pod-initial-backoff-seconds" if "Initial" in name else "pod-max-backoff-seconds"
                config.set(f"{flag}={tree[name]}")
        config.leader_elect = bool((tree.get("leaderElection") or {}).get("leaderElect", False))
        return config
