"""Ends with 0 where the URL answers 200 in time, else with 1 and the reason: a health check.

Runs every few seconds in each container, so it imports next to nothing.
"""

from __future__ import annotations

import socket
import sys

SECONDS = 4.0
MOST_BYTES = 500


def complaint(url: str) -> str | None:
    """What is wrong with what answers at this http:// URL; None where nothing is."""
    place, _, path = url.removeprefix("http://").partition("/")
    host, _, port = place.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            connection.sendall(f"GET /{path} HTTP/1.0\r\nHost: {place}\r\n\r\n".encode())
            answer = connection.makefile("rb").read(MOST_BYTES)
    except OSError as error:
        return f"{url}: {error}"
    well = answer.split()[1:2] == [b"200"]
    return None if well else f"{url} answers {answer.decode(errors='replace') or 'nothing'}"


if __name__ == "__main__":
    sys.exit(complaint(sys.argv[1]))
