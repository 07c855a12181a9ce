"""postStart and preStop hooks."""

from __future__ import annotations

from navarch.api.types import core_v1
from navarch.world import World
from nodeagent.config import VERSION
from nodeagent.pods import handlers, httpget
from nodeagent.pods.observed import AnyContainer
from nodeagent.runtime.runtime import Runtime

USER_AGENT = "kube-lifecycle/" + VERSION.removeprefix("v").rsplit(".", 1)[0]
NO_LIMIT = 24 * 3600.0


async def run(
    runtime: Runtime,
    world: World,
    hook: core_v1.LifecycleHandler,
    container: AnyContainer,
    container_id: str,
    ip: str,
    timeout: float = NO_LIMIT,
) -> None:
    """Runs a hook to its end. Raises :class:`nodeagent.pods.handlers.Outcome` when it fails."""
    if hook.exec is not None:
        await handlers.run_command(runtime, container_id, hook.exec.command or [], timeout)
    elif hook.http_get is not None:
        await httpget.hook(hook.http_get, container, ip, timeout, USER_AGENT)
    elif hook.tcp_socket is not None:
        raise handlers.Outcome(f"invalid handler: {hook.tcp_socket}")
    elif hook.sleep is not None:
        await world.sleep(min(float(hook.sleep.seconds), timeout))
