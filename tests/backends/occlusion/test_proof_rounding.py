"""What the proof of the engine takes for rounding, and what for another answer."""

import pytest
import torch

from attribution import ClassScore
from attribution.lowered.rounding import sizes
from attribution_hooks.incremental.proof import Proof


def test_a_class_is_rounded_by_its_own_size_or_by_that_of_the_median() -> None:
    clean = torch.tensor([[0.01, 2.0, -3.0, -1e4, 4.0], [1.0, 1.0, 1.0, 1.0, 1.0]])
    covered = torch.tensor([[0.02, 2.1, -3.5, -1e4, 4.2], [0.02, 2.1, -3.0, -1e4, 4.2], [1.0, 1.0, 1.0, 1.0, 3.0]])
    found = sizes(clean, covered, torch.tensor([[1], [4]]))
    torch.testing.assert_close(found[0], torch.tensor([2.1, 2.1, 3.5, 1e4, 4.2]))  # median of 0.02, 2.1, 3.5, 4.2
    torch.testing.assert_close(found[1], torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0]))
    unmoved = sizes(clean[:1], clean[:1].clone(), torch.tensor([[1]]))
    torch.testing.assert_close(unmoved[0], torch.tensor([3.0, 3.0, 3.0, 1e4, 4.0]))  # all count where none moves
    bounded = sizes(clean[:1], covered[:2] * torch.tensor([1, 1e4, 1e4, 1, 1e4]), torch.tensor([[0]]))
    assert bounded[0, 0].item() == pytest.approx(64 * 0.02)


@pytest.mark.parametrize(
    ("dtype", "rounding", "wrong"),
    [
        (torch.float64, 1e-14, 1e-12),
        (torch.float32, 1e-6, 1e-3),
        (torch.float16, 1e-2, 5e-2),
        (torch.bfloat16, 2e-2, 0.1),
    ],
)
def test_rounding_passes_and_more_does_not(dtype: torch.dtype, rounding: float, wrong: float) -> None:
    clean = torch.tensor([[3.0, 1.0, -2.0, -1e4]], dtype=dtype)
    covered = torch.tensor([[2.0, 1.5, -2.5, -1e4], [3.5, 0.5, -1.0, -1e4]], dtype=dtype)
    unit = {torch.float16: 32, torch.bfloat16: 8}.get(dtype, 512) * torch.finfo(dtype).eps
    target = torch.tensor([[0, 1]])
    proof = Proof(
        ClassScore(of="logit"), ((0, 0), (5, 0)), clean, covered, target, unit * sizes(clean, covered, target)
    )
    own = slice(0, 1)
    assert proof.clean_agrees(clean * (1 + rounding), own)
    assert not proof.clean_agrees(clean * (1 + wrong), own)
    assert not proof.clean_agrees(clean[:, :2], own)
    assert not proof.clean_agrees(clean * torch.nan, own)
    agrees = lambda found: proof.agrees(found, covered, clean, torch.tensor([0, 0]), own)  # noqa: E731  # a thunk
    assert agrees(covered * (1 + rounding))
    assert not agrees(covered * (1 + wrong))
    assert agrees(covered + torch.tensor([0, 0, 0, 50], dtype=dtype))  # a class nobody asked for
    assert not agrees(covered.float() if dtype == torch.float64 else covered.double())


def test_infinite_masks_are_the_same_on_both_sides() -> None:
    clean, covered = torch.tensor([[3.0, 1.0, -torch.inf]]), torch.tensor([[2.0, 1.5, -torch.inf]])
    every = torch.tensor([[0, 1, 2]])
    proof = Proof(
        ClassScore(of="logit"), ((0, 0),), clean, covered, every, 1e-5 * sizes(clean, covered, torch.tensor([[0]]))
    )
    first = torch.tensor([0])
    assert proof.agrees(covered, covered, clean, first, slice(0, 1))
    assert not proof.agrees(torch.tensor([[2.0, 1.5, 0.0]]), covered, clean, first, slice(0, 1))
