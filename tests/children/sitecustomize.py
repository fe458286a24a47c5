"""Read by Python itself in every process that tests start: what they import need not be searched for garbage."""

import atexit
import gc

gc.set_threshold(50_000, 20, 20)
atexit.register(gc.freeze)
