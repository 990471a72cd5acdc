"""Where finished pictures are kept: a folder, or any object store that obstore speaks to."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from server.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from obstore.store import RetryConfig

log = logging.getLogger("darkroom.storage")

RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=5)}
"""obstore's own retries would hold a thread for minutes; whoever waits for a store tries again."""


class ImageStore(Protocol):
    """Bytes under a key such as `gen_…/0-….png`. Keys are made by us, never by a caller."""

    def put(self, key: str, data: bytes) -> None:
        """Write whole or not at all; a reader never sees half a picture."""

    def read(self, key: str) -> bytes:
        """Read it back, on the caller's thread.

        Raises:
            NotFound: there is nothing under this key.
        """

    def discard(self, *keys: str) -> None:
        """Remove them, on the caller's thread; what is not there is no error."""

    async def get(self, key: str) -> bytes:
        """As `read`, without a thread of its own."""

    async def delete(self, *keys: str) -> None:
        """As `discard`, without a thread of its own."""

    async def clear(self, folder: str) -> None:
        """Remove all under `folder/`, also what no record names: workers that died left it."""


class ObjectImageStore:
    """A local directory, S3, Google Cloud Storage or Azure, as obstore sees them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(self, key: str, data: bytes) -> None:
        """Write whole or not at all: obstore writes a local file aside and renames it."""
        try:
            obstore.put(self._store, key, data)
        except (BaseError, OSError) as error:
            raise _away("cannot be written", key, error) from error

    def read(self, key: str) -> bytes:
        """Read it back, on the caller's thread.

        Raises:
            NotFound: there is nothing under this key.
            Unavailable: the store cannot be reached.
        """
        with _reading(key):
            return bytes(obstore.get(self._store, key).bytes())

    def discard(self, *keys: str) -> None:
        """Remove them, on the caller's thread; what is not there is no error."""
        for key in keys:
            with _deleting(key):
                obstore.delete(self._store, key)

    async def get(self, key: str) -> bytes:
        """As `read`, without a thread of its own."""
        with _reading(key):
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    async def delete(self, *keys: str) -> None:
        """As `discard`, without a thread of its own."""
        for key in keys:
            with _deleting(key):
                await obstore.delete_async(self._store, key)

    async def clear(self, folder: str) -> None:
        """Remove all under `folder/`, also what no record names: workers that died left it."""
        with _deleting(folder):
            async for found in obstore.list(self._store, folder):
                await self.delete(*(each["path"] for each in found))


@contextlib.contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"the image {key} is no longer stored") from error
    except (BaseError, OSError) as error:
        raise _away("cannot be read", key, error) from error


@contextlib.contextmanager
def _deleting(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        return
    except (BaseError, OSError) as error:
        raise _away("refuses to delete", key, error) from error


def _away(what: str, key: str, error: Exception) -> Unavailable:
    """A sentence for the caller; what the store itself says names hosts and paths, so it is logged
    only."""
    log.error("the image store %s at %s: %s", what, key, error)
    return Unavailable(f"the image store {what}", retry_after=2.0)


def open_store(location: str, data_dir: Path) -> ObjectImageStore:
    """`location` is a folder, a URL such as s3://bucket/prefix, or empty for data_dir/images.

    Credentials come from the environment, as each cloud's own tools read them.
    """
    if location == "memory://":
        return ObjectImageStore(MemoryStore())
    if "://" in location:
        return ObjectImageStore(from_url(location, retry_config=RETRIES))
    folder = Path(location) if location else data_dir / "images"
    return ObjectImageStore(LocalStore(folder.resolve(), mkdir=True, automatic_cleanup=True))
