"""The nginx example of docs/operations.md, in a real nginx, before what tells what came."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import trustme

from tests.api.house import wait_until
from tests.deploy.files import ROOT
from tests.deploy.prometheus import free_port

EXAMPLE = re.compile(r"```nginx\n(.*?)```", re.DOTALL)
LIES = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "gopher"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
AROUND = """
daemon off;
error_log stderr;
pid {folder}/pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
{example}
}}
"""


class Tells(BaseHTTPRequestHandler):
    """Answers with the headers that it got; a stream with one event, and the rest when told."""

    go_on = threading.Event()

    def do_GET(self) -> None:
        told = json.dumps(dict(self.headers.items())).encode()
        if self.path.endswith("/events"):
            self.wfile.write(HEAD + b"Connection: close\r\n\r\ndata: " + told + b"\n\n")
            assert self.go_on.wait(30)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        """Nothing is said."""


@pytest.fixture(scope="module")
def program() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    if not found:
        pytest.skip("no nginx: Debian's package `nginx` has it")
    return found


@pytest.fixture(scope="module")
def proxied(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of that nginx, which trusts its certificate."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    behind = ThreadingHTTPServer(("127.0.0.1", 0), Tells)
    threading.Thread(target=behind.serve_forever).start()
    trusted = certificate(folder)
    [example] = EXAMPLE.findall((ROOT / "docs" / "operations.md").read_text())
    for said, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/nginx/darkroom.crt", f"{folder}/crt"),
        ("/etc/nginx/darkroom.key", f"{folder}/key"),
        ("http://127.0.0.1:8000", f"http://127.0.0.1:{behind.server_port}"),
    ):
        assert example.count(said) == 1, said
        example = example.replace(said, here)
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, example=example))
    command = [program, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr
    process = subprocess.Popen(command)
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted) as client:
        wait_until(lambda: answers(client), seconds=20)
        yield client
    process.terminate()
    assert process.wait(20) == 0
    behind.shutdown()
    behind.server_close()


def certificate(folder: Path) -> ssl.SSLContext:
    """Of 127.0.0.1, in that folder, and what trusts it."""
    authority = trustme.CA()
    ours = authority.issue_cert("127.0.0.1")
    ours.private_key_pem.write_to_path(folder / "key")
    for pem in ours.cert_chain_pems:
        pem.write_to_path(folder / "crt", append=True)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code == 200
    except httpx.TransportError:
        return False


def test_what_a_client_says_of_itself_is_overwritten(proxied: httpx.Client) -> None:
    told = {k.lower(): v for k, v in proxied.get("/v1/generations", headers=LIES).json().items()}
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "https"
    assert told["host"] == "127.0.0.1"


def test_so_it_is_of_streams_whose_events_come_at_once(proxied: httpx.Client) -> None:
    Tells.go_on.clear()
    with proxied.stream("GET", "/v1/generations/gen_1/events", headers=LIES) as answer:
        line = next(answer.iter_lines())  # while the rest has yet to come
        Tells.go_on.set()
    told = json.loads(line.removeprefix("data: "))
    assert told["X-Forwarded-For"] == "127.0.0.1"
    assert told["X-Forwarded-Proto"] == "https"
