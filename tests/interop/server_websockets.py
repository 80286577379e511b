"""Interop peer: the PyPI package `websockets` on asyncio. README.md says what each path does."""

import argparse
import asyncio
import http
import math
import signal
import ssl
import urllib.parse

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

PING_PAYLOAD = b"interop"
PONG_TIMEOUT_S = 5


async def echo(connection, _query):
    async for message in connection:
        await connection.send(message)


async def close(connection, query):
    await connection.close(int(query.get("code", "1000")), query.get("reason", ""))


async def ping(connection, query):
    pong = await connection.ping(PING_PAYLOAD)
    try:
        # The library matches pongs to pings by payload, so this waits for the right one.
        await asyncio.wait_for(pong, PONG_TIMEOUT_S)
    except TimeoutError:
        await connection.close(1002, "no pong")
        return
    await connection.send("pong received")
    await echo(connection, query)


async def fragments(connection, _query):
    async for message in connection:
        is_text = isinstance(message, str)
        data = message.encode() if is_text else message
        # Quarters of the bytes: text is cut inside code points, too.
        size = max(1, math.ceil(len(data) / 4))
        pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
        await connection.send(pieces, text=is_text)


async def subprotocol(connection, query):
    await connection.send(connection.subprotocol or "")
    await echo(connection, query)


async def big(connection, query):
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    size = int(query["n"])
    await connection.send((alphabet * (size // len(alphabet) + 1))[:size])
    await echo(connection, query)


async def drop(connection, _query):
    connection.transport.abort()


ROUTES = {
    "/echo": echo,
    "/close": close,
    "/ping": ping,
    "/fragments": fragments,
    "/subprotocol": subprotocol,
    "/big": big,
    "/drop": drop,
}


def path_of(connection):
    return urllib.parse.urlsplit(connection.request.path).path


def refuse_unknown_path(connection, _request):
    if path_of(connection) not in ROUTES:
        return connection.respond(http.HTTPStatus.NOT_FOUND, "no such path\n")
    return None


def select_subprotocol(connection, offered):
    return offered[0] if offered and path_of(connection) == "/subprotocol" else None


async def handle(connection):
    query = urllib.parse.urlsplit(connection.request.path).query
    try:
        await ROUTES[path_of(connection)](connection, dict(urllib.parse.parse_qsl(query)))
    except ConnectionClosed:
        # The peer closed in its own way; judging that is the client's test's task.
        pass


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--deflate", action="store_true")
    options = parser.parse_args()

    context = None
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serve(
        handle,
        "127.0.0.1",
        options.port,
        ssl=context,
        compression="deflate" if options.deflate else None,
        process_request=refuse_unknown_path,
        select_subprotocol=select_subprotocol,
        # Only the pings that a test asks for.
        ping_interval=None,
        max_size=None,
    ) as server:
        print("listening", server.sockets[0].getsockname()[1], flush=True)
        await stop.wait()


asyncio.run(main())
