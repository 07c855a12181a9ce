"""Ctrl-C ends a command, whatever it waits for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import asyncio, sys, time
from cli.interrupts import interruptible
from navarch.world import RealWorld

async def patient():
    await asyncio.sleep(600)

async def stubborn():
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            print("no", flush=True)

async def blocked():
    await asyncio.sleep(0)
    while True:
        time.sleep(0.01)

async def parting():
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(600)

async def left_behind():
    asyncio.ensure_future(stubborn())
    await asyncio.sleep(600)

async def body():
    with interruptible():
        print("ready", flush=True)
        await globals()[sys.argv[1]]()

try:
    RealWorld(brief=True).run(body)
except (KeyboardInterrupt, asyncio.CancelledError):
    sys.exit(130)
"""


@pytest.mark.parametrize("kind", ["patient", "stubborn", "blocked", "parting", "left_behind"])
def test_an_interrupt_ends_it(kind: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, kind], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
