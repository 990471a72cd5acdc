import io
import json
import logging
import time
from datetime import UTC, datetime, timedelta

import pytest

from server import log


@pytest.fixture
def root():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def elsewhere(monkeypatch):
    """Where it is another hour than in Greenwich."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_json_line_is_one_event_with_the_generation_id(root, elsewhere):
    out = io.StringIO()
    log.configure("json", "info", out)
    logging.getLogger("darkroom.test").info("two\nlines", extra={"generation": "gen_1"})
    [line] = out.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "two\nlines"
    assert entry["generation"] == "gen_1"
    said = datetime.fromisoformat(entry["time"])
    assert said.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - said) < timedelta(minutes=1)


def test_nobodys_input_can_forge_a_console_line(root):
    out = io.StringIO()
    log.configure("console", "info", out)
    logging.getLogger("darkroom.test").info("x\n00:00:00 ERROR forged\x1b[31m")
    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b" not in out.getvalue()


def test_nobodys_id_can_forge_a_console_line(root):
    out = io.StringIO()
    log.configure("console", "info", out)
    logging.getLogger("darkroom.test").info("x", extra={"generation": "x\nforged\x1b[31m"})
    [line] = out.getvalue().splitlines()
    assert line.endswith(r"x [x\nforged\x1b[31m]")


def test_a_console_line_ends_with_the_ids_that_it_is_about(root):
    out = io.StringIO()
    log.configure("console", "info", out)
    about = {"account": "4f1c9f0e81aa"}
    logging.getLogger("darkroom.test").info("one", extra=about | {"generation": "gen_1"})
    logging.getLogger("darkroom.test").info("two", extra=about)
    one, two = out.getvalue().splitlines()
    assert one.endswith("one [gen_1] [4f1c9f0e81aa]")
    assert two.endswith("two [4f1c9f0e81aa]")


def test_a_traceback_is_kept(root):
    out = io.StringIO()
    log.configure("console", "info", out)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("darkroom.test").exception("it failed")
    assert "ValueError: why" in out.getvalue()
