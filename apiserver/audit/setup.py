"""The audit log as the flags want it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apiserver.audit.audit import Audit
from apiserver.audit.log import AuditLog
from apiserver.audit.policy import load

if TYPE_CHECKING:
    from apiserver.server import APIServer


def add_audit(server: APIServer) -> None:
    """Nothing without both a policy and a place for it. Raises OSError, ValueError."""
    config = server.config
    if not config.audit_policy_file:
        if config.audit_log_path:
            raise ValueError("audit-log-path needs an audit-policy-file that says what to tell")
        return
    policy = load(config.audit_policy_file)
    if not config.audit_log_path:
        return
    log = AuditLog(
        server.world, config.audit_log_path, config.audit_log_maxage, config.audit_log_maxbackup, config.audit_log_maxsize
    )
    server.audit = Audit(server.world, policy, log)

    async def write(server: APIServer) -> None:
        await log.run()

    server.background.append(write)
