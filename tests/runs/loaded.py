"""The text of a file with a small model, for the command line."""

MODEL = """
import numpy as np
import torch

from attribution.testing import small_cnn
from attribution.zoo import LoadedModel


def transform(photo):
    return torch.from_numpy(np.array(photo, dtype=np.float32) / 255).movedim(-1, 0).contiguous()


def make():
    zero, one = (0.0,) * 3, (1.0,) * 3
    return LoadedModel(name="", model=small_cnn(), transform=transform, mean=zero, std=one, labels=None)
"""
