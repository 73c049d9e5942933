"""500 requests that nobody should send: each gets 2xx or 4xx, in one line, and the server lives on."""

import http.client
import io
import json
import random
import socket
import string

import pytest
from PIL import Image
from serving import sampler_file, serving, translator_file

KEYS = ["num", "seed", "first", "label", "truncation", "truncation_cutoff", "to", "at", "format", "nope", "", "ü"]
PATHS = ["/sample", "/translate", "/health", "/metrics", "/generator", "/", "/docs", "/openapi.json", "/reload"]
ODD = [
    *("//", "/sample/", "/../etc/passwd", "/%00", "/%ff%fe", "/sample%0d%0aX:1", "/page/../app.py", "/SAMPLE", "*"),
    *("/page/%2e%2e/app.py", "/sample;x=1", "/sample?num=%ff", "/translate?direction=%00&direction="),
    *("/" + "a" * 5000, "/?" + "a=1&" * 500, "http://evil.example/sample", "/translate?pad=" + "x" * 3000),
]
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "BREW", "post"]
TYPES = ["application/json; charset=utf-16", "text/plain", "image/png", "multipart/form-data", "", "/;=,", "image/"]
TYPES += ["application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "a" * 3000]
WORDS = ["x" * 100_000, "${oc.env:HOME}", "c1=1", "age=1e999", "=", ",", "a=b=c", "'; --", "1e5", "٣"]
FILES = [("L", "PNG"), ("RGB", "JPEG"), ("RGBA", "PNG"), ("P", "GIF"), ("I;16", "PNG"), ("F", "TIFF"), ("CMYK", "TIFF")]
HEADERS = ["Host", "Origin", "Authorization", "X-Long", "Accept", "Sec-Fetch-Site", "Cookie", "Range"]
VALUES = ["x" * 30_000, "null", "http://a", "localhost", "Basic !", "Bearer", "ü", "bytes=0-1"]
NAMES = [b"a", b"", b'"\xff', b"../../b"]


def value(rng: random.Random, depth: int = 0):
    """Any JSON value, now and then a sensible one."""
    kinds = [
        lambda: rng.choice([None, True, False, "", 0, 1, -1, 2, 0.5, "png", "grid", "npz", "cat", "dög", 3]),
        lambda: rng.choice([10**30, -(10**30), 2**63, 2**31, 1e308, -1e308, 1e-320, float("nan"), float("inf")]),
        lambda: "".join(rng.choices(string.printable + "ü\ud800\u202e\0", k=rng.randrange(40))),
        lambda: rng.choice(
            ["x" * 100_000, "${oc.env:HOME}", "c1=1", "age=1e999", "=", ",", "a=b=c", "'; --", "1e5", "٣"]
        ),
        lambda: [value(rng, depth + 1) for _ in range(rng.randrange(5))] if depth < 4 else [],
        lambda: {text(rng): value(rng, depth + 1) for _ in range(rng.randrange(4))} if depth < 4 else {},
        lambda: rng.randrange(300),
        lambda: rng.uniform(-3, 3),
    ]
    return rng.choice(kinds)()


def text(rng: random.Random) -> str:
    return rng.choice([rng.choice(KEYS), "".join(rng.choices(string.printable, k=5))])


def body(rng: random.Random) -> bytes:
    asked = {rng.choice(KEYS[:9]): value(rng) for _ in range(rng.randrange(4))}
    if rng.random() < 0.3:
        asked |= {text(rng): value(rng)}
    if rng.random() < 0.5:
        asked.setdefault("format", rng.choice(["grid", "npz"]))
    content = json.dumps(asked).encode()
    broken = [
        lambda: content,
        lambda: content[: rng.randrange(len(content))],
        lambda: bytes(rng.randrange(256) for _ in range(rng.randrange(60))),
        lambda: b"[" * rng.randrange(100_000),
        lambda: b'{"num":' * 3000,
        lambda: json.dumps(value(rng)).encode(),
        lambda: content.decode().encode("utf-16"),
        lambda: b'{"seed": ' + b"9" * rng.randrange(1, 6000) + b"}",
    ]
    return content if rng.random() < 0.6 else rng.choice(broken)()


def image(rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    size = rng.choice([(1, 1), (1, 900), (33, 20), (3000, 3000), (16, 16)])
    mode, kind = rng.choice([*FILES, ("1", "BMP"), ("RGB", "WEBP")])
    Image.new(mode, size).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(rng.choice([0, 1, 20])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    if rng.random() < 0.3:
        del content[rng.randrange(len(content)) :]
    if rng.random() < 0.2:
        edge = b"--x\r\nContent-Disposition: form-data; name=image; filename=" + rng.choice(
            [b"a", b"", b'"\xff', b"../../b"]
        )
        return edge + b"\r\n\r\n" + bytes(content) + rng.choice([b"\r\n--x--\r\n", b"", b"\r\n--x"])
    return bytes(content)


def asked(connection: http.client.HTTPConnection, rng: random.Random) -> tuple[int, bytes, str]:
    """One request by a client that keeps to HTTP; its status, content and what was sent."""
    method, path = "POST", rng.choice(["/sample", "/sample", "/translate"])
    if rng.random() < 0.25:
        method, path = rng.choice(METHODS), rng.choice(PATHS + ODD)
    content = image(rng) if path.startswith("/translate") else body(rng)
    usual = "application/json" if path == "/sample" else "image/png"
    usual = "multipart/form-data; boundary=x" if content.startswith(b"--x") else usual
    headers = {"Content-Type": usual if rng.random() < 0.8 else rng.choice(TYPES)}
    if rng.random() < 0.1:
        headers[rng.choice(HEADERS)] = rng.choice(VALUES)
    connection.request(method, path, content, headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), f"{method} {path} {headers} {content[:300]}"


RAW = [
    b"GET /health HTTP/1.0\r\n\r\n",
    b"GET /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: \xff\r\n\r\n",
    b"POST /sample HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /sample HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /sample HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /sample HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /sample HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    b"\r\n\r\n\r\n",
    b"\0" * 1000,
]


def raw_status(port: int, content: bytes) -> int | None:
    """The status that is answered to these bytes; None = the connection was closed, or the server waits for more."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(2)
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            line = connection.recv(100)
        except OSError:
            return None
    return int(line.split()[1]) if line else None


@pytest.mark.parametrize("kind", ["sampler", "translator"])
def test_nothing_that_is_sent_is_an_error_of_the_server(kind, tmp_path):
    make = {"sampler": sampler_file, "translator": translator_file}[kind]
    with serving(make(tmp_path / "generator.safetensors"), "max_pixels=20000", "most=64", "wait=0") as server:
        port, rng, counts = int(server.url.rpartition(":")[2]), random.Random(kind), dict.fromkeys((2, 4), 0)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(250):
            try:
                status, content, sent = asked(connection, rng)
            except (http.client.HTTPException, OSError, ValueError) as error:  # refused by the client, or cut off
                assert not isinstance(error, TimeoutError)
                connection.close()
                continue
            assert status // 100 in counts, f"{status} {content[:500]} for {sent}"
            counts[status // 100] += 1
            if status // 100 == 4 and content:
                line = json.loads(content)["detail"] if content.startswith(b"{") else content.decode()
                assert line and "\n" not in line and len(line) < 700 and "Traceback" not in line, line
        connection.close()
        for content in RAW:
            status = raw_status(port, content)
            assert status is None or status // 100 in (2, 4), content[:80]
        assert server.client.get("/health").status_code == 200
        assert counts[2] >= 5 and sum(counts.values()) > 220, counts
        assert "Traceback" not in server.run.err, server.run.err
