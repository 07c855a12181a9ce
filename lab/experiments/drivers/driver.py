"""The protocol between an experiment and the cluster that it is played on. See the package's docstring."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from navarch.client.client import Client
from navarch.world import World

if TYPE_CHECKING:
    from lab.experiments.model import Load

UNDO = {
    "power-off": "power_on", "partition": "heal", "crash": "start", "cut": "mend", "slow": "mend", "kill": "",
    "delay-store": "restore_store", "fail-store": "restore_store",
}  # fmt: skip
"""By fault, the method that ends it; "": it is over at once. The method that begins it has the fault's name."""


class Plugin(Protocol):
    """A scheduler plugin with numbers of its own (scheduler/framework/plugin.py)."""

    def gauges(self) -> Mapping[str, float] | None: ...


class Driver(Protocol):
    """A cluster that is up. Names of nodes are the file's. Faults raise ValueError for what is not there.

    Not every driver has every fault: ask :func:`has_fault`.
    """

    world: World
    client: Client

    @property
    def now(self) -> float:
        """Seconds since the recording began."""
        ...

    async def apply(self, text: str, namespace: str = "default") -> None:
        """Creates every object of a YAML text, or patches the one that exists. Afterwards the run's state has it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Lets time go by; afterwards the run's state is up to date."""
        ...

    async def run_until(self, condition: Callable[[], Any], timeout: float, what: str = "") -> Any:
        """Waits until ``condition()``, asked after every change, is true, and gives its value. Raises TimeoutError."""
        ...

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Has something done beside the scenario; it ends with the run."""
        ...

    def load(self, load: Load, number: int) -> Coroutine[Any, Any, None]:
        """Makes the requests of a load, the number-th of the file, and records samples, until it is over or cancelled."""
        ...

    async def change_load(self, service: str, rate: str) -> None:
        """From now on the load on a service has another rate or shape. Raises ValueError if there is no load on it."""
        ...

    async def command(self, argv: Sequence[str], folder: str) -> None:
        """Runs a program to its end. Raises ValueError if it fails, with what it wrote."""
        ...

    def requests(self) -> Mapping[str, Mapping[str, float]]:
        """By component, how many ``reads`` and ``writes`` it has sent to the API server so far; empty if nobody counts."""
        ...

    def gauges(self) -> Sequence[Plugin]:
        """The scheduler's plugins that have gauges."""
        ...


def has_fault(driver: type[Any], fault: str) -> bool:
    """Whether drivers of this class can do a fault (``power-off`` and the like)."""
    return hasattr(driver, fault.replace("-", "_"))
