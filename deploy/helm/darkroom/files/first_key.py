"""Ends as soon as there is an API key: the gateway that starts then would refuse to without. Its
argument says how to make one."""

import os
import signal
import sys
import time

from server.broker.accounts import locked_at

LOOK_SECONDS = 2
SAY_EACH = 30

signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a first process has no default for it
looks = 0
while locked_at(os.environ["DARKROOM_REDIS"]) is False:
    if looks % SAY_EACH == 0:
        print("There is no API key yet. To make the first one:", sys.argv[1], flush=True)
    looks += 1
    time.sleep(LOOK_SECONDS)
