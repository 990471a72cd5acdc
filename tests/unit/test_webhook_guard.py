"""Where a caller may have the gateway connect to, and where not, however it is written."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.api.webhooks.guard import Forbidden, Guard, resolve


def leading_to(*addresses: str, allow: str = "") -> Guard:
    """A guard for whom every name has these addresses."""

    async def found(host: str, port: int) -> Sequence[str]:
        return addresses

    return Guard(allow, found)


def addresses(guard: Guard, url: str) -> list[str]:
    return [str(each) for each in asyncio.run(guard.addresses(guard.check(url)))]


PRIVATE = {
    "loopback": "127.0.0.1",
    "all of loopback": "127.8.9.10",
    "this host": "0.0.0.0",
    "private, large": "10.1.2.3",
    "private, middle": "172.16.0.1",
    "private, small": "192.168.1.1",
    "link-local, where clouds keep credentials": "169.254.169.254",
    "where Oracle's older cloud keeps them": "192.0.0.192",
    "where Azure keeps some": "168.63.129.16",
    "one of Azure's, mapped": "::ffff:168.63.129.16",
    "carrier-grade NAT": "100.64.0.1",
    "multicast": "224.0.0.1",
    "broadcast": "255.255.255.255",
    "reserved": "240.0.0.1",
    "for benchmarks": "198.18.0.1",
    "for documents": "192.0.2.1",
    "IPv6 loopback": "::1",
    "IPv6 unspecified": "::",
    "IPv6 private": "fd00::1",
    "IPv6 link-local": "fe80::1",
    "IPv6 site-local": "fec0::1",
    "IPv6 multicast": "ff02::1",
    "IPv6 for documents": "2001:db8::1",
    "mapped": "::ffff:10.0.0.1",
    "mapped loopback, in hexadecimal": "::ffff:7f00:1",
    "compatible": "::127.0.0.1",
    "6to4": "2002:7f00:1::",
    "6to4 of a public one": "2002:808:808::",
    "Teredo": "2001:0:a00:1::1",
    "NAT64": "64:ff9b::a00:1",
    "NAT64 of one's own": "64:ff9b:1::a00:1",
}


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE)
def test_an_address_that_is_not_public_is_refused_when_it_is_said(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(Forbidden, match="not public"):
        Guard().check(f"http://{host}/")


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE)
def test_a_name_that_leads_to_one_is_refused_when_it_is_called(address: str) -> None:
    with pytest.raises(Forbidden) as refusal:
        addresses(leading_to(address), "https://innocent.example/")
    with pytest.raises(Forbidden) as nowhere:
        addresses(leading_to(), "https://innocent.example/")
    assert str(refusal.value) == str(nowhere.value), "it tells nothing of our own network"


def test_one_such_address_among_public_ones_is_enough() -> None:
    with pytest.raises(Forbidden, match="does not lead to public"):
        addresses(leading_to("8.8.8.8", "10.0.0.1"), "https://innocent.example/")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_may_be_called_by_name_and_by_number(address: str) -> None:
    guard = leading_to(address)
    host = f"[{address}]" if ":" in address else address
    assert addresses(guard, "https://shop.example/hook") == [address]
    assert addresses(guard, f"http://{host}:8443/hook") == [address]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://2130706433/", "four numbers"),
        ("http://0x7f.1/", "four numbers"),
        ("http://0x7f000001/", "four numbers"),
        ("http://127.1/", "four numbers"),
        ("http://127.0.0.1./", "not public"),
        ("http://0177.0.0.1/", "is no URL"),
        ("http://127%2e0.0.1/", "must name a host"),
        ("http://[fe80::1%25eth0]/", "must name a host"),
        ("http://0x7f.0x0.0x0.0x1/", "four numbers"),
        ("http://017700000001/", "four numbers"),
        ("http://0/", "four numbers"),
        ("http://1.1/", "four numbers"),
        ("http://127.0.0.1.nip.io:22/", "port"),
        ("http://10.0.0.1:80@shop.example/", "user name"),
        ("http://[::127.0.0.1]/", "not public"),
        ("http://[::ffff:0:127.0.0.1]/", "not public"),
        ("http://[0:0:0:0:0:ffff:a9fe:a9fe]/", "not public"),
        ("HTTP://127.0.0.1/", "not public"),
        ("http://127.0.0.1:443/", "not public"),
        ("http://169.254.169.254./latest/meta-data/", "not public"),
        ("http://kubernetes.default.svc.cluster.local/", "that is public"),
        ("http://printer.home.arpa/", "that is public"),
        ("http://localhost/", "that is public"),
        ("http://LOCALHOST./", "that is public"),
        ("http://redis:6379/", "that is public"),
        ("http://db.internal/", "that is public"),
        ("http://metadata.google.internal/", "that is public"),
        ("http://user@shop.example/", "user name"),
        ("http://user:word@shop.example/", "user name"),
        ("http://shop.example\\@10.0.0.1/", "backslashes"),
        ("http://shop.example /", "spaces"),
        ("http://shop.example/\r\nX-Evil: 1", "control characters"),
        ("http://shop.example/#here", "fragment"),
        ("http://shop.example:25/", "port"),
        ("http://shop.example:0/", "port"),
        ("http://shop.example:99999/", "port"),
        ("http:///hook", "must name a host"),
        ("//shop.example/", "must begin with"),
        ("shop.example", "must begin with"),
        ("ftp://shop.example/", "must begin with"),
        ("file:///etc/passwd", "must begin with"),
        ("gopher://shop.example/", "must begin with"),
        ("", "must begin with"),
    ],
)
def test_other_ways_to_write_it_are_refused_in_words(url: str, why: str) -> None:
    with pytest.raises(Forbidden, match=why):
        Guard().check(url)


@given(st.text() | st.text().map("http://{}/".format) | st.text().map("http://a.example{}".format))
@example("http://①②⑦.⓪.⓪.①/")
@example("http://xn--/")
@example("http://[::1/")
def test_whatever_is_sent_is_a_url_or_is_refused_in_words(text: str) -> None:
    with contextlib.suppress(Forbidden):
        assert isinstance(Guard().check(text), httpx.URL)


def test_what_the_operator_lists_may_be_private() -> None:
    by_network = leading_to("10.1.2.3", allow="10.1.0.0/16 fd00::/8")
    assert addresses(by_network, "http://10.1.2.3:81/") == ["10.1.2.3"]
    assert addresses(by_network, "http://[fd00::5]/") == ["fd00::5"]
    assert addresses(by_network, "http://receiver:8080/") == ["10.1.2.3"]
    with pytest.raises(Forbidden):
        addresses(by_network, "http://10.2.0.1/")
    by_name = leading_to("127.0.0.1", allow="Receiver other.example.")
    assert addresses(by_name, "http://receiver:25/") == ["127.0.0.1"]
    assert addresses(by_name, "https://other.example/") == ["127.0.0.1"]
    with pytest.raises(Forbidden):
        addresses(by_name, "https://third.example/")


def test_a_name_that_nobody_has_is_refused_in_words() -> None:
    with pytest.raises(Forbidden, match="does not lead to public"):
        addresses(Guard(), "https://nowhere.invalid/")


def test_a_name_that_is_never_answered_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        answer.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await resolve("slow.example", 443)

    asyncio.run(impatient())  # ends although its thread still waits
    answer.set()
