"""The way out of this machine: whether we may use it, and to which hosts we may connect without it.

NAVARCH_EGRESS=off closes it for everything that navarch does on the machine: no name is looked up, no connection leaves for
another host than loopback and the labs' own addresses. Whoever is refused reads why, and what to type.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VARIABLE = "NAVARCH_EGRESS"
OFF = ("off", "0", "false", "no")


def machine_allows(environment: Mapping[str, str] = os.environ) -> bool:
    """Returns false if NAVARCH_EGRESS closes the way out for the whole machine."""
    return environment.get(VARIABLE, "").strip().lower() not in OFF


class EgressClosed(Exception):
    """The host is outside, and the way out is closed."""


@dataclass(frozen=True)
class Egress:
    """``reason`` says why the way out is closed, and what opens it; "" if it is open. ``ranges`` are the lab's own."""

    reason: str = ""
    ranges: Sequence[str] = ()

    def is_near(self, host: str) -> bool:
        """Returns true for loopback and the lab's own addresses. A name is looked up by nobody: only localhost counts."""
        name = host.strip("[]").rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or any(address in ipaddress.ip_network(r) for r in self.ranges)

    def check(self, host: str) -> None:
        """Raises EgressClosed if the host may not be reached."""
        if self.reason and not self.is_near(host):
            raise EgressClosed(f"{host} is not asked: {self.reason}")


def of_machine(lab_allows: bool = True, lab_flag: str = "", ranges: Sequence[str] = ()) -> Egress:
    """The way out as the machine and the lab have it. ``lab_flag`` is what a command adds to mean the lab."""
    if not machine_allows():
        return Egress(
            f"egress is off on this machine ({VARIABLE}=off); to allow it: unset {VARIABLE} && navarch up{lab_flag}",
            ranges,
        )
    if not lab_allows:
        return Egress(f"egress of this lab is off; to allow it: navarch up --egress on{lab_flag}", ranges)
    return Egress("", ranges)
