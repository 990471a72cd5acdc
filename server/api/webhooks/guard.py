"""Which addresses a caller may have us connect to. Knows names and addresses; sends nothing.

Public ones only, or what the operator has listed. A name is resolved once for each call, every
address it has must be allowed, and the call goes to one of those that were checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that is given out to hosts in public."""
NAT64 = IPv6Network("64:ff9b::/96")
CLOUDS = (IPv4Network("192.0.0.0/24"), IPv4Network("168.63.129.16"))
"""Where clouds tell a machine its secrets (Oracle's older one, Azure), beside link-local addresses.
They count as public, the first before Python 3.11.10."""
PRIVATE_ZONES = (".localhost", ".local", ".internal", ".intranet", ".lan", ".home.arpa")
HIGH_PORTS = range(1024, 65_536)
"""Below are those of services that have no webhooks, but for the web's own."""


class Forbidden(Exception):
    """It must not be called; says why, in words that give nothing of our network away."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name.

    On a thread of its own: names that are never answered may neither keep the event loop nor the
    threads of other work, nor hold up the end of the process.

    Raises:
        OSError: it has none.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str]] = loop.create_future()

    def tell(addresses: Sequence[str], error: Exception | None) -> None:
        if found.done():  # nobody waits any more
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def look() -> None:
        addresses: Sequence[str] = ()
        failure: OSError | None = None
        try:
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as error:
            failure = OSError(str(error))
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, addresses, failure)

    threading.Thread(target=look, name="darkroom-resolve", daemon=True).start()
    return await found


class Guard:
    """The rules of one gateway. `allow`: host names and CIDRs, separated by spaces, that may be
    called although they are not public."""

    def __init__(self, allow: str = "", resolve: Resolve = resolve) -> None:
        self._resolve = resolve
        entries = [_network(entry) or _plain(entry) for entry in allow.split()]
        self._names = frozenset(entry for entry in entries if isinstance(entry, str))
        self._networks = [entry for entry in entries if not isinstance(entry, str)]

    def check(self, text: str) -> httpx.URL:
        """The URL, as far as it can be judged without asking for its name.

        Raises:
            Forbidden: it must not be called, whatever its name resolves to.
        """
        if "\\" in text or not text.isprintable() or " " in text:
            raise Forbidden("must not contain spaces, backslashes or control characters")
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL as error:
            raise Forbidden(f"is no URL: {error}") from None
        if url.scheme not in ("http", "https"):
            raise Forbidden("must begin with https:// or http://")
        if url.userinfo or "@" in url.netloc.decode():
            raise Forbidden("must not contain a user name or password")
        if url.fragment:
            raise Forbidden("must not have a fragment; it could not be sent")
        self._check_host(_host(url), url.port)
        return url

    async def addresses(self, url: httpx.URL) -> list[Address]:
        """Where to connect to: any of these, and to nothing else.

        Raises:
            Forbidden: it has another address than those that may be called, or none.
        """
        host, port = _host(url), url.port or (443 if url.scheme == "https" else 80)
        literal = _literal(host)
        found: Sequence[str] = ()
        with contextlib.suppress(OSError):
            found = [str(literal)] if literal else await self._resolve(host, port)
        addresses = [ip_address(each) for each in found]
        permitted = host in self._names or all(map(self._permitted, addresses))
        if not (addresses and permitted):  # one answer, or it would tell which names we know
            raise Forbidden("its host name does not lead to public addresses")
        return addresses

    def _check_host(self, host: str, port: int | None) -> None:
        if not re.fullmatch(r"[a-z0-9._:-]+", host):
            raise Forbidden("must name a host")
        literal, label = _literal(host), host.rpartition(".")[2]
        if host in self._names or (literal and self._listed(literal)):
            return
        if literal and not _is_public(literal):
            raise Forbidden("must not lead to an address that is not public")
        if not literal and re.fullmatch(r"\d+|0x[0-9a-f]*", label):
            raise Forbidden("must name a host, or an address as four numbers from 0 to 255")
        if not literal and not self._networks and _is_private(host):
            raise Forbidden("must name a host that is public")
        if port not in (None, 80, 443) and port not in HIGH_PORTS:
            raise Forbidden(f"must have port 80, 443 or one from {HIGH_PORTS[0]}")

    def _permitted(self, address: Address) -> bool:
        return self._listed(address) or _is_public(address)

    def _listed(self, address: Address) -> bool:
        plain = _unmapped(address)
        return any(plain in network for network in self._networks)


def _is_private(name: str) -> bool:
    return "." not in name or name.endswith(PRIVATE_ZONES)


def _is_public(address: Address) -> bool:
    """Whether anybody may be there, and nobody of our own network."""
    address = _unmapped(address)
    if isinstance(address, IPv4Address):
        inside = address.is_multicast or any(address in network for network in CLOUDS)
        return address.is_global and not inside
    if address in NAT64:
        return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    # An IPv4 address of anybody's choice is in those of 6to4 and Teredo.
    tunneled = address.sixtofour is not None or address.teredo is not None
    return address in UNICAST and address.is_global and not tunneled


def _unmapped(address: Address) -> Address:
    """An IPv4 address that is written as an IPv6 one is what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _host(url: httpx.URL) -> str:
    return _plain(url.raw_host.decode("ascii"))


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None
