"""What requests are made of."""

from __future__ import annotations

from dataclasses import dataclass

NATIVE, OPENAI, A1111 = "/v1/generations", "/v1/images/generations", "/sdapi/v1/txt2img"
DOORS = {"natively": NATIVE, "to OpenAI's door": OPENAI, "to A1111's door": A1111}
JSON = "application/json"
MEBIBYTE = 2**20
EVIL = "evil.example"


@dataclass(frozen=True, slots=True)
class Said:
    """What is sent over a connection of its own."""

    name: str
    data: bytes
    harmless: bool = False
    """It may be answered like any other request: what is odd about it means nothing here."""
    unfinished: bool = False
    """The server has to wait for more, and give up."""


def said(path: str, body: bytes, *lines: str, method: str = "POST", kind: str = JSON) -> bytes:
    """A request that is well formed around its body."""
    head = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}"]
    head += [f"Content-Type: {kind}"] if kind else []
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1") + body


def asked(path: str, *lines: str, method: str = "GET") -> bytes:
    """One without a body."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode("latin-1")


def quoted(text: str) -> str:
    """Every byte of it in percents."""
    return "".join(f"%{byte:02x}" for byte in text.encode())
