"""How a long command says what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with a few words at the start of each step; ``detail`` adds how far the step has come."""

    def __call__(self, step: str, /) -> None: ...

    def detail(self, text: str) -> None: ...

    def tick(self) -> None:
        """Marks that a caller waits: a clock may go on."""
        ...


class Silence:
    """Progress for nobody."""

    def __call__(self, step: str, /) -> None:
        pass

    def detail(self, text: str) -> None:
        pass

    def tick(self) -> None:
        pass
