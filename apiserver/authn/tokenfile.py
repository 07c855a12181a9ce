"""The static token file: ``token,user,uid,"group1,group2"`` a line, as kube-apiserver's --token-auth-file has it."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable
from pathlib import Path

from apiserver.authn.identity import Identity
from apiserver.request import User

log = logging.getLogger(__name__)


class TokenFile:
    def __init__(self, users: dict[str, User]) -> None:
        self._users = users

    @classmethod
    def load(cls, path: Path) -> TokenFile:
        """Raises OSError, ValueError (with file and line)."""
        with path.open(newline="") as file:
            return cls(parse(file, str(path)))

    async def token(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        """See TokenAuthenticator."""
        user = self._users.get(token)
        return None if user is None else Identity(user)


def parse(lines: Iterable[str], shown: str = "token file") -> dict[str, User]:
    """Raises ValueError."""
    out: dict[str, User] = {}
    reader = csv.reader(lines, skipinitialspace=True)
    for row in reader:
        if not row or row[0].startswith("#"):
            continue
        if len(row) < 3:
            raise ValueError(
                f"{shown}:{reader.line_num}: a line has at least 3 columns (token, user name, user uid), found {len(row)}"
            )
        token, name, uid = (column.strip() for column in row[:3])
        if not token:
            log.warning("%s:%d: no token in this line", shown, reader.line_num)
            continue
        if token in out:
            log.warning("%s:%d: the token has been given before; this line counts", shown, reader.line_num)
        groups = tuple(g.strip() for g in row[3].split(",") if g.strip()) if len(row) > 3 else ()
        out[token] = User(name, groups, uid)
    return out
