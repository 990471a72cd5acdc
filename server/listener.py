"""The door of the gateway: who may come in without a key, and the socket it listens on."""

from __future__ import annotations

import ipaddress
import socket

from server.config import Settings
from server.errors import DarkroomError

BACKLOG = 2048


def is_private(settings: Settings) -> bool:
    """Whether nobody needs a key to come in: only this machine can, or the operator insists."""
    return settings.insecure_no_auth or is_loopback(settings.host)


def refuse_open_door(settings: Settings, *, locked: bool | None) -> None:
    """Without API keys, only this machine may come in, unless the operator insists. Where it is not
    known whether there are keys, everybody needs one.

    Raises:
        DarkroomError: there are none and the host is not a loopback address.
    """
    if is_private(settings) or locked is not False:
        return
    raise DarkroomError(
        f"{settings.host} can be reached from other machines and there are no API keys, so anyone "
        "could use it; make one with `darkroom keys create NAME`, or listen on 127.0.0.1 behind a "
        "proxy that checks who comes, or say --insecure-no-auth"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int, how: str = "--port") -> socket.socket:
    """A listening socket; port 0 takes a free one. `how` is where another could be chosen.

    Raises:
        DarkroomError: the port is in use or the address is not ours; says so.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DarkroomError(
            f"cannot listen on {host}:{port}: {reason}; choose another port with {how}"
        ) from error


def listen_aside(settings: Settings) -> socket.socket:
    """The side port.

    Raises:
        DarkroomError: as `listen`.
    """
    return listen(settings.metrics_host, settings.metrics_port, "DARKROOM_METRICS_PORT")


def place_of(listener: socket.socket) -> str:
    """Where it listens, as an address and a port."""
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(listener: socket.socket) -> str:
    """What to type on this machine to reach it."""
    host, port = listener.getsockname()[:2]
    return url(host, port)


def url(host: str, port: int) -> str:
    """What to type on this machine to reach what listens on this host and port."""
    if host in ("0.0.0.0", "::"):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
