"""Whatever tests start computes on one core, unless it is told otherwise: several processes share
this machine's, and threads of torch that outnumber its cores wait for each other. And an S3 API for
those who ask for one."""

import logging
import os
import uuid
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.s3 import S3Server

os.environ.setdefault("DARKROOM_THREADS", "1")


NEEDS = ("needs CUDA",)
"""What a machine that runs everything else may lack."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that never runs holds nothing."""
    report = yield
    _told(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Nor does a file of them."""
    report = yield
    _told(report)
    return report


def _told(report: Any) -> None:
    """Where SKIP_NOTHING is set, as .ci/run does, what is missing is a failure."""
    if report.skipped and isinstance(report.longrepr, tuple) and os.environ.get("SKIP_NOTHING"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(NEEDS):
            report.outcome = "failed"
            report.longrepr = f"SKIP_NOTHING is set, and this was skipped: {reason}"


@pytest.fixture(scope="session")
def shared_s3() -> Iterator[S3Server]:
    """One for all tests that leave it running."""
    server = S3Server()
    server.start()
    yield server
    server.close()


@pytest.fixture
def bucket(shared_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty place in it, to which this process has access."""
    for name, value in shared_s3.environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    shared_s3.folder(name)
    return f"s3://{name}/some/prefix"


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """What a test configures of logs is undone: others look at theirs."""
    loggers = [logging.getLogger(name) for name in ("", "darkroom", "uvicorn.error")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)
