"""Whatever tests start computes on one core, unless it is told otherwise: several processes share
this machine's, and threads of torch that outnumber its cores wait for each other."""

import os

os.environ.setdefault("DARKROOM_THREADS", "1")
