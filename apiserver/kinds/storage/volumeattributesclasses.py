"""VolumeAttributesClasses: attributes of volumes that may change later."""

from __future__ import annotations

from typing import Any

from apiserver.kinds.cells import age_cell, kind, name_cell
from apiserver.kinds.storage.drivers import driver_name, parameters_causes
from apiserver.registry.strategy import AGE_COLUMN, NAME_COLUMN, Column, Strategy, Tree
from navarch.api.errors import Cause, forbidden


class VolumeAttributesClassStrategy(Strategy):
    kind = kind("storage.k8s.io/v1", "VolumeAttributesClass")
    generation = False
    columns = (NAME_COLUMN, Column("DriverName"), AGE_COLUMN)

    def validate(self, obj: Tree) -> list[Cause]:
        out = driver_name(obj.get("driverName") or "", "driverName")
        return out + parameters_causes(obj.get("parameters"), "parameters", need=True)

    def validate_update(self, obj: Tree, old: Tree) -> list[Cause]:
        out = []
        if obj.get("driverName") != old.get("driverName"):
            out.append(forbidden("driverName", "updates to driverName are forbidden."))
        if obj.get("parameters") != old.get("parameters"):
            out.append(forbidden("parameters", "updates to parameters are forbidden."))
        return out

    def cells(self, obj: Tree, now: float) -> list[Any]:
        return [name_cell(obj), obj.get("driverName") or "", age_cell(obj, now)]
