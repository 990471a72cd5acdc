"""The playground's files: how they are answered, and what they must not hold."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from server.api.pages import FOLDER

FILES = sorted(FOLDER.iterdir())
PAGES = {"/": "index.html", "/status": "status.html"}
SCRIPTS = [file for file in FILES if file.suffix == ".js"]
MAX_LINES = 350


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(
    client: httpx.Client, path: str
) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    [policy] = answer.headers.get_list("content-security-policy")
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_answered_with_its_type(client: httpx.Client, file: Path) -> None:
    answer = client.get(f"/playground/{file.name}")
    assert answer.content == file.read_bytes()
    kinds = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
    kind = kinds.get(file.suffix, "image/svg+xml")
    assert answer.headers["content-type"].startswith(kind)


def test_a_file_is_sent_again_only_when_it_has_changed(client: httpx.Client) -> None:
    first = client.get("/playground/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/playground/app.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/playground/app.js", headers={"If-None-Match": '"other"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2Fpages.py", "%2e%2e%2fapp.py", "..%5Capp.py", "", "x" * 200, "%00"]
)
def test_nothing_else_can_be_reached(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/playground/{name}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("page", PAGES.values())
def test_a_page_has_no_script_or_style_in_it(page: str) -> None:
    text = (FOLDER / page).read_text()
    assert re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text) is None


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_names_another_host_or_reads_html(file: Path) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://\w|innerHTML|insertAdjacentHTML|\beval\(", text) == []


@pytest.mark.parametrize("file", [*SCRIPTS, *(FOLDER / page for page in PAGES.values())])
def test_every_file_that_is_named_is_there(file: Path) -> None:
    named = re.findall(r'"(?:\.|/playground)/([\w.]+)', file.read_text())
    assert [name for name in named if not (FOLDER / name).exists()] == []


def test_every_module_is_of_a_size_that_can_be_read() -> None:
    assert [f.name for f in SCRIPTS if len(f.read_text().splitlines()) > MAX_LINES] == []


def test_the_files_together_weigh_less_than_150_kb() -> None:
    assert sum(file.stat().st_size for file in FILES) < 150_000
