"""Flags of cuDNN are set for as long as a run needs them, and given back on every exit."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, FilterVisualization, GradCAM, ModelError, Occlusion, Technique, explain
from attribution.isolation import process_flags
from attribution.isolation.process_flags import ProcessFlag
from attribution.isolation.undo import undoing
from attribution.testing import guard
from tests.cases import all_placed, by_backends, given
from tests.conftest import BACKENDS, build, noise

X = noise(2, 3, 17, 23)
TECHNIQUES: dict[str, Technique] = {
    **all_placed({"body": "stem"}),
    "filters of a class": FilterVisualization(layer="logits", channels=(1,), steps=2, size=(17, 23)),
}


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is taken for a device on which cuDNN computes; the user has it tune itself."""
    monkeypatch.setattr(process_flags, "has_cudnn", lambda device: True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)


class Reader(nn.Module):
    """Reads the columns of its features one after the other; notes in each forward cuDNN's flags and gradients."""

    seen: ClassVar[list[tuple[bool, bool]]] = []
    followed: ClassVar[list[bool]] = []

    def __init__(self, recurrent: type[nn.Module] = nn.LSTM) -> None:
        super().__init__()
        self.stem, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(6, 5)
        self.reader: Any = recurrent(4, 6, batch_first=True) if recurrent is not nn.Linear else nn.Linear(4, 6)
        self.fails = False

    def forward(self, x: Tensor) -> Tensor:
        Reader.seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark))
        Reader.followed.append(x.requires_grad)
        if self.fails:
            raise ValueError("no")
        columns = self.relu(self.stem(x)).mean(2).transpose(1, 2)
        Reader.followed.append(columns.requires_grad)
        read = self.reader(columns)
        return self.head((read[0] if isinstance(read, tuple) else read)[:, -1])  # type: ignore[no-any-return]


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize("recurrent", [nn.LSTM, nn.GRU, nn.RNN, nn.Linear])
@by_backends("name", TECHNIQUES)
def test_recurrent_layers_run_without_cudnn_where_gradients_are_taken(
    name: str, recurrent: type[nn.Module], backend: str
) -> None:
    technique, model = TECHNIQUES[name], Reader(recurrent).eval()
    inputs, target = given(technique, X)
    explain(model, inputs, technique, target=target, backend=backend)  # the model's own forward, for its copy
    Reader.seen.clear()
    Reader.followed.clear()
    with guard(model):
        explain(model, inputs, technique, target=target, backend=backend)
    assert Reader.seen
    gradients = any(Reader.followed)
    assert {enabled for enabled, _ in Reader.seen} == {not (gradients and recurrent is not nn.Linear)}
    assert torch.backends.cudnn.enabled
    model.fails = True
    with guard(model), pytest.raises(ModelError):
        explain(model, X, GradCAM(layers=("stem",)), backend=backend)
    assert torch.backends.cudnn.enabled


@BACKENDS
def test_a_recurrent_layer_that_is_no_module_is_named(backend: str) -> None:
    class Refused(torch.autograd.Function):
        """As cuDNN's, called by itself."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")

    class Bare(Reader):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.reader(Refused.apply(self.stem(x)).mean(2).transpose(1, 2))[:, -1])  # type: ignore[no-any-return]

    with pytest.raises(ModelError, match=r"cuDNN, which has no gradient in eval mode.*cudnn\.enabled = False"):
        explain(Bare(nn.Linear).eval(), X, GradCAM(layers=("stem",)), target=1, backend=backend)


def test_a_model_on_the_cpu_keeps_cudnn() -> None:
    """The flag is the process's: another thread may use a GPU."""
    Reader.seen.clear()
    explain(Reader().eval(), X, GradCAM(layers=("stem",)), target=1)
    assert {enabled for enabled, _ in Reader.seen} == {True}


@pytest.mark.usefixtures("on_cuda")
@pytest.mark.parametrize(("incremental", "wanted"), [(True, {True, False}), (False, {True})])
def test_tiles_are_not_tuned_for(incremental: bool, wanted: set[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """cuDNN would try all its kernels for each of some hundred shapes of tiles, most of which come once."""
    seen: list[bool] = []
    plain = torch.conv2d

    def noting(*args: Any, **kwargs: Any) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        return plain(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "conv2d", noting)
    answer = explain(
        build("cnn"), X, Occlusion(window=5, stride=3), target=1, execution=Execution(incremental=incremental)
    )
    assert answer.provenance["engine"] == ("incremental" if incremental else "dense")
    assert {*seen} == wanted
    assert torch.backends.cudnn.benchmark


@pytest.mark.usefixtures("on_cuda")
def test_where_tiles_fail_the_flag_comes_back_before_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    from attribution_hooks.incremental import differences as incremental
    from attribution_hooks.perturbation import dense

    seen: list[bool] = []
    plain = dense.differences

    def failing(*args: object) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        raise ValueError("no tiles")

    def noting(*args: Any) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        return plain(*args)

    monkeypatch.setattr(incremental, "differences", failing)
    monkeypatch.setattr(dense, "differences", noting)
    explain(build("cnn"), X, Occlusion(window=5, stride=3), target=1)
    assert seen == [False, True]


def test_the_last_of_several_runs_gives_a_flag_back() -> None:
    now = ["user's"]
    flag = ProcessFlag(lambda: now[0], lambda value: now.__setitem__(0, value), "needed")
    with undoing() as outer:
        flag.enter(outer)
        with undoing() as inner:
            flag.enter(inner)
            assert now == ["needed"]
        assert now == ["needed"]
    assert now == ["user's"]
