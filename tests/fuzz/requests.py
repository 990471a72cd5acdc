"""Requests that only somebody who means harm, or something that is broken, would send, as bytes.

`hostile(id)` gives each with its name; `id` is a generation that there is. The same ones at every
call.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.contents import bodies, calls_back, fields, forms, types
from tests.fuzz.said import (
    EVIL,
    JSON,
    MEBIBYTE,
    NATIVE,
    Said,
    asked,
    said,
)


def hostile(id: str) -> Iterator[Said]:
    """All of them."""
    yield from bodies()
    yield from fields()
    yield from types()
    yield from lengths()
    yield from chunks()
    yield from heads()
    yield from lines()
    yield from paths(id)
    yield from headers(id)
    yield from queries()
    yield from forms()
    yield from calls_back()


def lengths() -> Iterator[Said]:
    """Lengths that are a lie."""
    body = b'{"prompt": 1}'
    head = f"POST {NATIVE} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\n".encode()
    for length in ("-1", "+13", "0x0d", "1e1", "13 13", "", "9" * 30, str(2**63), "13, 13", "a"):
        line = f"Content-Length: {length}\r\n\r\n".encode()
        yield Said(f"the length {length[:20]!r}", head + line + body)
    twice = b"Content-Length: 13\r\nContent-Length: 5\r\n\r\n"
    yield Said("two lengths", head + twice + body)
    both = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    both += b"GET /smuggled HTTP/1.1\r\n\r\n"
    yield Said("a length and chunks", head + both)
    yield Said("a length that is too small", head + b"Content-Length: 4\r\n\r\n" + body)
    yield Said(
        "a length that is too large", head + b"Content-Length: 99\r\n\r\n" + body, unfinished=True
    )
    yield Said("40 MB announced", head + b"Content-Length: 41943040\r\n\r\n{")
    yield Said("a body on GET", said("/v1/samplers", bytes(100_000), method="GET"), harmless=True)
    yield Said(
        "a body that nobody reads", said("/healthz", b"x" * 100_000, method="GET"), harmless=True
    )


def chunks() -> Iterator[Said]:
    """Chunked bodies."""
    head = (
        f"POST {NATIVE} HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nTransfer-Encoding: ".encode()
    )
    begun = head + b"chunked\r\n\r\n"
    yield Said("chunks without end", begun + b"1\r\n{\r\n" * 1000, unfinished=True)
    yield Said("chunks of 40 MB", begun + (b"100000\r\n" + b"x" * MEBIBYTE + b"\r\n") * 40)
    yield Said("a chunk that never comes", begun + b"ffff\r\n{", unfinished=True)
    for name, rest in {
        "a size that is none": b"xyz\r\n{}\r\n0\r\n\r\n",
        "a size below zero": b"-1\r\n{}\r\n0\r\n\r\n",
        "a size of 40 digits": b"f" * 40 + b"\r\n{}\r\n0\r\n\r\n",
        "a chunk without an end of line": b"2\r\n{}0\r\n\r\n",
        "an extension of a megabyte": b"2;a=" + b"x" * MEBIBYTE + b"\r\n[]\r\n0\r\n\r\n",
        "trailers": b"2\r\n[]\r\n0\r\nContent-Length: 9\r\nHost: evil\r\n\r\n",
    }.items():
        yield Said(f"chunks, {name}", begun + rest)
    for coding in (
        "gzip, chunked",
        "chunked, chunked",
        "xchunked",
        "identity",
        "chunked\r\n ,gzip",
    ):
        name = f"the transfer coding {coding!r}"
        yield Said(name, head + coding.encode() + b"\r\n\r\n2\r\n[]\r\n0\r\n\r\n")


def heads() -> Iterator[Said]:
    """Heads that are too large, or broken."""
    start = b"GET /v1/samplers HTTP/1.1\r\nHost: x\r\n"
    yield Said(
        "10,000 headers", start + b"".join(b"H%d: v\r\n" % n for n in range(10_000)) + b"\r\n"
    )
    yield Said("a header of a megabyte", start + b"H: " + b"x" * MEBIBYTE + b"\r\n\r\n")
    yield Said("a header's name of a megabyte", start + b"x" * MEBIBYTE + b": v\r\n\r\n")
    yield Said("a header without end", start + b"H: " + b"x" * (4 * MEBIBYTE))
    yield Said("10,000 cookies", start + b"Cookie: a=b\r\n" * 10_000 + b"\r\n")
    yield Said("half a head", start, unfinished=True)
    for name, line in {
        "no colon": b"Header",
        "an empty name": b": v",
        "a space before the colon": b"A : v",
        "a NUL": b"A: b\0c",
        "a folded line": b"A: b\r\n c",
        "a bare return": b"A: b\rC: d",
        "a bare line feed": b"A: b\nC: d",
        "a name of control characters": b"\x01\x02: v",
    }.items():
        yield Said(f"a header with {name}", start + line + b"\r\n\r\n", harmless=True)


def lines() -> Iterator[Said]:
    """First lines, and what is no HTTP at all."""
    rest = b" HTTP/1.1\r\nHost: x\r\n\r\n"
    for name, data in {
        "the address of a file": b"GET file:///etc/passwd" + rest,
        "an address of 100 KB": b"GET /" + b"x" * 100_000 + rest,
        "an unknown method": b"EVIL /v1/samplers" + rest,
        "a small method": b"get /v1/samplers" + rest,
        "TRACE": b"TRACE /v1/samplers" + rest,
        "CONNECT": b"CONNECT evil.example:443" + rest,
        "OPTIONS of all": b"OPTIONS *" + rest,
        "HTTP/9.9": b"GET /v1/samplers HTTP/9.9\r\nHost: x\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": bytes.fromhex("160301020001") + b"\0" * 500,
        "SSH": b"SSH-2.0-evil\r\n",
        "Redis": b"*1\r\n$8\r\nFLUSHALL\r\n",
        "memcached": b"flush_all\r\n",
        "noise": bytes(range(256)) * 10,
        "a path that is no ASCII": "GET /é".encode() + rest,
        "a raw NUL in the path": b"GET /\0" + rest,
        "a space in the path": b"GET /v1/ samplers" + rest,
        "no path": b"GET " + rest,
    }.items():
        yield Said(name, data)
    for name, data in {
        "an absolute address": b"GET http://evil.example/v1/samplers" + rest,
        "HTTP/0.9": b"GET /v1/samplers\r\n\r\n",
        "HTTP/1.0": b"GET /v1/samplers HTTP/1.0\r\n\r\n",
        "no host": b"GET /v1/samplers HTTP/1.1\r\n\r\n",
        "two hosts": b"GET /v1/samplers HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "empty lines": b"\r\n" * 100 + b"GET /v1/samplers" + rest,
        "ten at once": (b"GET /v1/samplers" + rest) * 10,
        "a websocket": asked(
            "/v1/samplers",
            "Connection: upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        "an upgrade to HTTP/2": asked(
            "/v1/samplers",
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AA",
        ),
        "another expectation": asked("/v1/samplers", "Expect: the-unexpected"),
    }.items():
        yield Said(name, data, harmless=True)


def paths(id: str) -> Iterator[Said]:
    """Addresses that lead elsewhere, if somebody joins them to a folder."""
    for path in (
        "/../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/playground/../../config.py",
        "/playground/..%2fpages.py",
        "/playground/%2e%2e%2f%2e%2e%2fconfig.py",
        "/playground/..%5c..%5cconfig.py",
        "/playground/index.html%00.js",
        "/playground//etc/passwd",
        "/v1/generations/..%2f..%2fsecret",
        "/v1/generations/%00",
        "/v1/generations/gen_%00",
        "/v1/generations/%ff%fe",
        "/v1/generations/%",
        "/v1/generations/%zz",
        "/v1/generations/*",
        f"/v1/generations/{id}%00",
        f"/v1/generations/{id}%0a",
        f"/v1/generations/{id}%2f..%2f..",
        f"/v1/generations/{id}/../../samplers",
        f"/v1/generations/{id};a=b",
        f"/v1/generations/{id.upper()}",
        f"/v1/generations/{id}/",
        f"//v1/generations/{id}",
        f"/V1/generations/{id}",
        f"/v1/generations/{id}/images/-1",
        f"/v1/generations/{id}/images/1000000",
        f"/v1/generations/{id}/images/{'9' * 5000}",
        f"/v1/generations/{id}/images/0x0",
        f"/v1/generations/{id}/images/1e0",
        f"/v1/generations/{id}/images/%00",
        f"/v1/generations/{id}/images/..%2f0",
        f"/v1/generations/{id}/images/0%2f..%2finput-image.png",
        f"/v1/generations/{id}/images/%d9%a3",
        "/v1/generations/gen_" + "f" * 32,
        "/v1/generations/gen_" + "x" * 5000,
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/.git/config",
        "/.env",
        "/server/config.py",
        "/images/",
        "/wp-login.php",
        "/actuator/env",
        "/cgi-bin/.%2e/.%2e/bin/sh",
    ):
        yield Said(f"the path {path[:80]}", asked(path))


def headers(id: str) -> Iterator[Said]:
    """Headers with a grammar of their own, and those that only a proxy should send."""
    wrong = b'{"prompt": "a", "checkpoint": "nobody"}'
    for preference in (
        "wait=1e309",
        "wait=-1",
        "wait=nan",
        "wait=" + "9" * 5000,
        "wait",
        "=",
        ";;;,,,===",
        "wait=1," * 5000,
    ):
        yield Said(f"Prefer: {preference[:20]}", said(NATIVE, wrong, f"Prefer: {preference}"))
    good = b'{"prompt": "a"}'
    for key in ("", " ", "x" * 256, "x" * 60_000, "\xff\xfe", "a\tb"):
        line = f"Idempotency-Key: {key}"
        yield Said(f"Idempotency-Key: {key[:20]!r} of {len(key)}", said(NATIVE, good, line))
    for last in ("-1", "0-0-0", "9" * 30, "a", "0-", "1-18446744073709551616", "1; DROP", "\xb2"):
        events = f"/v1/generations/{id}/events"
        yield Said(f"Last-Event-ID: {last!r}", asked(events, f"Last-Event-ID: {last}"))
    for accept in ("text/html", "image/gif", ",".join(["a/b;q=1e309"] * 3000)):
        yield Said(f"Accept: {accept[:20]}", said(NATIVE, good, f"Accept: {accept}"))
    for line in (
        f"X-Forwarded-Host: {EVIL}",
        f"X-Forwarded-For: 127.0.0.1, {EVIL}",
        f"Forwarded: for=127.0.0.1;host={EVIL};proto=https",
        f"X-Original-URL: /v1/generations/{id}",
        "X-Rewrite-URL: /metrics",
        "X-HTTP-Method-Override: DELETE",
        f"Origin: https://{EVIL}",
        f"Referer: https://{EVIL}/",
        "Range: bytes=0-18446744073709551615," + "0-," * 1000,
        "If-None-Match: " + '"x",' * 5000,
        "Authorization: Basic ====",
        "Authorization: Bearer " + "x" * 50_000,
        "Cookie: session=" + "x" * 50_000,
        "Connection: close, keep-alive, upgrade",
        "Accept-Encoding: " + "gzip," * 5000,
    ):
        yield Said(f"{line[:40]}", asked(f"/v1/generations/{id}", line), harmless=True)
    for host in (EVIL, "x:99999", "user@x", "x/../y", "", "[::1", "\xff"):
        forged = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")
        yield Said(f"Host: {host!r}", forged, harmless=True)


def queries() -> Iterator[Said]:
    """Of a list."""
    for query in (
        "limit=0",
        "limit=1e9",
        "limit=-1",
        "limit=" + "9" * 5000,
        "limit=%00",
        "limit=1&limit=2&limit=x",
        "state=",
        "state[]=queued",
        "state=..%2f",
        "cursor=%00",
        "cursor=" + "9" * 3000,
        "cursor=1-gen_x",
        "evil=1",
        "&".join(f"a{number}=1" for number in range(5000)),
        "%",
        "=",
    ):
        yield Said(
            f"the query {query[:40]}", asked(f"{NATIVE}?{query}"), harmless=query in ("%", "=")
        )
