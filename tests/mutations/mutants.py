"""What holds the queue together, each part taken out by itself: the suite must notice.

A mutant is one replacement in a copy of the code. If its text is no longer there, it must be
written anew: a check that checks nothing is worse than none.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
RACES = ("tests/queue/test_ledger.py",)
MODEL = ("tests/queue/test_model.py",)
LONGEST_SECONDS = 170
FAILED = re.compile(r"^(?:FAILED|ERROR) \S+?::(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is taken out, and who must notice."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = RACES


MUTANTS = (
    Mutant(
        "the ledger's WATCH",
        "workers/entry.py",
        "(*names, *also_watched),",
        '("nothing",),',
    ),
    Mutant(
        "the WATCH of the lease in a rescue",
        "workers/ledger.py",
        "self._rescue(entry, execution), lease)",
        "self._rescue(entry, execution))",
    ),
    Mutant(
        "what a claim says of the worker's hands",
        "workers/ledger.py",
        "self._books.tell(entry, self._load(found.stage))",
        "pass",
    ),
    Mutant(
        "what an end says of the worker's hands",
        "workers/ledger.py",
        "self._books.tell(entry, self._load(None))",
        "pass",
    ),
    Mutant(
        "the token check",
        "workers/entry.py",
        'if self.raw and self.raw.get(keys.HOLDER.encode(), b"") != token:',
        "if False:",
    ),
    Mutant(
        "the lease test of a rescue",
        "workers/ledger.py",
        "if entry.pipe.exists(keys.lease(execution)):",
        "if False:",
    ),
    Mutant(
        "the standing check of a finish",
        "workers/ledger.py",
        "if standing is Standing.LOST:",
        "if False:",
    ),
    Mutant(
        "that what is over is not ended again",
        "workers/ledger.py",
        "if standing is Standing.OVER:  # the reply to our EXEC was lost",
        "if False:",
    ),
    Mutant(
        "that a claim whose reply was lost is known again",
        "workers/ledger.py",
        "if offered and entry.standing(offered.claim.execution) is Standing.HELD:",
        "if False:",
    ),
    Mutant(
        "that only what is in the intermediate list is lifted",
        "workers/ledger.py",
        "if not entry.popped:",
        "if False:",
        (*RACES, *MODEL),
    ),
    Mutant(
        "that leftovers are told from what waits",
        "workers/ledger.py",
        "waiting = bool(entry.raw) and entry.status not in NOT_WAITING and not entry.elsewhere",
        "waiting = True",
    ),
    Mutant(
        "that a death is charged",
        "workers/ledger.py",
        "self._books.charge(entry)",
        "pass",
    ),
    Mutant(
        "that a zombie may not renew",
        "workers/leases.py",
        "if held[1] and held[2] ~= execution or held[1] ~= 'started' and not withdrawn then",
        "if false then",
    ),
    Mutant(
        "that only what is postponed is brought forward",
        "workers/ledger.py",
        "if waits and entry.status == JobStatus.SCHEDULED.value:",
        "if True:",
        (*RACES, *MODEL),
    ),
    Mutant(
        "that a stage to be tried again keeps what it starts from",
        "workers/ledger.py",
        "entry.leftovers.clear()  # it starts from them again",
        "pass",
        (
            "tests/queue/test_chains.py::test_a_stage_that_is_tried_again_after_a_fault_still_has_what_it_starts_from",
        ),
    ),
    Mutant(
        "that a canceled chain is not handed on",
        "workers/ledger.py",
        "or (isinstance(result, Handed) and entry.unwanted):",
        "or False:",
        ("tests/queue/test_chains.py",),
    ),
    Mutant(
        "the WATCH of a cancel",
        "broker/control.py",
        "pipe.watch(keys.generation(id), Job.key_for(id))",
        'pipe.watch("nothing")',
    ),
    Mutant(
        "that a cancel leaves the line",
        "broker/control.py",
        "line.leave(pipe, keys.line(queue.name), job.id)",
        "pass",
    ),
    Mutant(
        "that a cancel leaves RQ's scheduled jobs",
        "broker/control.py",
        "queue.scheduled_job_registry.remove(job, pipeline=pipe)",
        "pass",
        ("tests/queue/test_retries.py::test_it_can_be_canceled_while_it_waits",),
    ),
    Mutant(
        "that what has ended lives no more",
        "broker/delivery.py",
        "pipe.srem(keys.living(owner), id)",
        "pass",
    ),
    Mutant(
        "that what is being claimed keeps its place in line",
        "broker/line.py",
        "elseif redis.call('LPOS', intermediate, id) then",
        "elseif false then",
        ("tests/queue/test_line.py",),
    ),
    Mutant(
        "that of what was taken over the oldest is first",
        "broker/line.py",
        "(waits or other < id) do",
        "waits do",
        ("tests/queue/test_takeover_order.py",),
    ),
    Mutant(
        "the idempotency of a submit",
        "broker/submit.py",
        "if ARGV[6] ~= '' then\n  local known",
        "if false then\n  local known",
        ("tests/api/test_repeats.py",),
    ),
    Mutant(
        "that an id is accepted once",
        "broker/submit.py",
        "if redis.call('EXISTS', KEYS[1]) == 1 then return {'accepted', ARGV[1]} end",
        "",
        ("tests/api/test_broker.py::test_an_id_made_before_is_kept_and_accepted_once",),
    ),
    Mutant(
        "that owners have time to renew after an outage",
        "workers/takeover.py",
        "if time.monotonic() >= self._patient_until:",
        "if True:",
        ("tests/queue/test_outages.py",),
    ),
    Mutant(
        "that a worker never repeats a command",
        "workers/link.py",
        "Retry(NoBackoff(), 0)",
        "Retry(NoBackoff(), 3)",
        ("tests/queue/test_outages.py::test_a_workers_connection_never_repeats_a_command",),
    ),
)


@dataclass(frozen=True, slots=True)
class Fate:
    """Of a mutant; `killer` is the test that failed first, empty where it has survived."""

    mutant: Mutant
    killer: str
    seconds: float
    said: str


def fate(mutant: Mutant, folder: Path) -> Fate:
    """Let the tests run against it, in this copy of the code."""
    began = time.monotonic()
    with _taken_out(mutant, folder / "server" / mutant.file):
        done = tested(folder, mutant.tests)
    found = FAILED.search(done.stdout)
    return Fate(mutant, found[1] if found else "", time.monotonic() - began, done.stdout)


def tested(folder: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """As in the suite, up to the first failure."""
    options = ["-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


def copied(folder: Path) -> None:
    """The code and its tests, without weights."""
    for part in ("server", "tests"):
        weights = shutil.ignore_patterns("*.safetensors", "__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=weights)
    shutil.copy(ROOT / "pyproject.toml", folder)


@contextmanager
def _taken_out(mutant: Mutant, file: Path) -> Iterator[None]:
    whole = file.read_text()
    file.write_text(without(mutant, whole))
    try:
        yield
    finally:
        file.write_text(whole)


def without(mutant: Mutant, whole: str) -> str:
    """The text of its file, with the mutation.

    Raises:
        ValueError: what it takes out is not there, or more than once.
    """
    if whole.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} has {mutant.old!r} {whole.count(mutant.old)} times")
    return whole.replace(mutant.old, mutant.new)
