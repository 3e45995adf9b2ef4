"""What is expected of names of torch that have no public form: a torch that changes one fails here, by its name."""

import re
from pathlib import Path

import torch
from torch.func import vmap
from torch.overrides import BaseTorchFunctionMode

from attribution.running import torch_internals


def test_gradients_are_switched_at_once() -> None:
    before = torch.is_grad_enabled()
    try:
        torch_internals.set_gradients(False)
        assert not torch.is_grad_enabled()
        torch_internals.set_gradients(True)
        assert torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(before)


def test_inference_mode_is_entered_and_left_by_hand() -> None:
    with torch.inference_mode():
        outside = torch_internals.InferenceMode(False)
        outside.__enter__()
        assert not torch.is_inference_mode_enabled()
        assert not torch.ones(1).is_inference()
        outside.__exit__(None, None, None)
        assert torch.is_inference_mode_enabled()


def test_transforms_are_counted_and_left() -> None:
    depths = []

    def note(x: torch.Tensor) -> torch.Tensor:
        depths.append(torch_internals.transforms())
        return x

    before = torch_internals.transforms()
    vmap(vmap(note))(torch.ones(2, 3))
    assert depths == [before + 2]
    torch._C._functorch._vmap_increment_nesting(2, "error")
    assert torch_internals.transforms() == before + 1
    torch_internals.leave_transforms(before)
    assert torch_internals.transforms() == before


def test_modes_of_functions_are_counted_and_left() -> None:
    before = torch_internals.function_modes()
    BaseTorchFunctionMode().__enter__()
    assert torch_internals.function_modes() == before + 1
    torch_internals.leave_function_mode()
    assert torch_internals.function_modes() == before


def test_kernels_are_found_by_operation_and_key() -> None:
    assert torch_internals.has_kernel("aten::convolution", "FuncTorchBatched")
    assert not torch_internals.has_kernel(
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward", "FuncTorchBatched"
    )


def test_the_devices_of_an_extension_have_a_type() -> None:
    kind = torch_internals.simulated_device()
    assert torch.device(kind).type == kind
    assert kind not in ("cpu", "cuda", "mps", "xpu")


def test_lists_are_copied_and_measured_together() -> None:
    sources = [torch.tensor([3.0, -4.0]), torch.tensor([[1.0], [5.0]])]
    targets = [torch.zeros(2), torch.zeros(2, 1)]
    torch_internals.copy_together(targets, sources)
    assert all(map(torch.equal, targets, sources))
    assert [float(norm) for norm in torch_internals.norms_together(sources, float("inf"))] == [4.0, 5.0]
    assert float(torch_internals.norms_together(sources, 2.0)[0]) == 5.0


def test_a_tensor_that_overlaps_itself_is_known() -> None:
    plain = torch.zeros(2, 3)
    assert [torch_internals.overlaps_itself(each) for each in (plain, plain.T, torch.zeros(1).expand(4))] == [0, 0, 1]


def test_memory_is_known_by_its_storage_and_its_users() -> None:
    tensor = torch.zeros(6)
    other, view = torch.zeros(6), tensor[2:]
    assert torch_internals.storage_of(tensor) == torch_internals.storage_of(view) != torch_internals.storage_of(other)
    empty = torch.zeros(0), torch.zeros(0)
    assert torch_internals.storage_of(empty[0]) != torch_internals.storage_of(empty[1])
    assert torch_internals.users_of(other.untyped_storage()) == 2
    assert torch_internals.users_of(tensor.untyped_storage()) == 3


def test_convolutions_take_packed_weights() -> None:
    x, weight, bias = torch.randn(2, 4, 7, 5), torch.randn(6, 2, 3, 3), torch.randn(6)
    how = ([1, 0], [2, 1], [1, 1], 2)
    packed = torch_internals.pack_convolution(weight.to_mkldnn(), *how)  # type: ignore[misc]
    convolution = torch_internals.packed_convolution
    found = convolution(x, packed, bias, *how, "none", [], "")  # type: ignore[misc]
    wanted = torch.nn.functional.conv2d(x, weight, bias, how[1], how[0], how[2], how[3])
    assert torch.allclose(found, wanted, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    silu = convolution(x, packed, bias, *how, "swish", [], "")  # type: ignore[misc]
    assert torch.allclose(silu, torch.nn.functional.silu(wanted), atol=1e-5)
    both = convolution.binary(x, wanted, packed, bias, *how, "add", 1.0, None, [], "")  # type: ignore[union-attr]
    assert torch.allclose(both, 2 * wanted, atol=1e-5)


def test_they_stand_in_one_file() -> None:
    root = Path(__file__).parent.parent
    private = re.compile(r"torch\._[a-zA-Z]|\._cdata\b")
    files = [path for folder in ("attribution", "backends") for path in (root / folder).rglob("*.py")]
    assert [path.name for path in files if private.search(path.read_text())] == ["torch_internals.py"]
