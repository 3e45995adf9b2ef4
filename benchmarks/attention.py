"""What attention maps cost, as ratios of interleaved runs: ``uv run python -m benchmarks.attention``."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attribution import GradientAttention, explain
from attribution.layers import opened

PAIRS = 15


def ratio(a: Callable[[], object], b: Callable[[], object], repeats: int = 1) -> float:
    """Median of process times of ``a`` over those of ``b``."""

    def once(act: Callable[[], object]) -> float:
        begin = time.process_time()
        for _ in range(repeats):
            act()
        return time.process_time() - begin

    once(a), once(b)
    return statistics.median(once(a) / once(b) for _ in range(PAIRS))


def main() -> None:
    """Print three ratios for timm's ViT-Tiny with random weights, one image."""
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
    matrices = [weights.mean(dim=1)[0] for weights in kept]

    def row() -> Tensor:
        found = torch.eye(len(matrices[0]))[:1]
        for matrix in reversed(matrices):
            found = (found + found @ matrix) / 2
        return found

    def product() -> Tensor:
        found = torch.eye(len(matrices[0]))
        for matrix in matrices:
            found = (found + matrix @ found) / 2
        return found[:1]

    assert torch.allclose(row(), product(), atol=1e-6)
    classes = [[1, 2, 3, 4]]
    print(f"forward with attention in plain steps / plain: {ratio(captured, torch.no_grad()(lambda: model(x))):.2f}")
    print(f"product of matrices / row: {ratio(product, row, 20):.1f}")
    four, one = (lambda t=t: explain(model, x, GradientAttention(), target=t) for t in (classes, 1))
    print(f"gradient attention of four classes / one: {ratio(four, one):.2f}")


if __name__ == "__main__":
    main()
