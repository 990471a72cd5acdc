"""What only object stores of a cloud can do, and need: whether they let us in, and addresses that
lend one file to whoever has them. Knows no keys of ours."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store, from_url

from server.errors import DarkroomError
from server.spec import OutputFormat

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import RetryConfig

RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=5)}
"""obstore's own retries would hold a thread for minutes; whoever waits for a store tries again."""
AT_ONCE: RetryConfig = {"max_retries": 0}

CREDENTIALS = (
    "its credentials come from the environment, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
    "and AWS_REGION"
)
CLOUDS = (AzureStore, GCSStore, S3Store)
NOTHING = "darkroom.nothing"
"""A folder that is not there: to list it costs the least that shows whether we are let in."""
TYPES = {form.value: form.media_type for form in OutputFormat}


def of_a_cloud(store: ObjectStore) -> TypeGuard[AzureStore | GCSStore | S3Store]:
    """Whether it is a bucket, and not memory or somebody's web server."""
    return isinstance(store, CLOUDS)


def about(key: str) -> Attributes:
    """What is said of a file where it is put, for those to whom the store itself gives it."""
    kind = TYPES.get(key.rpartition(".")[2])
    return {"Content-Type": kind} if kind else {}


def look(store: ObjectStore) -> None:
    """On the caller's thread. Raises what obstore raises, where the store is away or closed."""
    obstore.list(store, NOTHING).collect()


def fault(error: Exception) -> str:
    """What is wrong with a store that was looked at, for everybody: no names, no keys."""
    return _closed(error) or "the image store cannot be reached"


def _closed(error: Exception) -> str | None:
    """What waiting does not mend. To list has one kind of error for all that is answered."""
    status = re.search(r"status code: (\d{3})", str(error))
    if status is None:
        return None
    return {
        "401": "the image store does not let us in",
        "403": "the image store does not let us in",
        "404": "the image store has no such bucket",
    }.get(status[1])


async def lent(store: ObjectStore, key: str, seconds: int) -> str | None:
    """A URL at which anybody may read the file for so long; None where the store gives out none."""
    if not of_a_cloud(store):
        return None
    return await obstore.sign_async(store, "GET", key, timedelta(seconds=seconds))


def expect_bucket(location: str) -> None:
    """Let whoever starts know what is wrong with the image store; one that is only away is waited
    for later, and one that is a folder is made when it is written to.

    Raises:
        DarkroomError: it does not let us in, there is no such bucket, or the URL is none; says
            nothing that may be a secret.
    """
    if "://" not in location or location.startswith(("file:", "memory:")):
        return
    where = _place(location)
    try:
        store = from_url(location, retry_config=AT_ONCE)
    except (BaseError, ValueError) as error:
        raise DarkroomError(f"DARKROOM_STORAGE is no image store: {first(error)}") from error
    if not of_a_cloud(store):
        raise DarkroomError(f"DARKROOM_STORAGE is no image store: {where} is somebody's web server")
    try:
        look(store)
    except (BaseError, OSError) as error:
        if (closed := _closed(error)) is not None:
            raise DarkroomError(
                f"{closed}: {where} (DARKROOM_STORAGE); {CREDENTIALS}, and docs/operations.md "
                "says what they must allow"
            ) from error


def _place(location: str) -> str:
    """The URL, which may be repeated."""
    try:
        parts = urlsplit(location)
    except ValueError:
        raise DarkroomError("DARKROOM_STORAGE is no URL that can be read") from None
    # abfss://CONTAINER@ACCOUNT.… is how Azure writes a place.
    azure = parts.scheme in ("abfs", "abfss") and parts.password is None
    if parts.query or parts.fragment or ("@" in parts.netloc and not azure):
        raise DarkroomError(f"DARKROOM_STORAGE holds more than a place; {CREDENTIALS}")
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def first(error: Exception) -> str:
    """What obstore says goes on for pages, and repeats what somebody may have put into an
    endpoint's URL."""
    return re.sub(r"://[^\s\"]*@", "://…@", str(error).partition("\n")[0])
