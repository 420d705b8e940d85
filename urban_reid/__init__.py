"""The composition root: the command line and `up`."""

import time

#: When this program's first line ran, in seconds of time.perf_counter.
STARTED_S = time.perf_counter()
