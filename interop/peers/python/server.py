"""A WebSocket server with Python's websockets: server.py PORT none|takeover|no-takeover.

The path selects what it does with a connection. It prints the end of each
connection as a line of JSON.
"""

import asyncio
import json
import os
import sys
import threading
from urllib.parse import parse_qs, urlsplit

import websockets
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory


def extensions(compression):
    if compression == "none":
        return []
    fresh = compression == "no-takeover"
    return [
        ServerPerMessageDeflateFactory(
            server_no_context_takeover=fresh, client_no_context_takeover=fresh
        )
    ]


async def handle(socket, _path=None):
    # Before version 14 a connection has a path, since then a request.
    target = socket.path if hasattr(socket, "path") else socket.request.path
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    try:
        await serve(socket, url.path, query)
    except websockets.ConnectionClosed:
        pass
    await socket.wait_closed()
    end = {"id": query.get("id"), "code": socket.close_code, "reason": socket.close_reason}
    print(json.dumps(end), flush=True)


async def serve(socket, path, query):
    if path == "/echo":
        async for message in socket:
            await socket.send(message)
    elif path == "/fragments":  # the echo comes in seven frames, with pings between them
        async for message in socket:
            await socket.send(fragments(socket, message))
    elif path == "/ping":
        pong = await socket.ping(query["payload"])
        await pong
        await socket.send("pong " + query["payload"])
        await socket.wait_closed()
    elif path == "/close":
        await socket.send("goodbye")
        await socket.close(int(query["code"]), query.get("reason", ""))
    elif path == "/abort":
        await socket.recv()
        socket.transport.abort()
    else:
        await socket.close(1011, "no such path: " + path)


async def fragments(socket, message):
    size = -(-len(message) // 6)  # the seventh is empty, with the FIN bit
    for i in range(6):
        yield message[i * size : (i + 1) * size]
        await socket.ping()


async def main():
    port, compression = sys.argv[1:]
    async with websockets.serve(
        handle,
        "127.0.0.1",
        int(port),
        compression=None,
        extensions=extensions(compression),
        subprotocols=["chat.v2"],
        max_size=None,
        ping_interval=None,
    ):
        await asyncio.Future()


def exit_with_the_tests():
    """The tests hold the other end of standard input: the server exits with them."""
    sys.stdin.read()
    os._exit(0)


threading.Thread(target=exit_with_the_tests, daemon=True).start()
asyncio.run(main())
