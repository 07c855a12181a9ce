"""Options of reads, as the verbs take them: checked, selectors parsed. HTTP fills them from the query."""

from __future__ import annotations

from dataclasses import dataclass

from navarch.api.errors import BadRequest, Cause, forbidden, invalid, not_supported, resource_invalid
from navarch.api.selectors import ALL_FIELDS, EVERYTHING, FieldSelector, LabelSelector

META_GROUP = "meta.k8s.io"
EXACT, NOT_OLDER_THAN = "Exact", "NotOlderThan"


@dataclass(frozen=True)
class ListOptions:
    """metav1.ListOptions of a list, a watch or a deletecollection."""

    labels: LabelSelector = EVERYTHING
    fields: FieldSelector = ALL_FIELDS
    limit: int = 0
    continue_: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    timeout_seconds: float | None = None
    allow_bookmarks: bool = False
    send_initial_events: bool | None = None

    def check_list(self) -> None:
        """Raises Invalid for options that no list takes together."""
        at, causes = "resourceVersionMatch", []
        match, version = self.resource_version_match, self.resource_version
        if match:
            if not version:
                causes.append(forbidden(at, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
            if self.continue_:
                causes.append(forbidden(at, "resourceVersionMatch is forbidden when continue is provided"))
            if match not in (EXACT, NOT_OLDER_THAN):
                causes.append(not_supported(at, match, [EXACT, NOT_OLDER_THAN, ""]))
            if match == EXACT and version == "0":
                causes.append(forbidden(at, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
        if self.send_initial_events is not None:
            causes.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
        self._raise(causes)

    def check_watch(self) -> None:
        """Raises Invalid for options that no watch takes together."""
        at, causes, match = "resourceVersionMatch", list[Cause](), self.resource_version_match
        if self.send_initial_events is not None:
            if not match:
                text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
                causes.append(forbidden(at, text))
            elif match != NOT_OLDER_THAN:
                causes.append(not_supported(at, match, [NOT_OLDER_THAN]))
        elif match:
            causes.append(forbidden(at, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"))
        self._raise(causes)

    def _raise(self, causes: list[Cause]) -> None:
        if causes:
            raise resource_invalid("ListOptions", META_GROUP, "", causes)


def parse_revision(text: str) -> int:
    """A resourceVersion from a client. Raises BadRequest."""
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    cause = invalid("resourceVersion", text, f'strconv.ParseUint: parsing "{text}": invalid syntax')
    raise BadRequest(cause.text())
