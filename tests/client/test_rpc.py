"""gRPC on unix sockets: whatever becomes of a call, whoever made it gets an RpcError."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from navarch.rpc.sockets import Caller, Method, RpcError, Server, texts
from protos import csi_pb2 as csi

PATH = "/csi.v1.Node/NodeGetInfo"


def test_a_call_whose_connection_is_closed_by_another_fails_and_cancels_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def silent(request: csi.NodeGetInfoRequest) -> csi.NodeGetInfoResponse:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        server, caller = Server(tmp_path / "s"), Caller(tmp_path / "s")
        server.add("csi.v1.Node", {"NodeGetInfo": Method(csi.NodeGetInfoRequest, silent)})
        await server.start()
        call = asyncio.ensure_future(caller.call(PATH, csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse, 60))
        await begun.wait()
        await caller.close()
        with pytest.raises(RpcError, match="code = Unavailable desc = the connection was closed meanwhile"):
            await call
        with pytest.raises(RpcError, match="code = Unavailable desc = the connection is closed"):
            await caller.call(PATH, csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse, 60)
        with pytest.raises(RpcError, match="the connection is closed"):
            _ = [m async for m in caller.stream(PATH, csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse)]
        await server.stop()

    asyncio.run(main())


def test_a_caller_that_is_cancelled_is_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        caller = Caller(tmp_path / "s")
        request, reply = csi.NodeGetInfoRequest(), csi.NodeGetInfoResponse
        call = asyncio.ensure_future(caller.call(PATH, request, reply, 60, patient=True))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await caller.close()

    asyncio.run(main())


def test_a_secret_that_is_no_text_fails_the_call() -> None:
    assert texts({"a": base64.b64encode("ä".encode()).decode()}) == {"a": "ä"}
    with pytest.raises(RpcError, match=r"code = Internal desc = .* invalid UTF-8"):
        texts({"a": base64.b64encode(b"\xff").decode()})
