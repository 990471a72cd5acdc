"""The playground and the status page: files of this package, the same for everybody.

Knows files and caching; what the pages show comes from the API, as for any client.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter

from server.api.images import known
from server.errors import NotFound

FOLDER = Path(__file__).parent / "playground"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline, nothing from elsewhere; `blob:` is a picture that was dropped, not yet sent."""

router = APIRouter(include_in_schema=False)


class Page(NamedTuple):
    """A file as it is answered."""

    content: bytes
    media_type: str
    etag: str


@router.get("/")
async def playground(request: Request) -> Response:
    """Draw, watch, compare and mask by hand."""
    return _answer("index.html", request)


@router.get("/status")
async def status(request: Request) -> Response:
    """Queues and workers, as they are now."""
    return _answer("status.html", request)


@router.get("/playground/{file}")
async def playground_file(
    file: Annotated[str, PathParameter(max_length=100)], request: Request
) -> Response:
    """What the pages are made of."""
    return _answer(file, request)


def _answer(name: str, request: Request) -> Response:
    page = _pages().get(name)
    if page is None:
        raise NotFound(f"there is nothing at {request.url.path[:200]}")
    # Kept, and asked for again each time: after an upgrade no page meets a module of before.
    headers = {
        "ETag": page.etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": POLICY,
    }
    if known(",".join(request.headers.getlist("if-none-match")), page.etag):
        return Response(status_code=304, headers=headers)
    return Response(page.content, media_type=page.media_type, headers=headers)


@cache
def _pages() -> dict[str, Page]:
    """Every file by its name: what is not a key cannot be reached, however it is spelled."""
    return {file.name: _read(file) for file in FOLDER.iterdir() if file.suffix in TYPES}


def _read(file: Path) -> Page:
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return Page(content, TYPES[file.suffix], f'"{digest[:32]}"')
