"""Error messages for people: the server's errors and ours in kubectl's words.

Commands that work on several objects go on after one failed and report at the end: they collect in :class:`Failures`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from navarch.api.errors import Invalid, StatusError
from navarch.client.kubeconfig import KubeconfigError
from navarch.client.transport import TransportError


class CommandError(Exception):
    """Shown as ``error: TEXT`` (``plain``: as TEXT alone); the command ends with exit code ``code``."""

    def __init__(self, text: str, *, code: int = 1, plain: bool = False, hint: str = "") -> None:
        super().__init__(text)
        self.code, self.plain, self.hint = code, plain, hint


class Failures(Exception):
    """Several errors, each reported on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Keeps an error of the body that concerns one object and lets the command go on."""
        try:
            yield
        except (StatusError, CommandError) as error:
            self.errors.append(error)

    def raise_any(self) -> None:
        """Raises what was collected, if anything was."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise self


def warn(text: str) -> None:
    print(f"Warning: {text}", file=sys.stderr)


def hint(text: str) -> None:
    """The likely next command, on standard error so that pipes stay clean."""
    if sys.stderr.isatty():
        print(f"hint: {text}", file=sys.stderr)


def with_source(error: StatusError, verb: str, source: str) -> StatusError:
    """The same error, its message telling which file it came from."""
    shown = f'error when {verb} "{source}": {error.message}'
    return type(error)(shown, error.details, code=error.http_code, reason=error.status_reason)


def status_text(error: StatusError) -> str:
    """A server's error as kubectl words it."""
    if isinstance(error, Invalid):
        return _invalid_text(error)
    reason = f" ({error.status_reason})" if error.status_reason else ""
    return f"Error from server{reason}: {error.message}"


def _invalid_text(error: StatusError) -> str:
    details = error.details
    start = "The request is invalid"
    if details.get("kind") or details.get("name"):
        start = f'The {details.get("kind", "")} "{details.get("name", "")}" is invalid'
    causes = [
        f"{c['field']}: {c.get('message', '')}" if c.get("field") else c.get("message", "")
        for c in details.get("causes") or ()
    ]
    if not causes:
        return f"{start}: {error.message}"
    unique = list(dict.fromkeys(causes))
    return f"{start}: {unique[0]}" if len(unique) == 1 else f"{start}: \n" + "\n".join(f"* {c}" for c in unique)


def report(error: BaseException) -> int:
    """Prints an error that a person can act on; gives the exit code. Raises what is a defect of ours."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, Failures):
        return max(report(each) for each in error.errors)
    if isinstance(error, BaseExceptionGroup):
        return report(error.exceptions[0])  # requests made at once fail for one reason
    if isinstance(error, CommandError):
        if str(error):
            print(str(error) if error.plain else f"error: {error}", file=sys.stderr)
        if error.hint:
            hint(error.hint)
        return error.code
    if isinstance(error, StatusError):
        print(status_text(error), file=sys.stderr)
        return 1
    if isinstance(error, KubeconfigError):
        print(f"error: {error}", file=sys.stderr)
        return 1
    if isinstance(error, TransportError):
        print(f"Unable to connect to the server: {error}", file=sys.stderr)
        return 1
    raise error


def refused(error: TransportError, server: str) -> CommandError | None:
    """The error for a server that does not listen; None if something else is the matter."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ConnectionRefusedError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    place = server.partition("://")[2]
    return CommandError(
        f"The connection to the server {place} was refused - did you specify the right host or port?",
        plain=True,
        hint="is the lab up? see: navarch status; start it with: navarch up",
    )
