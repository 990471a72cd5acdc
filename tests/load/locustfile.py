"""The population as locust's users, and its time in three shapes.

    locust -f tests/load/locustfile.py --headless --host http://127.0.0.1:8000

Everything that knows locust, and with it gevent, is here; what users do is in the modules beside.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import gevent
import httpx
from locust import LoadTestShape, User, between, events, tag, task
from locust.runners import LocalRunner

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.load import a1111_door, native_door, openai_door, options, shapes
from tests.load.book import Book
from tests.load.population import DOORS, KINDS, Door, Kind, Terms, an_order
from tests.load.thresholds import report
from tests.load.visitor import Failed, Refused, Visitor
from tests.load.visits import Visit, accomplish

USERS, SECONDS = 24, 120
STOP_SECONDS = 300.0
"""How long users may take to finish what they have begun."""
SETTLE_SECONDS = 30.0
TELL_SECONDS = 10.0
WRONG = 2
"""The exit status of a run that did not begin."""


class Run:
    """What the users of this process share."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._said = environment.parsed_options
        self.closing = False
        self.book = Book(self._report)
        with_server = self.visitor()
        self.terms: Terms = with_server.terms(self._said.checkpoint)
        self._since = with_server.clock() - 1
        with_server.close()

    def _report(self, door: str, name: str, seconds: float, failure: str) -> None:
        self._environment.events.request.fire(
            request_type=door,
            name=name,
            response_time=1000 * seconds,
            response_length=0,
            exception=Failed(failure) if failure else None,
            context={},
        )

    def visitor(self) -> Visitor:
        """One more client."""
        return Visitor(
            self._environment.host,
            self.book,
            key=self._said.key,
            closing=lambda: self.closing,
            left_seconds=self._said.max_abandoned,
        )

    def left(self) -> list[str]:
        """What is still queued or running, after it had time to settle."""
        visitor, until = self.visitor(), time.monotonic() + SETTLE_SECONDS
        while (left := visitor.living(self._since)) and time.monotonic() < until:
            time.sleep(1)
        visitor.close()
        return left

    def conclude(self) -> str:
        """The report; the exit status is 1 where a threshold was missed."""
        figures = options.thresholds(self._said).figures(self.book, self.left())
        missed = not all(figure.met for figure in figures)
        self._environment.process_exit_code = int(missed)
        return report(self.book, figures)

    def tell(self) -> None:
        """How it goes, now and then."""
        began, book = time.monotonic(), self.book
        while not self.closing:
            gevent.sleep(TELL_SECONDS)
            count = self._environment.runner.user_count
            say(
                f"{time.monotonic() - began:4.0f} s, {count:3} users: {book.visits} visits, "
                f"{book.refusals} refusals, {sum(book.failures.values())} failures"
            )


class Client(User):
    """Whoever comes again and again through one door."""

    abstract = True
    wait_time = between(0.2, 1.5)
    door: ClassVar[Door]
    talks: ClassVar[dict[Kind, Callable[[Visit], int]]]

    def on_start(self) -> None:
        """Each user is a client of their own."""
        self.run_of = self.environment.darkroom
        self.visitor = self.run_of.visitor()

    def on_stop(self) -> None:
        """Let go of the connection."""
        self.visitor.close()

    def visit(self, kind: Kind) -> None:
        """Once."""
        order = an_order(kind, self.run_of.terms, random.Random())
        accomplish(Visit(self.visitor, self.door, kind, order), self.talks[kind])

    @tag("short")
    @task(KINDS[Kind.SHORT])
    def short(self) -> None:
        """A few steps."""
        self.visit(Kind.SHORT)

    @tag("long")
    @task(KINDS[Kind.LONG])
    def long(self) -> None:
        """Many steps, perhaps of several pictures."""
        self.visit(Kind.LONG)

    @tag("canceled")
    @task(KINDS[Kind.CANCELED])
    def canceled(self) -> None:
        """Something long, which is canceled soon."""
        self.visit(Kind.CANCELED)

    @tag("abandoned")
    @task(KINDS[Kind.ABANDONED])
    def abandoned(self) -> None:
        """Something long, before the end of which the connection is dropped."""
        self.visit(Kind.ABANDONED)


def talks(door: Any) -> dict[Kind, Callable[[Visit], int]]:
    """What clients of a door do."""
    return {
        Kind.SHORT: door.draw,
        Kind.LONG: door.draw,
        Kind.CANCELED: door.cancel,
        Kind.ABANDONED: door.abandon,
    }


class Native(Client):
    """Of the native API."""

    door, talks, weight = Door.NATIVE, talks(native_door), DOORS[Door.NATIVE]


class OpenAI(Client):
    """Of the OpenAI door."""

    door, talks, weight = Door.OPENAI, talks(openai_door), DOORS[Door.OPENAI]


class A1111(Client):
    """Of the A1111 door."""

    door, talks, weight = Door.A1111, talks(a1111_door), DOORS[Door.A1111]


class Shape(LoadTestShape):
    """`--users` at most, over `--run-time`."""

    abstract = True
    use_common_options = True
    share: ClassVar[shapes.Shape]

    def tick(self) -> tuple[int, float] | None:
        """Users there now, and how quickly they come."""
        said = self.runner.environment.parsed_options
        count = shapes.users(
            type(self).share, said.num_users, self.get_run_time(), said.run_time or SECONDS
        )
        return None if count is None else (count, said.num_users)


class Ramp(Shape):
    """Ever more."""

    share = staticmethod(shapes.ramp)


class Spike(Shape):
    """Suddenly all, and then few again."""

    share = staticmethod(shapes.spike)


class Soak(Shape):
    """All, for as long as it takes."""

    share = staticmethod(shapes.soak)


logging.getLogger("httpx").setLevel(logging.WARNING)

CLASSES = {"ramp": Ramp, "spike": Spike, "soak": Soak}


def say(line: str) -> None:
    """To whoever looks at the run."""
    print(line, flush=True)  # noqa: T201


events.init_command_line_parser.add_listener(options.add)


@events.init.add_listener
def prepare(environment: Any, runner: Any, **_: Any) -> None:
    """Defaults; one process only, since all clients write in one book."""
    if not isinstance(runner, LocalRunner):
        say("this locustfile runs in one process: without --processes, --master and --worker")
        sys.exit(WRONG)
    said = environment.parsed_options
    said.num_users = said.num_users or USERS
    said.run_time = said.run_time or SECONDS
    environment.stop_timeout = environment.stop_timeout or STOP_SECONDS
    chosen = CLASSES[said.shape].__name__
    environment.shape_class = environment.available_shape_classes[chosen]
    environment.shape_class.runner = runner


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """With an empty book, at a server that answers."""
    try:
        environment.darkroom = Run(environment)
    except (Failed, Refused, httpx.HTTPError) as error:
        say(f"{environment.host} cannot be loaded: {error}")
        environment.process_exit_code = WRONG
        environment.runner.quit()
        return
    gevent.spawn(environment.darkroom.tell)


@events.test_stopping.add_listener
def close(environment: Any, **_: Any) -> None:
    """Who was told to come back later need not."""
    if run := getattr(environment, "darkroom", None):
        run.closing = True


@events.test_stop.add_listener
def conclude(environment: Any, **_: Any) -> None:
    """The last word."""
    if run := getattr(environment, "darkroom", None):
        environment.darkroom_said = run.conclude()
        if environment.web_ui:
            say(environment.darkroom_said)


@events.init.add_listener
def speak_last(environment: Any, **_: Any) -> None:
    """After locust's own tables."""

    @environment.events.quit.add_listener
    def speak(**_: Any) -> None:
        if not environment.web_ui:
            say(getattr(environment, "darkroom_said", ""))
