"""``Lent``: the user's own tensors, which a call reads in place of a copy."""

import torch
from torch import Tensor

from attribution.errors import InputError
from attribution.inputs.inputs import Inputs


class Lent:
    """Explained tensors of the user's, where torch counts writes into them; else copies, as of all that lies beside.

    Who reads them must not write into them. A write by others, such as a model that knows them from elsewhere, or
    another thread, is not prevented, and is found by `check`.

    Args:
        given: The user's inputs, checked.

    Attributes:
        inputs: The same values, without graph.
    """

    def __init__(self, given: Inputs) -> None:
        read = {name: given.values[name] for name in given.explained if _counts(given.values[name])}
        self._versions = {name: (tensor, tensor._version) for name, tensor in read.items()}
        beside = given if len(read) == len(given.values) else given.detach().clone(but=read)
        self.inputs = beside.replaced({name: tensor.detach() for name, tensor in read.items()})

    def check(self) -> None:
        """Nobody has written into them since.

        Raises:
            InputError: Somebody has, so that what was read of them may be of either time.
        """
        for name, (tensor, version) in self._versions.items():
            if tensor._version != version:
                raise InputError(
                    f"{name!r} was written into while it was explained, by the model or by another thread; give a copy "
                    "that nobody else has: inputs.clone()"
                )


def _counts(tensor: Tensor) -> bool:
    """Whether torch counts writes into a tensor, and a copy of it would lie in memory as it does.

    Memory that is shared with numpy, which cannot be resized, or with another process is written into without a count.
    """
    if type(tensor) is not Tensor or tensor.is_inference() or tensor.is_neg() or tensor.is_conj():
        return False
    dense = tensor.is_contiguous() or (tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last))
    shared = tensor.device.type == "cpu" and tensor.is_shared()  # elsewhere all are
    return dense and not shared and tensor.untyped_storage().resizable()
