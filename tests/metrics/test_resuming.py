"""`evaluate` with a folder: what is there is not computed again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from attribution import (
    OutputError,
    Saliency,
)
from attribution.metrics import (
    SRG,
    evaluate,
)
from tests.metrics.asked import (
    CHEAP,
    SEEN,
    Counted,
    photos,
)


def test_a_second_call_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    model, x = Counted(), photos(5)
    asked: dict[str, Any] = {"target": 1, "batch_size": 1, **CHEAP}
    whole = evaluate(model, x, [Saliency()], **asked)

    def breaks(photos: Tensor) -> Any:
        for n, photo in enumerate(photos):
            if n == 3:
                raise KeyboardInterrupt
            yield photo[None]

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, breaks(x), [Saliency()], out=tmp_path, **asked)
    with (tmp_path / "scores.csv").open("a") as file:
        file.write("4,class 1,saliency,srg,mean,0.99\r\n5,cla")  # rows of photos that were not finished
    SEEN.clear()
    found = evaluate(model, x, [Saliency()], out=tmp_path, **asked)
    per_photo = 4 * 2 * 6 + 3
    assert 2 * per_photo <= sum(SEEN) <= 2 * (per_photo + 12)
    for name in whole.maps:
        assert found.values("srg")[name] == pytest.approx(whole.values("srg")[name], abs=1e-12)
    assert len(found.rows) == len(whole.rows)
    SEEN.clear()
    again = evaluate(model, x, [Saliency()], out=tmp_path, **asked)
    assert not SEEN
    assert list(again.rows) == list(found.rows)
    for changes in ({"target": 2}, {"metrics": (SRG(steps=5),)}, {"baselines": (0.0,)}, {"seed": 1}):
        with pytest.raises(OutputError, match="another question"):
            evaluate(model, x, [Saliency()], out=tmp_path, **{**asked, **changes})
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    with pytest.raises(OutputError, match="another question"):
        evaluate(model, x, [Saliency()], out=tmp_path, **asked)
