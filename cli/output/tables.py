"""Columns of text as kubectl lays them out, and what a server's Table looks like when printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Tree = dict[str, Any]

MIN_WIDTH, PADDING = 6, 3


class Columns:
    """Prints rows of left-aligned columns; widths only grow, so that rows added later (a watch) stay aligned."""

    def __init__(self, padding: int = PADDING, minimum: int = MIN_WIDTH) -> None:
        self.padding, self.minimum = padding, minimum
        self.widths: list[int] = []

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        for row in rows:
            for index, cell in enumerate(row[:-1]):
                if index == len(self.widths):
                    self.widths.append(self.minimum)
                self.widths[index] = max(self.widths[index], len(cell) + self.padding)
        return [
            "".join([*(cell.ljust(self.widths[i]) for i, cell in enumerate(row[:-1])), row[-1]]) if row else ""
            for row in rows
        ]


def cell_text(value: Any) -> str:
    """One cell; only its first line, so that a value cannot break the table."""
    if value is None:
        return "<none>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(map(cell_text, value)) + "]"
    first, newline, _ = str(value).partition("\n")
    return first + "..." if newline else first


class TablePrinter:
    """Turns Tables of one resource into lines; the header comes once."""

    def __init__(
        self,
        *,
        wide: bool = False,
        with_namespace: bool = False,
        prefix: str = "",
        labels: Sequence[str] = (),
        show_labels: bool = False,
        headers: bool = True,
    ) -> None:
        self.wide, self.with_namespace, self.prefix = wide, with_namespace, prefix
        self.labels, self.show_labels, self.headers = labels, show_labels, headers
        self.columns = Columns()
        self._indexes: list[int] | None = None
        self._name = 0

    def lines(self, table: Tree, events: Sequence[str] = ()) -> list[str]:
        """Lines for the rows of a Table; ``events`` is what happened to each, for a column of its own."""
        out: list[list[str]] = []
        if self._indexes is None or table.get("columnDefinitions"):
            first = self._indexes is None
            out += self._header(table.get("columnDefinitions") or [], bool(events)) if first else []
        for number, row in enumerate(table.get("rows") or ()):
            meta = (row.get("object") or {}).get("metadata") or {}
            cells = [cell_text(row["cells"][i]) for i in self._indexes or () if i < len(row["cells"])]
            if self.prefix and self._name < len(cells):
                cells[self._name] = f"{self.prefix}/{cells[self._name]}"
            if self.with_namespace:
                cells.insert(0, meta.get("namespace") or "")
            if events:
                cells.insert(0, events[number])
            own = meta.get("labels") or {}
            cells += [own.get(label) or "<none>" if label in own else "" for label in self.labels]
            if self.show_labels:
                cells.append(",".join(f"{k}={v}" for k, v in sorted(own.items())) or "<none>")
            out.append(cells)
        return self.columns.lines(out)

    def _header(self, definitions: list[Tree], events: bool) -> list[list[str]]:
        self._indexes = [i for i, d in enumerate(definitions) if self.wide or not d.get("priority")]
        shown = [definitions[i] for i in self._indexes]
        self._name = next((i for i, d in enumerate(shown) if d.get("format") == "name"), 0)
        names = [str(d["name"]).upper() for d in shown]
        if self.with_namespace:
            names.insert(0, "NAMESPACE")
        if events:
            names.insert(0, "EVENT")
        names += [label.rpartition("/")[2].upper() for label in self.labels]
        if self.show_labels:
            names.append("LABELS")
        return [names] if self.headers else []
