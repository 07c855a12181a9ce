"""The audit log as the flags want it."""

from __future__ import annotations

from apiserver.audit.audit import Audit
from apiserver.audit.log import AuditLog
from apiserver.audit.policy import load
from apiserver.config import Config
from apiserver.lifecycle import Lifecycle
from navarch.world import World


def audit_log(world: World, config: Config, lifecycle: Lifecycle) -> Audit | None:
    """None without both a policy and a place for it. Raises OSError, ValueError."""
    if not config.audit_policy_file:
        if config.audit_log_path:
            raise ValueError("audit-log-path needs an audit-policy-file that says what to tell")
        return None
    policy = load(config.audit_policy_file)
    if not config.audit_log_path:
        return None
    log = AuditLog(
        world, config.audit_log_path, config.audit_log_maxage, config.audit_log_maxbackup, config.audit_log_maxsize
    )
    lifecycle.background.append(log.run)
    return Audit(world, policy, log)
