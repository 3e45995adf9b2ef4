"""Threads beside the one that computes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def threads(name: str, count: int = 1) -> ThreadPoolExecutor:
    """Threads in each of which torch uses one processor, as in a process that reads; the caller's are as before.

    torch keeps the number of OpenMP's threads for each thread, once a thread has asked for it, and hands what was set
    last to threads that have not.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    all_there = threading.Barrier(count)  # else one thread might begin for several
    try:
        for begun in [pool.submit(_alone, all_there) for _ in range(count)]:
            begun.result()
    except BaseException:
        all_there.abort()
        pool.shutdown(wait=False)
        raise
    finally:
        torch.set_num_threads(before)
    return pool


def _alone(all_there: threading.Barrier) -> None:
    torch.get_num_threads()
    torch.set_num_threads(1)
    all_there.wait()
