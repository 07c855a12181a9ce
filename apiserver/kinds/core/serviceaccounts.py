"""ServiceAccounts: the identities under which pods speak to the API server."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree


class ServiceAccountStrategy(Strategy):
    kind = kind("v1", "ServiceAccount")
    generation = False
    columns = (NAME_COLUMN, Column("Secrets", "string"), AGE_COLUMN)

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), len(obj.get("secrets") or ()), age_cell(obj, now)]
