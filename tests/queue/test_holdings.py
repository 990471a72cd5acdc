"""What a worker holds, and which verdicts are news."""

from server.workers.holdings import Holdings
from server.workers.leases import Verdict
from tests.builders import a_claim


def test_a_cancel_is_news_once():
    holdings, claim = Holdings(), a_claim()
    holdings.take(claim, alone=False)
    assert not holdings.heed(claim, Verdict.HELD)
    assert [holdings.heed(claim, Verdict.CANCELED) for _ in range(2)] == [True, False]
    assert holdings.heed(claim, Verdict.LOST)


def test_a_claim_whose_end_is_being_written_is_not_lost():
    holdings, claim = Holdings(), a_claim()
    holdings.take(claim, alone=False)
    assert holdings.end(claim)
    assert not holdings.heed(claim, Verdict.LOST)
    assert not holdings.end(claim)
    assert (holdings.claims(), holdings.unfinished()) == ([claim], [])
    assert holdings.let_go(claim)
    assert not holdings.let_go(claim)
    assert len(holdings) == 0


def test_another_execution_of_the_same_generation_is_another_claim():
    holdings, claim = Holdings(), a_claim()
    holdings.take(claim, alone=True)
    later = type(claim)(claim.id, "e2", claim.spec, claim.created_at, claim.started_at)
    holdings.take(later, alone=False)
    assert not holdings.end(claim)
    assert not holdings.let_go(claim)
    assert holdings.executions() == {"e2"}
    assert not holdings.exclusive()
