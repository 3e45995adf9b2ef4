"""One thread beside the one that computes."""

from concurrent.futures import ThreadPoolExecutor

import torch


def thread(name: str) -> ThreadPoolExecutor:
    """A thread in which torch uses one processor, as in a process that reads; the caller's threads are as before.

    torch keeps the number of OpenMP's threads for each thread, once a thread has asked for it, and hands what was set
    last to threads that have not.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(1, thread_name_prefix=name)
    try:
        pool.submit(_alone).result()
    except BaseException:
        pool.shutdown(wait=False)
        raise
    finally:
        torch.set_num_threads(threads)
    return pool


def _alone() -> None:
    torch.get_num_threads()
    torch.set_num_threads(1)
