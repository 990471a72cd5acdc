"""`make load`: a private server for two minutes, and everybody who may come to it.

What is not understood here is locust's: `python -m tests.load --users 40 --shape ramp`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from server.config import Settings
from server.errors import DarkroomError
from server.private import private_server
from server.tied import tied

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
SEVERE = {"DARKROOM_MAX_QUEUED_SECONDS": "10", "DARKROOM_ABANDONED_SECONDS": "2"}
"""So that within two minutes there are refusals, and what is abandoned is canceled."""


def main(arguments: list[str]) -> int:
    """locust's exit status: 0 where every threshold held."""
    chosen, more = asked_for(arguments)
    if importlib.util.find_spec("locust") is None:
        sys.stderr.write("locust is not installed: pip install -c constraints.txt -e '.[load]'\n")
        return 2
    os.environ.update(SEVERE | {name: os.environ[name] for name in SEVERE if name in os.environ})
    os.environ.pop("DARKROOM_KEY", None)
    say("starting a private server")
    try:
        with private_server(Settings(), "demo") as url:
            return load(url, chosen, more)
    except DarkroomError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2
    except KeyboardInterrupt:  # before there was anything to conclude
        return 130


def asked_for(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is ours of the command line, and what is locust's."""
    options = argparse.ArgumentParser(prog="make load", description=__doc__, allow_abbrev=False)
    options.add_argument("--seconds", type=int, default=120, help="how long clients come")
    options.add_argument("--users", type=int, default=24, help="clients at the same time, at most")
    shape = os.environ.get("DARKROOM_LOAD_SHAPE", "spike")
    options.add_argument("--shape", default=shape, help="ramp, spike or soak")
    return options.parse_known_args(arguments)


def load(url: str, chosen: argparse.Namespace, more: list[str]) -> int:
    """locust until it has ended; Ctrl-C reaches it too, and then it concludes."""
    say(f"{chosen.shape} of {chosen.users} users over {chosen.seconds} s")
    words = command(url, chosen, more)
    process = subprocess.Popen(tied(*words), stdin=subprocess.DEVNULL)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def say(line: str) -> None:
    """To whoever looks."""
    print(line, flush=True)  # noqa: T201


def command(url: str, chosen: argparse.Namespace, more: list[str]) -> list[str]:
    """locust, without its own tables while it runs."""
    return [
        *(sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE), "--host", url),
        *("--headless", "--only-summary", "--loglevel", "WARNING"),
        *("--users", str(chosen.users), "--run-time", f"{chosen.seconds}s"),
        *("--shape", chosen.shape, *more),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
