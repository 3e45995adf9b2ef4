"""What goes into a model beside the explained tensor: it is not written into, and axes that do not fit are refused."""

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, InputError, Inputs, Occlusion, Saliency, explain
from tests.conftest import BACKENDS, logit, noise

X = noise(2, 4, dtype=torch.float64)
Pair = namedtuple("Pair", "shift other")


class Writes(nn.Module):
    """Adds a shift that it finds in what it is given, and writes another one there."""

    def __init__(self, find: Callable[[Any], Any]) -> None:
        super().__init__()
        self.head, self._find = nn.Linear(4, 3), find

    def forward(self, x: Tensor, beside: Any) -> Tensor:
        found = self._find(beside)
        found += 1
        return self.head(x) * torch.as_tensor(found)  # type: ignore[no-any-return]


FORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "list": (lambda shift: [shift], lambda beside: beside[0]),
    "tuple in a dict": (lambda shift: {"a": (shift, 1)}, lambda beside: beside["a"][0]),
    "named tuple": (lambda shift: Pair(shift, None), lambda beside: beside.shift),
}


@BACKENDS
@pytest.mark.parametrize("array", [False, True], ids=["tensor", "array"])
@pytest.mark.parametrize("form", FORMS)
def test_what_lies_in_lists_is_the_same_in_every_forward(form: str, array: bool, backend: str) -> None:
    pack, find = FORMS[form]
    torch.manual_seed(0)
    model = Writes(find).double().eval()
    shift: Any = np.zeros(3) if array else torch.zeros(3, dtype=X.dtype)
    for technique in (Saliency(channels="none", absolute=False), Occlusion(window=1, stride=1)):
        found = explain(
            model, (X, pack(shift)), technique, backend=backend, target=logit(1), execution=Execution(batch_size=3)
        )
        weight = model.head.weight[1].detach()  # of a shift of 0 + 1
        wanted = weight.expand_as(X) if isinstance(technique, Saliency) else X * weight
        (raw,) = found.raw.values()
        assert (raw[:, 0] - wanted).abs().max() <= (1e-5 if backend == "captum" else 1e-12)
        assert not shift.any()


@pytest.mark.parametrize("rows", [(), (1,), (3,), (3, 2)])
def test_rows_that_are_not_the_examples_are_refused(rows: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="row for each example"):
        Inputs.of((X, torch.zeros(rows)), axes={1: "n"})


@pytest.mark.parametrize("axes", ["n", 3, ["n"], {1: 3}, {1: None}, {0: ("n", "f")}])
def test_axes_that_are_no_mapping_to_texts_are_refused(axes: Any) -> None:
    with pytest.raises(InputError, match="axes"):
        Inputs.of((X, torch.zeros(2)), axes=axes)
