import pytest
from pydantic import ValidationError

from server.config import Settings
from server.options import misspelled


@pytest.mark.parametrize("times", [{"beat_seconds": 1.5}, {"lease_seconds": 0.5}])
def test_beats_too_slow_for_a_lease_are_refused_in_words(times):
    with pytest.raises(ValidationError, match="at most a third of lease_seconds") as refused:
        Settings(**times)
    assert refused.value.errors()[0]["loc"] == ("beat_seconds",)


def test_a_beat_of_a_third_of_a_lease_is_enough():
    assert Settings(beat_seconds=0.5, lease_seconds=1.5).beat_seconds == 0.5


GOOD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.mark.parametrize("secret", ["planted", "whsec_planted", "whsec_cGxhbnRlZA==", GOOD[6:]])
def test_a_secret_that_cannot_sign_is_refused_without_being_repeated(secret):
    with pytest.raises(ValidationError) as refused:
        Settings(webhook_secret=f"{GOOD} {secret}")
    message = refused.value.errors()[0]["msg"]
    assert "24 to 64 bytes" in message
    assert secret not in message
    assert GOOD not in repr(Settings(webhook_secret=GOOD))


@pytest.mark.parametrize("secret", [None, "", " "])
def test_an_empty_secret_is_none(secret):
    assert Settings(webhook_secret=secret).webhook_secret is None


@pytest.mark.parametrize("allow", ["10.0.0.0/99", "10.0.0.1/8", "http://shop.example", "a,b"])
def test_a_place_that_cannot_be_told_is_refused(allow):
    with pytest.raises(ValidationError):
        Settings(webhook_allow=f"fd00::/8 10.0.0.1 host-1.example {allow}")
    assert Settings(webhook_allow="fd00::/8 ::1 10.0.0.1 host-1.example").webhook_allow


@pytest.mark.parametrize("url", ["http://:secret@x", "127.0.0.1:6379", "/run/redis.sock"])
def test_a_redis_that_cannot_be_named_so_is_refused_without_being_repeated(url):
    with pytest.raises(ValidationError) as refused:
        Settings(redis=url)
    [error] = refused.value.errors()
    assert (error["loc"], "redis://" in error["msg"]) == (("redis",), True)
    assert "secret" not in error["msg"]


def test_a_variable_that_is_no_setting_is_named_with_what_may_have_been_meant():
    words = "LEASE_SECOND LEASE_SECONDS KEY METRIC_PORT ZZ GATEWAY_SERVICE_HOST GATEWAY_PORT_80_TCP"
    said = {f"DARKROOM_{word}": "1" for word in words.split()}
    service = {"PATH": "/bin", "DARKROOM_GATEWAY_PORT": "tcp://10.0.0.1:80"}
    assert list(misspelled(said | service)) == [
        "DARKROOM_LEASE_SECOND is no setting; is it DARKROOM_LEASE_SECONDS?",
        "DARKROOM_METRIC_PORT is no setting; is it DARKROOM_METRICS_PORT?",
        "DARKROOM_ZZ is no setting",
    ]


@pytest.mark.parametrize("name", ["host", "metrics_host"])
def test_an_empty_address_is_not_every_address(name, monkeypatch):
    monkeypatch.setenv(f"DARKROOM_{name.upper()}", "")
    with pytest.raises(ValidationError, match=name):
        Settings()
