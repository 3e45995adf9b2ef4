"""What attention maps cost, as ratios of interleaved runs: ``uv run python -m benchmarks.attention``."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attribution import GradientAttention, Occlusion, TokenOcclusion, explain
from attribution.layers import opened
from attribution_hooks.attention.rollout import carried

PAIRS = 15


def ratio(a: Callable[[], object], b: Callable[[], object], repeats: int = 1, pairs: int = PAIRS) -> float:
    """Median of process times of ``a`` over those of ``b``."""

    def once(act: Callable[[], object]) -> float:
        begin = time.process_time()
        for _ in range(repeats):
            act()
        return time.process_time() - begin

    once(a), once(b)
    return statistics.median(once(a) / once(b) for _ in range(pairs))


def operations(act: Callable[[], object]) -> int:
    """Floating-point operations in products of matrices and convolutions, by torch's counter."""
    with FlopCounterMode(display=False) as counter:
        act()
    return int(counter.get_total_flops())


def main() -> None:
    """Print ratios for timm's ViT-Tiny with random weights, one image: of times, and of floating-point operations."""
    import timm

    torch.set_num_threads(1)
    model: nn.Module = timm.create_model("vit_tiny_patch16_224").eval()
    x, kept = torch.randn(1, 3, 224, 224), list[Tensor]()

    def see(module: nn.Module | None, weights: Tensor) -> Tensor:
        kept.append(weights)
        return weights

    @torch.no_grad()
    def captured() -> None:
        kept.clear()
        with opened(model, see):
            model(x)

    captured()
    matrices = [weights.mean(dim=1).detach() for weights in kept]
    first = torch.eye(matrices[0].shape[1])[:1]

    def row() -> Tensor:
        return carried(first, matrices)

    def product() -> Tensor:
        eye = torch.eye(matrices[0].shape[1])
        found = eye
        for matrix in matrices:
            mixed = matrix[0] + eye
            found = mixed / mixed.sum(dim=1, keepdim=True) @ found
        return found[:1]

    assert torch.allclose(row(), product(), atol=1e-6)
    print(f"forward with attention in plain steps / plain: {ratio(captured, torch.no_grad()(lambda: model(x))):.2f}")
    print(f"product of matrices / row, operations: {operations(product) / operations(row):.0f}")
    print(f"product of matrices / row, time: {ratio(product, row, 20):.1f}")
    four, one = (lambda t=t: explain(model, x, GradientAttention(), target=t) for t in ([[1, 2, 3, 4]], 1))
    print(f"gradient attention of four classes / one: {ratio(four, one):.2f}")
    tokens, pixels = (
        lambda technique=technique: explain(model, x, technique, target=1)
        for technique in (TokenOcclusion(window=4, stride=2), Occlusion(window=64, stride=32))
    )
    tokens(), pixels()  # the first call looks at the model
    print(f"tokens left out / pixels covered, operations: {operations(tokens) / operations(pixels):.3f}")
    print(f"tokens left out / pixels covered, time: {ratio(tokens, pixels, pairs=3):.3f}")


if __name__ == "__main__":
    main()
