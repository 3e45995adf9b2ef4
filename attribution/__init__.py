"""Shows what PyTorch vision models learn and why they predict what they predict.

>>> import torch
>>> from attribution import GradCAM, explain
>>> from attribution.testing import small_cnn
>>> model, inputs = small_cnn(), torch.rand(1, 3, 17, 23)
>>> result = explain(model, inputs, GradCAM(layers=("body",)), backend="hooks", target=3)
>>> result.map.shape
torch.Size([1, 1, 17, 23])
"""

from importlib.metadata import version

import lazy_loader

# The names of ``__init__.pyi``, imported when they are asked for: the command prints its help without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = version("torch-attribution")
