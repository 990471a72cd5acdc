"""What is said of a Redis that lets nobody in; the rest is in `tests/system/test_acl.py`."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    NoPermissionError,
)

from server.broker.entrance import entered, refusal
from server.errors import DarkroomError

SECRET = "p%40ss"
HOST = f"redis://shop:{SECRET}@10.0.0.5:6379/0"
SOCKET = f"unix://shop:{SECRET}@/run/redis.sock?db=1"
NOPERM = NoPermissionError("this user has no permissions to run the 'hsetnx' command")
WRONGPASS = AuthenticationError("invalid username-password pair or user is disabled.")


@pytest.mark.parametrize(("url", "where"), [(HOST, "10.0.0.5:6379"), (SOCKET, "/run/redis.sock")])
@pytest.mark.parametrize("error", [NOPERM, WRONGPASS])
def test_it_names_the_place_and_the_user_and_no_password(
    url: str, where: str, error: Exception
) -> None:
    said = refusal(error, url)
    assert said is not None
    assert f"Redis at {where} does not " in said
    assert "'shop'" in said
    assert "DARKROOM_REDIS" in said
    assert SECRET not in said
    assert "p@ss" not in said


def test_who_gives_no_password_is_told_how() -> None:
    said = refusal(AuthenticationError("Authentication required."), "redis://10.0.0.5")
    assert said is not None
    assert "redis://USER:PASSWORD@HOST" in said


@pytest.mark.parametrize("error", [ConnectionError("refused"), BusyLoadingError("loading")])
def test_one_that_is_only_away_is_no_matter_of_passwords(error: Exception) -> None:
    assert refusal(error, HOST) is None


@pytest.mark.parametrize("password", ["pa/ss", "pa#ss", "pa?ss"])
def test_a_url_that_cannot_be_read_is_not_repeated(password: str) -> None:
    with pytest.raises(DarkroomError, match="as %XX") as refused:
        entered(f"redis://shop:{password}@10.0.0.5:6379/0", lambda client: client.ping())
    assert "pa" not in refused.value.message.replace("password", "")
