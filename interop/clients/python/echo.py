"""Tests every kind of echo server with Debian's python3-websockets. ECHO_BINARY is the path of the built interop/clients/echo."""

import asyncio
import contextlib
import json
import os
import random
import ssl
import subprocess
import sys
import traceback

import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

WAIT = 60
MIB = 1 << 20

MESSAGES = [
    "hello",
    "",
    b"",
    "Grüße, 世界 🌍",
    b"\x00\xff\xfe binary \x80",
    random.Random(125).randbytes(125),
    random.Random(126).randbytes(126),
    random.Random(65535).randbytes(65535),
    random.Random(65536).randbytes(65536),
    "the same words, " * (MIB // 16),
    random.Random(MIB).randbytes(MIB),
] + [json.dumps({"type": "tick", "n": i}) for i in range(50)]

# The offers of a client: the library's default, nothing, and each parameter of RFC 7692.
OFFERS = {
    "default": {"compression": "deflate"},
    "plain": {"compression": None},
    "no context takeover": {
        "compression": None,
        "extensions": [
            ClientPerMessageDeflateFactory(
                server_no_context_takeover=True, client_no_context_takeover=True, client_max_window_bits=True
            )
        ],
    },
    "small windows": {
        "compression": None,
        "extensions": [ClientPerMessageDeflateFactory(server_max_window_bits=10, client_max_window_bits=10)],
    },
}


class Tests:
    """The tests. Each runs for one server; a test with a parameter runs once for each offer."""

    def __init__(self, server, context):
        self.server, self.context = server, context

    def connect(self, query="", **options):
        if self.server["tls"]:
            options["ssl"] = self.context
        options.setdefault("max_size", 4 * MIB)
        options.setdefault("ping_timeout", WAIT)
        return websockets.connect(self.server["url"] + query, open_timeout=WAIT, close_timeout=WAIT, **options)

    async def echo(self, offer):
        async with self.connect(**OFFERS[offer]) as ws:
            wanted = bool(self.server["compression"]) and offer != "plain"
            assert bool(ws.extensions) == wanted, f"negotiated {ws.extensions}"
            for message in MESSAGES:
                await ws.send(message)
                got = await ws.recv()
                assert got == message, f"sent {len(message)} of {type(message)}, got {len(got)} of {type(got)}"

    async def fragments(self, offer):
        async with self.connect(**OFFERS[offer]) as ws:
            await ws.send(["in ", "pieces ✂", "", " ✂"])
            assert await ws.recv() == "in pieces ✂ ✂"

    async def ping(self, offer):
        async with self.connect(**OFFERS[offer]) as ws:
            await (await ws.ping("are you there?"))

    async def client_closes(self):
        for code, reason in [(1000, ""), (1001, "leaving"), (3000, "registered"), (4000, "grüß"), (4999, "r" * 123)]:
            async with self.connect() as ws:
                await ws.send("hello")
                await ws.recv()
                await ws.close(code, reason)
                assert (ws.close_code, ws.close_reason) == (code, reason), (ws.close_code, ws.close_reason)

    async def server_closes(self):
        for code, reason in [(1000, ""), (1001, "restart"), (1008, "no"), (1013, "later"), (4001, "grüß"), (4999, "r" * 123)]:
            async with self.connect() as ws:
                await ws.send(f"close {code} {reason}")
                try:
                    await ws.recv()
                    raise AssertionError("no close")
                except websockets.ConnectionClosed as closed:
                    assert (closed.rcvd.code, closed.rcvd.reason) == (code, reason), closed

    async def too_large(self, offer):
        async with self.connect(**OFFERS[offer]) as ws:
            with contextlib.suppress(websockets.ConnectionClosed):
                await ws.send("x" * (4 * MIB + 1))
            try:
                await ws.recv()
                raise AssertionError("no close")
            except websockets.ConnectionClosed as closed:
                assert closed.rcvd.code == 1009, closed

    async def subprotocol(self):
        for offered, want in [
            (None, None),
            (["echo.v1"], "echo.v1"),
            (["echo.v1", "echo.v2"], "echo.v2"),
            (["other"], None),
        ]:
            async with self.connect(subprotocols=offered) as ws:
                assert ws.subprotocol == want, ws.subprotocol
                await ws.send("subprotocol")
                assert await ws.recv() == (want or "")

    async def response_headers(self):
        async with self.connect() as ws:
            assert ws.response_headers.get_all("Set-Cookie") == ["first=1; Path=/", "second=2"]

    async def refusals(self):
        for query, origin, want in [("", "https://evil.example", 403), ("?deny", None, 401)]:
            try:
                async with self.connect(query, origin=origin):
                    raise AssertionError("not refused")
            except websockets.InvalidStatusCode as refused:
                assert refused.status_code == want, refused


async def main(servers, context):
    passed = failed = 0
    for server in servers:
        tests = Tests(server, context)
        for name, test in vars(Tests).items():
            if not asyncio.iscoroutinefunction(test):
                continue
            for offer in OFFERS if test.__code__.co_argcount == 2 else [None]:
                label = f"{server['name']}: {name}" + (f", {offer}" if offer else "")
                try:
                    await asyncio.wait_for(test(tests, *([offer] if offer else [])), 3 * WAIT)
                    passed += 1
                except Exception:
                    failed += 1
                    print(f"FAIL  {label}\n{traceback.format_exc()}")
    print(f"websockets {websockets.version.version}: {passed} passed, {failed} failed")
    return failed == 0


with subprocess.Popen([os.environ["ECHO_BINARY"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
    listed = json.loads(process.stdout.readline())
    trusted = ssl.create_default_context(cadata=listed["certificate"])
    ok = asyncio.run(main(listed["servers"], trusted))
    process.stdin.close()
    ok = process.wait(WAIT) == 0 and ok
sys.exit(not ok)
