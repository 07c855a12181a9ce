"""libnftables, bound once: commands as text, run as one transaction."""

from __future__ import annotations

import ctypes
import ctypes.util
import threading


class NftablesError(Exception):
    """libnftables refused a command; the text is its own."""


def _load() -> ctypes.CDLL:
    """The library, by its usual name first: to look for another costs a process. Raises NftablesError."""
    try:
        return ctypes.CDLL("libnftables.so.1")
    except OSError:
        name = ctypes.util.find_library("nftables")
    try:
        return ctypes.CDLL(name or "libnftables.so")
    except OSError as error:
        raise NftablesError("libnftables is not installed; run deploy/setup") from error


class Nftables:
    """A libnftables context. It speaks to the network namespace of the calling thread; threads take turns."""

    def __init__(self) -> None:
        self._lib = _load()
        self._lib.nft_ctx_new.restype = ctypes.c_void_p
        self._lib.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._lib.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._lib.nft_ctx_new(0))
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)
        self._turn = threading.Lock()  # ctypes lets other threads run meanwhile, and a context is not made for two

    def run(self, commands: str) -> str:
        """Runs commands as one transaction and returns their output. Raises NftablesError; then nothing changed."""
        with self._turn:
            if self._lib.nft_run_cmd_from_buffer(self._context, commands.encode()) != 0:
                text = (self._lib.nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace")
                raise NftablesError(text.strip())
            return (self._lib.nft_ctx_get_output_buffer(self._context) or b"").decode()

    def close(self) -> None:
        self._lib.nft_ctx_free(self._context)
