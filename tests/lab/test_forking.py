"""Building what forked components share before they are forked."""

from __future__ import annotations

import importlib

from lab import forking
from navarch.api import kinds
from navarch.client import codec


def test_no_component_builds_the_decoders_of_kinds_that_all_follow() -> None:
    forking._prepare_kinds()
    before = kinds.decoder.cache_info().misses, codec._list_decoder.cache_info().misses
    for module, names in forking.SHARED_KINDS.items():
        structs = importlib.import_module(f"navarch.api.types.{module}")
        for name in names:
            assert codec.StructCodec(getattr(structs, name)).decode_list(b'{"metadata": {}, "items": []}')[0] == []
    assert before == (kinds.decoder.cache_info().misses, codec._list_decoder.cache_info().misses)
