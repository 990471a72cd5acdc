"""What a worker holds, and what it may still hear of."""

from server.workers.holdings import Holdings
from tests.builders import a_claim


def test_a_claim_whose_end_is_being_written_has_ended():
    holdings, claim = Holdings(), a_claim()
    assert not holdings.unended(claim)
    holdings.take(claim, alone=False)
    assert holdings.unended(claim)
    assert holdings.end(claim)
    assert not holdings.unended(claim)
    assert not holdings.end(claim)
    assert (holdings.claims(), holdings.unfinished()) == ([claim], [])
    assert holdings.let_go(claim)
    assert not holdings.let_go(claim)
    assert len(holdings) == 0


def test_another_execution_of_the_same_generation_is_another_claim():
    holdings, lost, again = Holdings(), a_claim(), a_claim()
    assert lost.id == again.id
    holdings.take(lost, alone=True)
    holdings.take(again, alone=False)
    assert holdings.executions() == {lost.execution, again.execution}
    assert holdings.let_go(lost)
    assert holdings.unended(again)
    assert not holdings.exclusive()
