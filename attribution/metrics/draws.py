"""Random numbers that belong to a photo: neither the batch it is in nor the order of the work changes them."""

import numpy as np
import torch


def generator(seed: int, photo: int, what: int = 0) -> torch.Generator:
    """A generator on the host.

    Args:
        seed: Of the question.
        photo: Its place in the data set.
        what: For which use, so that two uses are independent.
    """
    state = np.random.SeedSequence([seed, photo, what]).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0] >> np.uint64(1)))
