"""WATCH and what is read under it, in one round trip."""

import pytest
from redis.exceptions import ConnectionError, ResponseError, WatchError

from server.workers.link import connect, look


def test_what_is_read_is_read_under_the_watch(redis):
    redis.set("a", "1")
    with redis.pipeline() as pipe:
        assert look(pipe, ["a"], ("GET", "a")) == [b"1"]
        redis.set("a", "2")
        pipe.multi()
        pipe.set("b", "1")
        with pytest.raises(WatchError):
            pipe.execute()
    assert redis.get("b") is None


def test_nobody_interferes_and_what_follows_is_written(redis):
    redis.hset("hash", "field", "1")
    with redis.pipeline() as pipe:
        assert look(pipe, ["hash"], ("HGETALL", "hash"), ("GET", "a")) == [{b"field": b"1"}, None]
        pipe.multi()
        pipe.set("a", "1")
        assert pipe.execute() == [True]


def test_all_of_it_is_sent_at_once(redis, monkeypatch):
    sent = []
    with redis.pipeline() as pipe:
        pipe.connection = pipe.connection_pool.get_connection()
        send = pipe.connection.send_packed_command
        with monkeypatch.context() as patched:
            counting = lambda words: sent.append(send(words))  # noqa: E731
            patched.setattr(pipe.connection, "send_packed_command", counting)
            look(pipe, ["a", "b"], ("GET", "a"), ("GET", "b"))
        assert len(sent) == 1


def test_a_command_that_is_refused_leaves_the_others_their_replies(redis):
    redis.set("text", "1")
    with redis.pipeline() as pipe:
        wrong, right = look(pipe, ["text"], ("HGETALL", "text"), ("GET", "text"))
        assert isinstance(wrong, ResponseError)
        assert right == b"1"


def test_a_watch_that_is_refused_is_an_error_and_the_connection_goes_on(redis):
    redis.set("a", "1")
    with redis.pipeline() as pipe:
        with pytest.raises(ResponseError, match="wrong number of arguments"):
            look(pipe, [], ("GET", "a"))
        assert look(pipe, ["a"], ("GET", "a")) == [b"1"]


def test_where_the_connection_breaks_nothing_is_watched_and_another_look_succeeds(proxy):
    with connect(proxy.url) as lost:
        lost.set("a", "1")
        proxy.cut()
        with pytest.raises(ConnectionError), lost.pipeline() as pipe:
            look(pipe, ["a"], ("GET", "a"))
        assert not pipe.watching
        proxy.heal()
        with lost.pipeline() as pipe:
            assert look(pipe, ["a"], ("GET", "a")) == [b"1"]
