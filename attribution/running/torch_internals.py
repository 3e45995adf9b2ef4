"""Names of torch that have no public form. Each stands here once; a test says what is expected of it.

``Tensor._version`` and ``Module._modules`` are older than most public names, and are used where they are needed.
"""

import torch
from torch import Tensor

set_gradients = torch._C._set_grad_enabled
"""Turn gradients on or off at once; the public form is a block too, and notes what was before."""

InferenceMode = torch._C._InferenceMode
"""The block behind ``torch.inference_mode``; the public form cannot be entered and left in two functions."""

transforms = torch._C._functorch.get_dynamic_layer_stack_depth
"""How many transforms of ``torch.func`` are open in this thread."""

leave_transforms = torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth
"""Close those above a depth."""

function_modes = torch._C._len_torch_function_stack
"""How many modes that see torch's functions are on in this thread."""

function_mode_at = torch._C._get_function_stack_at
"""One of them, the latest last."""

enter_function_mode = torch._C._push_on_torch_function_stack
"""Put one on."""

leave_function_mode = torch._C._pop_torch_function_stack
"""Take the latest one off."""

has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
"""Whether an operation (``"aten::relu"``) has a kernel for a dispatch key."""

simulated_device = torch._C._get_privateuse1_backend_name
"""The type of devices that an extension brings; ``"privateuseone"`` where it has no name."""

copy_together = torch._foreach_copy_
"""Copy each of a list of tensors into its target by one kernel."""

norms_together = torch._foreach_norm
"""The norms of a list of tensors by one kernel."""

overlaps_itself = torch._debug_has_internal_overlap
"""1 where two places of a tensor certainly are one in memory, 0 where not, 2 where torch cannot tell."""

pack_convolution = getattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", None)
"""The weights of a convolution of images, as oneDNN wants them: given in its own layout, padding, strides and so on."""

packed_convolution = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
"""A convolution with such weights, and one simple operation after it; ``.binary`` adds another tensor on the way.

Both are ``None`` in a torch without oneDNN."""


def storage_of(tensor: Tensor) -> int:
    """What the memory of a tensor is known by, memory without bytes too."""
    place: int = tensor.untyped_storage()._cdata
    return place


def users_of(storage: torch.UntypedStorage) -> int:
    """How many tensors and storage objects hold a memory, this object included."""
    count: int = torch._C._storage_Use_Count(storage._cdata)
    return count
