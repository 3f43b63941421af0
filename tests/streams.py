#!/usr/bin/env python3
"""Streams of tokens, to measure what stands between clients and a server of models.

    streams.py serve SOCKET…                       stands for gap-serve and answers as it does
    streams.py ask PAUSE unix:PATH                 so many clients at once
    streams.py ask PAUSE HOST:PORT CA TOKEN        the same over TLS

A server's tokens come PAUSE seconds after one another, or as fast as clients read them with 0. `ask` prints seconds until the
last client has its answer, and of the way of a token from the server to its client: the median, and what one in a hundred is
above.
"""
import json
import os
import selectors
import re
import socket
import ssl
import statistics
import sys
import time

CLIENTS = 64
# With a pause between them, and without.
TOKENS = {True: 200, False: 2000}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
# When a token was sent, by a clock that all processes share.
SENT = re.compile(rb'"content":" ([0-9.]+)"')


def chunk(data):
    text = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(text), text)


def token():
    """A token as gap-serve sends it; the text is the time."""
    return chunk('{"id":"chatcmpl-0123456789abcdef01234567","object":"chat.completion.chunk","created":1700000000,"model":"tiny",'
                 f'"choices":[{{"index":0,"delta":{{"content":" {time.monotonic():.6f}"}},"logprobs":null,"finish_reason":null}}]}}')


def answer(pause):
    """The pieces of an answer; all tokens are the same one where there is no pause."""
    yield HEAD
    same = None if pause else token()
    for _ in range(TOKENS[pause > 0]):
        yield same or token()
    yield chunk("[DONE]") + b"0\r\n\r\n"


def serve(places):
    """Each stream gets a piece in turn, each piece with a call of its own."""
    wait, paced = selectors.DefaultSelector(), {}
    for place in places:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place)
        os.chmod(place, 0o666)
        listener.listen(256)
        wait.register(listener, selectors.EVENT_READ, None)
    due = time.monotonic()
    while True:
        for key, _ in wait.select(max(0, due - time.monotonic()) if paced else None):
            connection, state = key.fileobj, key.data
            if state is None:
                accepted, _ = connection.accept()
                accepted.setblocking(False)
                wait.register(accepted, selectors.EVENT_READ, {"asked": b"", "pieces": iter(()), "left": b""})
                continue
            try:
                if key.events & selectors.EVENT_WRITE:
                    state["left"] = state["left"] or next(state["pieces"], b"")
                    state["left"] = state["left"][connection.send(state["left"]):] if state["left"] else None
                    if state["left"] is None:
                        wait.modify(connection, selectors.EVENT_READ, state)
                    continue
                received = connection.recv(65536)
            except BlockingIOError:
                continue
            except OSError:
                received = b""
            if not received:
                wait.unregister(connection)
                connection.close()
                continue
            state["asked"] += received
            head, end, body = state["asked"].partition(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
            if not end or len(body) < int(fields.get(b"content-length", 0)):
                continue
            state["asked"], state["left"] = b"", b""
            pause = 0 if head.startswith(b"GET") else json.loads(body)["pause"]
            state["pieces"] = iter([HEALTHY]) if head.startswith(b"GET") else answer(pause)
            if pause:
                paced[connection] = (state["pieces"], pause)
            else:
                wait.modify(connection, selectors.EVENT_WRITE, state)
        if paced and time.monotonic() >= due:
            due = time.monotonic() + min(pause for _, pause in paced.values())
            for connection, (rest, _) in list(paced.items()):
                piece = next(rest, None)
                if piece is None:
                    del paced[connection]
                else:
                    connection.sendall(piece)


def ask(pause, address, ca=None, word="none"):
    pause = float(pause)
    body = json.dumps({"model": "tiny", "stream": True, "pause": pause, "messages": [{"role": "user", "content": "Hello"}]}).encode()
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {word}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    context = ca and ssl.create_default_context(cafile=ca)
    wait, connections, ways = selectors.DefaultSelector(), [], []
    for _ in range(CLIENTS):
        if address.startswith("unix:"):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address.removeprefix("unix:"))
        else:
            host, port = address.split(":")
            connection = context.wrap_socket(socket.create_connection((host, int(port))), server_hostname="localhost")
        connections.append(connection)
    began = time.monotonic()
    for connection in connections:
        connection.sendall(head + body)
        connection.setblocking(False)
        # What came of a piece that is not whole yet, and how many tokens.
        wait.register(connection, selectors.EVENT_READ, {"end": b"", "tokens": 0})
    while wait.get_map():
        for key, _ in wait.select():
            while True:
                try:
                    received = key.fileobj.recv(1 << 16)
                except (ssl.SSLWantReadError, BlockingIOError):
                    break
                assert received, (key.data, "the answer breaks off")
                text, now = key.data["end"] + received, time.monotonic()
                whole, end, rest = text.rpartition(b"\n\n")
                key.data["tokens"] += whole.count(b'"delta"')
                key.data["end"] = rest if end else text
                if pause:
                    ways.extend(now - float(sent) for sent in SENT.findall(whole))
                if text.endswith(b"\r\n0\r\n\r\n"):
                    assert key.data["tokens"] == TOKENS[pause > 0], key.data
                    wait.unregister(key.fileobj)
                    break
    took = time.monotonic() - began
    hundredths = statistics.quantiles(ways, n=100) if ways else [0] * 99
    print(json.dumps({"seconds": took, "median": hundredths[49], "slow": hundredths[98]}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        ask(*sys.argv[2:])
