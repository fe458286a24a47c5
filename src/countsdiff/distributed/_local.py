from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

# Dask has its workers return freed memory at once, 64 KiB by 64 KiB. Networks free and allocate megabytes at every
# layer, and workers took two and a half times as long
_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_MMAP_THRESHOLD_": 2**25}


def local_client(n_workers: int) -> "Client":
    """Start Dask workers on the cores of this machine, for :func:`impute`.

    Unlike those that ``Client(n_workers=…)`` starts, they keep freed memory, up to 1 GiB each, for what comes next
    (on Linux): imputation is 2.5 times as fast (benchmarks/results/speed/scale.md).

    In a script call it below ``if __name__ == "__main__":``: the processes that it starts read the script, too.

    Parameters
    ----------
    n_workers
        Number of processes, with one thread each.

    Returns
    -------
    distributed.Client
        Client of the cluster; a context manager, at whose end the workers end, too.

    Raises
    ------
    ImportError
        If Dask is not installed (the extra ``distributed``).
    """
    import dask
    from distributed import Client

    environment = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in _ALLOCATOR.items()}
    with dask.config.set(environment):
        return Client(n_workers=n_workers, threads_per_worker=1, dashboard_address=None)
