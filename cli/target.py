"""Which cluster and namespace a command is about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_LAB = "default"


@dataclass(frozen=True)
class Target:
    """Which cluster and namespace a command is about, as far as its options say."""

    lab: str = ""
    namespace: str = ""
    kubeconfig: str = ""
    context: str = ""

    def kubeconfig_path(self) -> str | None:
        """The most explicit of: --kubeconfig, --lab, $KUBECONFIG, $NAVARCH_LAB, the lab "default".

        None means the files where kubectl looks (a --context without any of the others). ~/.kube/config is never
        taken just because there is no lab: a command meant for a lab must not meet another cluster.
        """
        if self.kubeconfig:
            return self.kubeconfig
        if not self.lab and (self.context or os.environ.get("KUBECONFIG")):
            return None
        from cli.errors import CommandError  # with the client: not paid for by --help

        lab = self.lab or os.environ.get("NAVARCH_LAB") or DEFAULT_LAB
        home = Path(os.environ.get("NAVARCH_HOME") or Path.home() / ".navarch")
        path = home / "labs" / lab / "kubeconfig"
        if not path.exists():
            flag = "" if lab == DEFAULT_LAB else f" --lab {lab}"
            raise CommandError(f'there is no lab "{lab}" and no $KUBECONFIG; start one with: navarch up{flag}')
        return str(path)

    def flags(self) -> str:
        """The flags to append to a suggested command so that it means the same cluster and namespace."""
        out = f" --lab {self.lab}" if self.lab and self.lab != DEFAULT_LAB else ""
        return out + (f" -n {self.namespace}" if self.namespace else "")
