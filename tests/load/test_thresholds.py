from __future__ import annotations

import pytest

from tests.load.book import Book, percentile
from tests.load.population import Door, Kind
from tests.load.thresholds import Thresholds, by_chance, report


def a_book() -> Book:
    """Of a run in which all was well, with a refusal that was kept to."""
    book = Book()
    for door in Door:
        for kind in Kind:
            book.ended(door, kind, 1.5, pictures=2)
    for _ in range(20):
        book.accepted(Door.NATIVE, 0.02)
        book.predicted(2.0, 2.5)
    book.refused(Door.OPENAI, Kind.LONG, 0.01)
    book.returned(refused=False)
    return book


def said(book: Book, left: tuple[str, ...] = (), **most: float) -> str:
    return report(book, Thresholds(**most).figures(book, left))


def missed(book: Book, left: tuple[str, ...] = (), **most: float) -> list[str]:
    return [line for line in said(book, left, **most).splitlines() if line.startswith("MISSED")]


def test_all_is_well() -> None:
    assert missed(a_book()) == []
    assert said(a_book()).endswith("All thresholds met")


def test_a_refusal_is_counted_apart_and_is_no_failure() -> None:
    book = a_book()
    assert (book.refusals, book.visits, book.failure_percent) == (1, 12, 0.0)


def test_a_run_in_which_nobody_was_served_has_failed() -> None:
    [line] = missed(Book())
    assert line == ("MISSED: visits that did not end as they should: 100 %, at most 0 % is allowed")
    assert "nobody was served at all" in said(Book())


def test_a_failure_is_missed_and_says_why() -> None:
    book = a_book()
    book.failed(Door.A1111, Kind.SHORT, 1.0, "a picture is (64, 64) and not (128, 128)")
    assert len(missed(book)) == 1
    assert missed(book, failures=10.0) == []
    assert "1 x a1111, short: a picture is (64, 64) and not (128, 128)" in said(book)


def test_being_let_in_late_is_missed() -> None:
    book = a_book()
    for _ in range(2):
        book.accepted(Door.NATIVE, 3.0)
    assert missed(book) == ["MISSED: time to be let in, p95: 3e+03 ms, at most 500 ms is allowed"]
    assert missed(book, accept=4.0) == []


def test_a_promise_that_is_not_kept_is_missed() -> None:
    book = a_book()
    for refused in [True] * 10 + [False] * 10:
        book.returned(refused=refused)
    assert missed(book) == [
        "MISSED: clients who came back as told and were refused again: 10, at most 3 is allowed"
    ]
    assert missed(book, broken=50.0) == []


@pytest.mark.parametrize(
    ("share", "count", "most"),
    [
        (0.05, 0, 0),
        (0.05, 1, 0),
        (0.05, 18, 3),
        (0.05, 1000, 62),
        (0.05, 100_000, 5114),
        (0.0, 50, 0),
        (1.0, 50, 50),
    ],
)
def test_of_few_more_may_be_chance_than_of_many(share: float, count: int, most: int) -> None:
    assert by_chance(share, count) == most


def test_a_prediction_that_is_not_kept_is_missed() -> None:
    book = a_book()
    for _ in range(5):
        book.predicted(1.0, 4.0)
    [line] = missed(book)
    assert line.startswith("MISSED: time taken over time predicted, p95: 4 x")


def test_what_is_left_is_missed_and_named() -> None:
    assert len(missed(a_book(), ("gen_1 is running",))) == 1
    assert "gen_1 is running" in said(a_book(), ("gen_1 is running",))


def test_each_kind_at_each_door_has_its_line() -> None:
    lines = said(a_book()).splitlines()
    for door in Door:
        for kind in Kind:
            [line] = [line for line in lines if line.split()[:2] == [door, kind]]
            ended, failed, refused, pictures, p50, _ = line.split()[2:]
            assert (ended, failed, pictures, p50) == ("1", "0", "2", "1.50")
            assert refused == str(int((door, kind) == (Door.OPENAI, Kind.LONG)))


def test_everything_is_reported_as_it_happens() -> None:
    told: list[tuple[str, str, float, str]] = []
    book = Book(lambda *happening: told.append(happening))
    book.accepted(Door.NATIVE, 0.1)
    book.refused(Door.NATIVE, Kind.SHORT, 0.2)
    book.ended(Door.OPENAI, Kind.LONG, 0.3, 1)
    book.failed(Door.A1111, Kind.CANCELED, 0.4, "it was drawn")
    assert told == [
        ("native", "accept", 0.1, ""),
        ("native", "refused", 0.2, ""),
        ("openai", "long", 0.3, ""),
        ("a1111", "canceled", 0.4, "it was drawn"),
    ]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 95, 0.0), ([3.0], 95, 3.0), ([2.0, 1.0, 4.0, 3.0], 50, 3.0), (list(range(100)), 95, 95)],
)
def test_percentiles_are_values_that_were_measured(
    values: list[float], percent: float, expected: float
) -> None:
    assert percentile(values, percent) == expected
