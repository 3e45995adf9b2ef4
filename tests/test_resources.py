"""Lack of memory becomes a typed error that says what to change; other errors stay what they are."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, GradCAM, ModelError, Occlusion, ResourceError, explain
from tests.conftest import BACKENDS, noise


class _Hungry(nn.Module):
    """Fails as torch does when more than ``limit`` images come at once."""

    def __init__(self, limit: int, message: str, kind: type[Exception] = RuntimeError) -> None:
        super().__init__()
        self.limit, self.message, self.kind = limit, message, kind
        self.conv, self.linear = nn.Conv2d(3, 3, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            raise self.kind(self.message)
        pooled: Tensor = self.linear(self.conv(x).mean((2, 3)))
        return pooled


LACKS = ["std::bad_alloc", "could not create a primitive"]
LACK = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"


OUT: list[tuple[str, type[Exception]]] = [(LACK, RuntimeError), *((text, RuntimeError) for text in LACKS)]
OUT += [("", MemoryError), ("Unable to allocate 9 GiB", MemoryError), ("CUDA out of memory.", torch.OutOfMemoryError)]
CUDA_LACKS = [
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
    "CUDA error: CUSPARSE_STATUS_ALLOC_FAILED when calling `cusparseCreate(handle)`",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "FIND was unable to find an engine to execute this computation",
    "GET was unable to find an engine to execute this computation",
]
"""As torch words it where CUDA or a library of it finds no memory outside of torch's own cache."""

OUT += [(text, kind) for text in CUDA_LACKS for kind in (RuntimeError, torch.AcceleratorError)]
KINDS = pytest.mark.parametrize(("lack", "kind"), OUT)


@BACKENDS
@KINDS
def test_out_of_memory_is_a_resource_error_that_names_the_way_out(
    lack: str, kind: type[Exception], backend: str
) -> None:
    inputs, technique = torch.rand(2, 3, 17, 23), Occlusion(window=5, stride=3)
    said = r"ran out of memory .* smaller batch_size or memory_budget \(now 8 and"
    with pytest.raises(ResourceError, match=said):
        explain(_Hungry(0, lack, kind), inputs, technique, backend=backend, execution=Execution(batch_size=8))
    said = r"ran out of memory .* smaller batch_size or memory_budget \(now None and"
    with pytest.raises(ResourceError, match=said):
        explain(_Hungry(0, lack, kind), inputs, GradCAM(layers=("conv",)), backend=backend)


@BACKENDS
@KINDS
@pytest.mark.parametrize("images", [1, 5])
def test_occlusion_goes_on_with_fewer_windows_where_memory_runs_out(
    images: int, lack: str, kind: type[Exception], backend: str
) -> None:
    """And with fewer images at once where the clean ones do not fit either."""
    inputs, technique = noise(images, 3, 17, 23), Occlusion(window=5, stride=3)
    torch.manual_seed(0)
    model = _Hungry(3, lack, kind)
    found = [
        explain(model, inputs, technique, backend=backend, target=1, execution=Execution(batch_size=size))
        for size in (8, 3)
    ]
    for answer in found:
        assert 1 <= int(answer.provenance["windows_per_forward"]) <= 3
        assert "rows" not in answer.provenance
    model.limit = 100
    plain = explain(model, inputs, technique, backend=backend, target=1).map
    assert plain.abs().max() > 5e-4
    for answer in found:
        assert (answer.map - plain).abs().max() <= 1e-6


@BACKENDS
def test_where_three_images_do_not_fit_they_go_one_by_one(backend: str) -> None:
    found = explain(_Hungry(2, LACK), noise(3, 3, 17, 23), Occlusion(window=5, stride=3), backend=backend)
    assert str(found.provenance["rows"]).startswith("one by one: three images at once do not fit into memory")


@BACKENDS
@pytest.mark.parametrize(
    "message",
    [
        "mat1 and mat2",
        "could not create a primitive descriptor for a matmul",
        "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED",
    ],
)
def test_any_other_runtime_error_of_the_model_is_not_put_down_to_memory(message: str, backend: str) -> None:
    inputs, technique = torch.rand(3, 3, 17, 23), Occlusion(window=5, stride=3)
    with pytest.raises(ModelError, match=message):
        explain(_Hungry(0, message), inputs, technique, backend=backend)
    found = explain(_Hungry(2, message), inputs, technique, backend=backend)
    assert message in str(found.provenance["rows"])
