"""Checkpoints of real size on a GPU, against bars and peers. `python -m benchmarks.gpu` runs it.

Weights are random, so nothing is downloaded and nothing recognisable is drawn; arithmetic does not
take longer or shorter for that.
"""

import time

BEGAN = time.monotonic()
"""Before the libraries are imported, which takes a while that budgets count too."""
