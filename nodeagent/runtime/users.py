"""Resolves a container's user: names by the image's /etc/passwd and /etc/group, numbers by the security context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from navarch.linux import syscalls


@dataclass(frozen=True)
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()  # supplementary
    home: str = "/"
    name: str = ""  # as asked for, when it was not a number


class UnknownUser(Exception):
    """The image has no such user or group."""


def _entries(root: Path, name: str, fields: int) -> list[list[str]]:
    raw = syscalls.read_in_root(root, name) or b""
    lines = (line.split(":") for line in raw.decode(errors="replace").splitlines() if not line.startswith("#"))
    return [line for line in lines if len(line) >= fields]


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def resolve(root: Path, user: str, run_as_user: int | None, run_as_group: int | None) -> Identity:
    """The identity for an image's USER (``name``, ``uid``, either with ``:group``) below the pod's own wishes.

    As container runtimes do: the primary group comes from the image's passwd unless given, and so do the user's
    supplementary groups. Raises UnknownUser.
    """
    if run_as_user is not None:
        # With a uid of the pod's own, the image's group does not apply.
        user_text, group = str(run_as_user), ""
    else:
        user_text, _, group = user.partition(":")
    passwd = _entries(root, "/etc/passwd", 6)
    number = _number(user_text) if user_text else 0
    entry = next((e for e in passwd if (e[0] == user_text if number is None else _number(e[2]) == number)), None)
    if number is None and entry is None:
        raise UnknownUser(f"unable to find user {user_text}: no matching entries in passwd file")
    uid = number if number is not None else int(entry[2]) if entry else 0
    gid = (_number(entry[3]) or 0) if entry else 0
    home = entry[5] if entry and entry[5] else "/"
    groups = _entries(root, "/etc/group", 4)
    if run_as_group is not None:
        gid = run_as_group
    elif group:
        group_id = _number(group)
        if group_id is None:
            match = next((e for e in groups if e[0] == group), None)
            if match is None:
                raise UnknownUser(f"unable to find group {group}: no matching entries in group file")
            group_id = _number(match[2]) or 0
        gid = group_id
    own: dict[int, None] = {}
    if entry and not group:
        for line in groups:
            value = _number(line[2])
            if value is not None and entry[0] in line[3].split(",") and value != gid:
                own[value] = None
    return Identity(uid, gid, tuple(own), home, "" if number is not None else user_text)
