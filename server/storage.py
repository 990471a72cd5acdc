"""Where finished pictures are kept: a folder, or any object store that obstore speaks to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from server import cloud
from server.errors import NotFound, Unavailable

log = logging.getLogger("darkroom.storage")

ASK_SECONDS = 10.0
"""How often a cloud is asked whether it is there and lets us in."""
LISTED = 200
"""Folders that are listed at once."""
READERS = 16
"""Files that are read at once."""


class Folder(NamedTuple):
    """What lies under one name; of a store without folders, a part of it."""

    name: str
    keys: list[str]
    """Also of files that nobody has finished to write."""


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

    def folders(self) -> AsyncIterator[Folder]:
        """All there is, whoever put it there, bit by bit."""

    def on_failure(self, told: Callable[[], object]) -> None:
        """Call this whenever the store refuses something, on whatever thread."""

    async def lend(self, key: str, seconds: int) -> str | None:
        """A URL at which anybody may read it for so long, without us; None where there is none."""

    def free_bytes(self) -> int | None:
        """How much more can be stored, on the caller's thread; None where there is no telling.

        Raises:
            Unavailable: the store is not there, or may not be written.
        """


class ObjectImageStore:
    """In memory, S3, Google Cloud Storage or Azure, as obstore sees them."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._told: Callable[[], object] = lambda: None
        self._asked, self._away = time.monotonic() - ASK_SECONDS, False

    def on_failure(self, told: Callable[[], object]) -> None:
        """Call this whenever the store refuses something, on whatever thread."""
        self._told = told

    def put(self, key: str, data: bytes) -> None:
        """Write whole or not at all: obstore writes a local file aside and renames it, and removes
        what a full disk has cut off."""
        # In parts, what a killed writer has left would lie in a bucket unseen, and be paid for.
        about = cloud.about(key) if cloud.of_a_cloud(self._store) else {}
        with self._trying("cannot be written", key):
            obstore.put(self._store, key, data, attributes=about, use_multipart=False)

    def read(self, key: str) -> bytes:
        """Read it back, on the caller's thread.

        Raises:
            NotFound: there is nothing under this key.
            Unavailable: the store cannot be reached.
        """
        with self._reading(key):
            return bytes(obstore.get(self._store, key).bytes())

    def discard(self, *keys: str) -> None:
        """Remove them, on the caller's thread; what is not there is no error."""
        for key in keys:
            with self._deleting(key):
                obstore.delete(self._store, key)

    async def get(self, key: str) -> bytes:
        """As `read`, without a thread of its own."""
        with self._reading(key):
            return bytes(await (await obstore.get_async(self._store, key)).bytes_async())

    async def delete(self, *keys: str) -> None:
        """As `discard`, without a thread of its own."""
        for key in keys:
            with self._deleting(key):
                await obstore.delete_async(self._store, key)

    async def clear(self, folder: str) -> None:
        """Remove all under `folder/`, also what no record names: workers that died left it."""
        with self._deleting(folder):
            async for found in obstore.list(self._store, folder):
                await self.delete(*(each["path"] for each in found))

    async def folders(self) -> AsyncIterator[Folder]:
        """All there is, bit by bit. Object stores list by key, so a folder comes in few parts."""
        with self._trying("cannot be listed", "its folders"):
            async for found in obstore.list(self._store):
                parts: dict[str, list[str]] = {}
                for each in found:
                    parts.setdefault(each["path"].partition("/")[0], []).append(each["path"])
                for name, keys in parts.items():
                    yield Folder(name, keys)

    async def lend(self, key: str, seconds: int) -> str | None:
        """A URL at which anybody may read it; None where there is none, or not at the moment."""
        try:
            return await cloud.lent(self._store, key, seconds)
        except (BaseError, OSError) as error:
            log.warning("the image store gives out no URL of %s: %s", key, error)
            return None

    def free_bytes(self) -> int | None:
        """Nobody knows. Raises Unavailable where a cloud, which is asked now and then, refuses."""
        if cloud.of_a_cloud(self._store) and time.monotonic() - self._asked >= ASK_SECONDS:
            self._ask()
        return None

    def _ask(self) -> None:
        try:
            cloud.look(self._store)
        except (BaseError, OSError) as error:
            if not self._away:
                log.error("%s: %s", cloud.fault(error), cloud.first(error))
            self._away = True
            self._told()
            raise Unavailable(cloud.fault(error), retry_after=2.0) from error
        self._asked, self._away = time.monotonic(), False

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        with self._trying("cannot be read", key):
            try:
                yield
            except FileNotFoundError as error:
                raise NotFound(f"the image {key} is no longer stored") from error

    @contextlib.contextmanager
    def _deleting(self, key: str) -> Iterator[None]:
        with self._trying("refuses to delete", key), contextlib.suppress(FileNotFoundError):
            yield

    @contextlib.contextmanager
    def _trying(self, what: str, key: str) -> Iterator[None]:
        """A sentence for the caller; what the store itself says names hosts and paths, so it is
        logged only."""
        try:
            yield
        except (BaseError, OSError) as error:
            log.error("the image store %s at %s: %s", what, key, cloud.first(error))
            self._told()
            raise Unavailable(f"the image store {what}", retry_after=2.0) from error


class FolderImageStore(ObjectImageStore):
    """A local directory. Lists and removes by itself: obstore hides what a writer that was killed
    has left unfinished, and so could never remove it."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        # Of their own: a file system that hangs must not keep others of this process waiting.
        self._readers = ThreadPoolExecutor(READERS, "darkroom-pictures")
        super().__init__(LocalStore(self._root, mkdir=True))

    async def get(self, key: str) -> bytes:
        """As `read`, on another thread. The way through obstore costs twice as much, and a copy."""
        if (path := self._path(key)) is None:
            return await super().get(key)
        with self._reading(key):
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._readers, path.read_bytes)

    def discard(self, *keys: str) -> None:
        """Remove them, and folders that are empty then; what is not there is no error."""
        for key in keys:
            if (path := self._path(key)) is not None:
                with self._deleting(key):
                    path.unlink(missing_ok=True)
                self._tidy(path.parent)

    async def delete(self, *keys: str) -> None:
        """As `discard`, on another thread."""
        await asyncio.to_thread(self.discard, *keys)

    async def clear(self, folder: str) -> None:
        """Remove the folder with all its files."""
        await asyncio.to_thread(self._clear, folder)

    async def folders(self) -> AsyncIterator[Folder]:
        """All there is, bit by bit, also what is unfinished or empty."""
        with self._trying("cannot be listed", "its folders"):
            found = self._folders()
            while some := await asyncio.to_thread(lambda: list(islice(found, LISTED))):
                for folder in some:
                    yield folder

    def free_bytes(self) -> int | None:
        """What the file system has left for us. A folder that is not there is made by whoever
        writes, so what counts is where it would be."""
        for place in (self._root, *self._root.parents):
            try:
                left = os.statvfs(place)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Unavailable("the image store is not there", retry_after=2.0) from error
            if not os.access(place, os.W_OK):
                raise Unavailable("the image store cannot be written", retry_after=2.0)
            return left.f_bavail * left.f_frsize
        return None

    def _clear(self, folder: str) -> None:
        if (path := self._path(f"{folder}/all")) is not None:
            with self._deleting(folder):
                self.discard(*_keys(path.parent))
            self._tidy(path.parent)

    def _folders(self) -> Iterator[Folder]:
        with os.scandir(self._root) as found:
            for each in found:
                with contextlib.suppress(FileNotFoundError, PermissionError):
                    if each.is_dir(follow_symlinks=False):
                        yield Folder(each.name, _keys(Path(each.path)))

    def _path(self, key: str) -> Path | None:
        """Where it lies: in a folder of ours, however a key was forged."""
        folder, _, name = key.partition("/")
        odd = "/" in name or "\0" in key or {folder, name} & {"", ".", ".."}
        return None if odd else self._root / folder / name

    def _tidy(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()


def _keys(folder: Path) -> list[str]:
    """Of the files in a folder; none where it is no folder, and so not ours."""
    try:
        with os.scandir(folder) as files:
            return [f"{folder.name}/{file.name}" for file in files if not file.is_dir()]
    except NotADirectoryError:
        return []


def open_store(location: str, data_dir: Path) -> ObjectImageStore:
    """`location` is a folder, a URL such as s3://bucket/prefix, or empty for data_dir/images.

    Credentials come from the environment, as each cloud's own tools read them.
    """
    if location == "memory://":
        return ObjectImageStore(MemoryStore())
    if location.startswith("file://"):
        return FolderImageStore(Path(unquote(urlsplit(location).path)))
    if "://" in location:
        return ObjectImageStore(from_url(location, retry_config=cloud.RETRIES))
    return FolderImageStore(Path(location) if location else data_dir / "images")
