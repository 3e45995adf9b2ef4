"""Values of many tensors at once: noted and given back, copied and compared without a wait for each of them."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from attribution.running import torch_internals

APART = 2**24
"""Bytes of a tensor above which it is compared by itself; joined to others it would lie in memory twice more."""


class Values:
    """The values that tensors have now, to be given back later.

    Args:
        tensors: Each is noted once. Those that cannot be written (inference tensors, the meta device) are passed over.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        unique = {id(each): each for each in tensors if not (each.is_inference() or each.is_meta)}
        self._tensors = [*unique.values()]
        self._versions = [each._version for each in self._tensors]
        with torch.no_grad():
            self._before = [torch.empty_like(each) if _joins(each) else each.clone() for each in self._tensors]
            joined = [index for index, each in enumerate(self._tensors) if _joins(each)]
            write(*([side[index] for index in joined] for side in (self._before, self._tensors)))

    def give_back(self) -> None:
        """Write the values back where they changed, and nowhere else: a write is seen by the tensor's version."""
        if not self._tensors:  # as of most models that are run as copies
            return
        with torch.no_grad():
            for tensor, values in zip(self._tensors, self._before, strict=True):
                if tensor.shape != values.shape:
                    tensor.resize_(values.shape)
            changed = [t._version != version for t, version in zip(self._tensors, self._versions, strict=True)]
            unsure = [index for index, known in enumerate(changed) if not known]  # ``.data`` counts no version
            pairs = [(self._tensors[index], self._before[index]) for index in unsure]
            for index, found in zip(unsure, differ(pairs), strict=True):
                changed[index] = found
            written = [index for index, found in enumerate(changed) if found]
            write(*([side[index] for index in written] for side in (self._tensors, self._before)))


def alone(tensor: Tensor) -> bool:
    """Whether a tensor is the only one on its memory, and fills it: nobody else can read or write its values."""
    storage = tensor.untyped_storage() if tensor.layout == torch.strided else None
    return (
        storage is not None
        and storage.nbytes() == tensor.nbytes
        and torch_internals.users_of(storage) <= 2  # the tensor, and ``storage``
    )


def write(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target: one kernel for all that share a device and a dtype."""
    for target, source in zip(targets, sources, strict=True):
        if target.shape != source.shape:  # a forward has given it another size
            target.resize_(source.shape)
    for group in grouped(targets):
        if len(group) > 1:
            torch_internals.copy_together([targets[index] for index in group], [sources[index] for index in group])
        else:
            targets[group[0]].copy_(sources[group[0]])


def grouped(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Places of tensors that one kernel can take together; torch takes a mixed list one by one."""
    groups: dict[object, list[int]] = {}
    for index, each in enumerate(tensors):
        together = each.layout == torch.strided and not each.is_quantized
        groups.setdefault((each.device, each.dtype) if together else index, []).append(index)
    return [*groups.values()]


def differ(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """Whether the two tensors of each pair have other values; NaN may count as another value than NaN.

    One look for each device but the host, and a second one where something differs.

    Args:
        pairs: Of the same device and dtype.
    """
    found = [a.shape != b.shape or (not _joins(a) and not torch.equal(a, b)) for a, b in pairs]
    devices: dict[torch.device, list[int]] = {}
    for index, (a, _) in enumerate(pairs):
        if _joins(a) and a.numel() and not found[index]:
            devices.setdefault(a.device, []).append(index)
    for places in devices.values():
        small = [index for index in places if pairs[index][0].nbytes <= APART]
        flags = [_differs(*pairs[index]) for index in places if pairs[index][0].nbytes > APART]
        if small:
            flags.append((_bytes([pairs[i][0] for i in small]) != _bytes([pairs[i][1] for i in small])).any())
        if bool(torch.stack(flags).any()):
            each = torch.stack([_differs(*pairs[index]) for index in places]).tolist()
            for index, flag in zip(places, each, strict=True):
                found[index] = flag
    return found


def all_true(flags: Sequence[Tensor]) -> bool:
    """Whether all flags (0-dim) are true: one look for each device on which they lie."""
    devices = dict.fromkeys(flag.device for flag in flags)
    return all(bool(torch.stack([flag for flag in flags if flag.device == device]).all()) for device in devices)


def _joins(tensor: Tensor) -> bool:
    """Whether a look at its values is a wait, and it has plain values that can lie beside those of others."""
    return tensor.device.type != "cpu" and tensor.layout == torch.strided and not tensor.is_quantized


def _differs(a: Tensor, b: Tensor) -> Tensor:
    return (_bytes([a]) != _bytes([b])).any()


def _bytes(tensors: Sequence[Tensor]) -> Tensor:
    """What lies in memory, of whatever dtypes, end to end."""
    flat = [tensor.detach().flatten().view(torch.uint8) for tensor in tensors]
    return torch.cat(flat) if len(flat) > 1 else flat[0]
