"""Bodies that nobody should send. Made, not kept; the same ones at every call."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

from tests.fuzz.said import (
    A1111,
    DOORS,
    JSON,
    MEBIBYTE,
    NATIVE,
    OPENAI,
    Said,
    asked,
    quoted,
    said,
)

FORM = "multipart/form-data; boundary=x"
TO_A1111 = ("nothing", "a name of 10 MB")
"""What this door answers as A1111 does: no body has no fields, strange fields are ignored."""


def bodies() -> Iterator[Said]:
    """What is no JSON, or none that anybody should read, at each door that reads it."""
    deep = 100_000
    for name, body in {
        "deep lists": b"[" * deep,
        "deep objects": b'{"a":' * deep,
        "deep, and closed": b"[" * deep + b"]" * deep,
        "a deep prompt": b'{"prompt":' + b"[" * deep + b"]" * deep + b"}",
        "nothing": b"",
        "white space": b" \r\n\t" * 1000,
        "null": b"null",
        "a list": b"[]",
        "a number": b"1e999",
        "a text": b'"prompt"',
        "half an object": b'{"prompt": "a',
        "two objects": b'{"prompt": "a"}{"prompt": "b"}',
        "single quotes": b"{'prompt': 'a'}",
        "a comment": b'{"prompt": "a" /* b */}',
        "a comma too many": b'{"prompt": "a",}',
        "a byte order mark": b'\xef\xbb\xbf{"prompt": "a"}',
        "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
        "no UTF-8": b'{"prompt": "\xff\xfe"}',
        "a surrogate as UTF-8": b'{"prompt": "\xed\xa0\x80"}',
        "a raw NUL": b'{"prompt": "a\0"}',
        "a raw control character": b'{"prompt": "a\x1b[2J"}',
        "a prompt of 10 MB": b'{"prompt": "' + b"x" * (10 * MEBIBYTE) + b'"}',
        "a name of 10 MB": b'{"' + b"x" * (10 * MEBIBYTE) + b'": 1}',
        "NaN": b'{"prompt": "a", "width": NaN, "cfg_scale": NaN}',
        "infinity": b'{"prompt": "a", "width": -Infinity}',
        "a number of a million digits": b'{"prompt": "a", "width": ' + b"9" * MEBIBYTE + b"}",
        "an XML": b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        "a pickle": b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
    }.items():
        for door, path in DOORS.items():
            harmless = path == A1111 and name in TO_A1111
            yield Said(f"{name}, {door}", said(path, body), harmless)
    for name, body in {
        "a name twice": b'{"prompt": "a", "prompt": "b"}',
        "a lone surrogate": b'{"prompt": "\\ud800"}',
        "an escaped NUL": b'{"prompt": "a\\u0000b"}',
        "a million names": b"{" + b",".join(b'"%d":0' % n for n in range(MEBIBYTE)) + b"}",
        "a name that is a method": b'{"prompt": "a", "__init__": {"__globals__": {}}}',
        "a name of another language": b'{"prompt": "a", "__proto__": {"width": 8}}',
    }.items():
        yield Said(name, said(NATIVE, body))


def fields() -> Iterator[Said]:
    """Values that a field must not have, among them names that would be paths."""
    nasty: dict[str, list[Any]] = {
        "width": [0, -128, 127.5, 2**63, 10**400, "128", True, [], {}],
        "num_inference_steps": [0, -1, 10**9, 1e308, "1"],
        "guidance_scale": [-1, 1e308, "x", [1]],
        "seed": [-1, 2**64, 1.5, "0x10"],
        "num_images": [0, 10**9],
        "priority": [10**30],
        "deadline_seconds": [-1, 0, 1e308, "soon"],
        "sampler": ["", "../euler", "euler\0"],
        "loras": [[{"name": "a", "scale": 1e308}], [{"name": "a"}] * 10_000, {"a": 1}],
        "sweep": [{"seed": list(range(100_000))}, {"sampler": []}],
        "hires": [{"scale": 1e308}, {"scale": -1}, {"hires": {"hires": {}}}],
    }
    for field, values in nasty.items():
        for number, value in enumerate(values):
            body = json.dumps({"prompt": "a", field: value}).encode()
            yield Said(f"{field}, value {number}", said(NATIVE, body))
    for name in (
        "../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "/etc/passwd",
        "..\\..\\windows\\win.ini",
        "C:/windows/win.ini",
        "~root/.ssh/id_rsa",
        ".hidden",
        "a\0.safetensors",
        "a%00.safetensors",
        "link",
        "file:///etc/passwd",
        "\\\\evil.example\\share",
        "",
        ".",
        "..",
        "x" * 5000,
        "\u202etxt.exe",
        "$(id)",
        "{{7*7}}",
    ):
        for field, value in {
            "checkpoint": name,
            "vae": name,
            "loras": [{"name": name}],
            "refiner": {"checkpoint": name},
            "upscaler": {"checkpoint": name},
        }.items():
            body = json.dumps({"prompt": "a", field: value}).encode()
            yield Said(f"{field} {name[:40]!r}", said(NATIVE, body))
        if name:
            body = json.dumps({"prompt": "a", "model": name}).encode()
            yield Said(f"model {name[:40]!r}", said(OPENAI, body))
            yield Said(f"a checkpoint {name[:40]!r}", asked(f"/v1/checkpoints/{quoted(name)}"))


def types() -> Iterator[Said]:
    """Bodies that are declared to be something else, or to be packed."""
    body = b'{"prompt": "a", "checkpoint": "nobody"}'
    for kind in (
        "",
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/jsonp",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "multipart/form-data; boundary=" + "x" * 5000,
        "multipart/form-data; boundary=\xff",
        "application/json, text/plain",
        "application/" + "x" * 20_000,
    ):
        yield Said(f"the type {kind[:40]!r}", said(NATIVE, body, kind=kind))
    for charset in ("utf-16", "utf-7", "klingon"):
        odd = f"{JSON}; charset={charset}"
        yield Said(f"the charset {charset}", said(NATIVE, body, kind=odd))
    bomb = gzip.compress(bytes(50 * MEBIBYTE))
    for coding, packed in {
        "gzip": bomb,
        "deflate": zlib.compress(bytes(MEBIBYTE)),
        "br": body,
    }.items():
        line = f"Content-Encoding: {coding}"
        yield Said(f"a body in {coding}", said(NATIVE, packed, line))


def part(name: str, content: bytes, *, more: str = "") -> bytes:
    """Of a form."""
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode("latin-1") + content + b"\r\n"


def forms() -> Iterator[Said]:
    """Forms that are too much, or none."""
    end = b"--x--\r\n"
    prompt = part("prompt", b"a")
    inner = part("image", b"", more='; filename="a"\r\nContent-Type: multipart/mixed; boundary=y')
    for name, body in {
        "10,000 parts": b"".join(part(f"p{n}", b"1") for n in range(10_000)) + end,
        "10,000 files": b"".join(part(f"p{n}", b"1", more='; filename="a"') for n in range(10_000))
        + end,
        "10,000 times the same part": prompt * 10_000 + end,
        "no end": prompt,
        "half an end": prompt + b"--x-",
        "only boundaries": b"--x\r\n" * 10_000 + end,
        "nothing": b"",
        "another boundary": prompt.replace(b"--x", b"--z") + b"--z--\r\n",
        "a form in a form": prompt + inner * 200 + end,
        "a part's head of a megabyte": b"--x\r\nA: " + b"x" * MEBIBYTE + b"\r\n\r\n1\r\n" + end,
        "a part of 10,000 headers": b"--x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n1\r\n" + end,
        "a part without a name": b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n" + end,
        "a part without a head": b"--x\r\n\r\n1\r\n" + end,
        "a name of a megabyte": part("x" * MEBIBYTE, b"1") + end,
        "a name of NULs": part("\0\0", b"1") + end,
        "a file called ../../x": part("image", b"no picture", more='; filename="../../x"')
        + prompt
        + end,
        "a file of a charset": part(
            "prompt", b"\xff", more="\r\nContent-Type: text/plain; charset=klingon"
        )
        + end,
        "deep JSON": part("request", b"[" * 100_000) + end,
        "a name with brackets": part("hires" + "[a]" * 1000, b"1") + prompt + end,
        "a field that is no UTF-8": part("prompt", b"\xff\xfe") + end,
        "a field of 10 MB": part("prompt", b"x" * (10 * MEBIBYTE)) + end,
    }.items():
        yield Said(f"a form of {name}", said(NATIVE, body, kind=FORM))
        yield Said(f"a form of {name}, to OpenAI's door", said("/v1/images/edits", body, kind=FORM))
    flood = b"&".join(b"a%d=1" % number for number in range(100_000))
    kind = "application/x-www-form-urlencoded"
    yield Said("a flood of fields", said(NATIVE, flood, kind=kind))


def calls_back() -> Iterator[Said]:
    """Webhooks that lead into our own network. All forms are in the tests of the guard."""
    for url in (
        "http://127.0.0.1/",
        "http://localhost:6379/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://[2002:7f00:1::]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://metadata.google.internal/",
        "http://user:word@shop.example/",
        "http://shop.example:25/",
        "gopher://shop.example:6379/_FLUSHALL",
        "file:///etc/passwd",
        "http://shop.example\\@127.0.0.1/",
        "http://127.0.0.1.:80/",
        "//shop.example/",
    ):
        body = json.dumps({"prompt": "a", "webhook": {"url": url}}).encode()
        yield Said(f"a webhook to {url}", said(NATIVE, body))
