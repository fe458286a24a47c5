"""Imputation of data that do not fit into memory: in chunks of cells, by one process or by many machines.

Every chunk is answered on its own, and its answer goes to a file; in the end the files are put together. The result is
therefore the same whoever answers, to the last bit; what a dead worker had begun another one does; and what was done
before everything was killed is not done again.
"""

from countsdiff.distributed._impute import impute
from countsdiff.distributed._local import local_client

__all__ = ["impute", "local_client"]
