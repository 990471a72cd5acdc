from collections.abc import Iterator

import pytest
from redis import Redis

from server.workers.link import connect
from tests.queue.crew import Crew, Desk
from tests.queue.faults import Proxy
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """A running, empty Redis."""
    with Redis.from_url(shared_server.url) as client:
        client.flushall()
    return shared_server


@pytest.fixture
def mortal_server() -> Iterator[RedisServer]:
    """A Redis of the test's own, to be killed."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis(server: RedisServer) -> Iterator[Redis]:
    with connect(server.url) as client:
        yield client


@pytest.fixture
def desk(redis: Redis) -> Desk:
    return Desk(redis)


@pytest.fixture
def crew(server: RedisServer) -> Iterator[Crew]:
    crew = Crew(server.url)
    yield crew
    crew.home()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """A way to Redis on which replies can get lost."""
    proxy = Proxy(server.socket)
    yield proxy
    proxy.close()
