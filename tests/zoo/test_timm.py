from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from torch import Tensor

from attribution import zoo
from attribution.errors import ModelError
from attribution.zoo import timm_models

Differing = Callable[[dict[str, Tensor], dict[str, Tensor]], list[str]]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the model hub, and no hub behind it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_model_is_loaded_from_the_cache(hub: Path, differing: Differing) -> None:
    saved = timm.create_model("test_resnet", pretrained=False)
    repository = hub / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(saved.state_dict(), snapshot / "model.safetensors")

    loaded = zoo.load("timm:test_resnet")

    assert differing(saved.state_dict(), loaded.model.state_dict()) == []
    other = timm.create_model("test_resnet", pretrained=False)
    assert "conv1.0.weight" in differing(saved.state_dict(), other.state_dict())
    assert not loaded.model.training
    assert loaded.inputs(zoo.sample_photo()).shape == (1, 3, 160, 160)
    assert (loaded.mean, loaded.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert loaded.label(967) == "espresso"


def test_without_network_the_hub_is_asked_once(
    hub: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def unreachable(url: str, timeout: float) -> None:
        asked.append(url)
        raise ConnectionError("Name or service not known\nand more")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(ModelError) as caught:
        zoo.load("timm:resnet18.a1_in1k")
    url = "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    assert str(caught.value) == (
        f"the weights of timm:resnet18.a1_in1k cannot be downloaded from {url} (ConnectionError: Name or service not "
        "known); pass a file with --weights, or use a bundled model: bundled:squeezenet1_1, bundled:efficientnet_lite0"
    )
    assert asked == [url]
    assert capfd.readouterr() == ("", "")


def test_with_network_timm_downloads_itself_without_writing_to_stdout(
    hub: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Callable[[], object]] = []

    def metadata(url: str, timeout: float) -> object:
        return answers.pop()()

    def missing() -> object:
        raise EntryNotFoundError("404: this repository has its weights in another file")

    def create(name: str, pretrained: bool) -> torch.nn.Module:
        made.append((name, pretrained))
        print("Downloading")
        return model

    model = timm.create_model("test_resnet", pretrained=False)
    made: list[tuple[str, bool]] = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", metadata)
    monkeypatch.setattr(timm, "create_model", create)
    for answer in (object, missing):
        answers.append(answer)
        assert zoo.load("timm:test_resnet.r160_in1k").model is model
    assert made == [("test_resnet.r160_in1k", True)] * 2
    assert capsys.readouterr() == ("", "Downloading\nDownloading\n")


def test_a_failed_download_is_one_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: None)
    with pytest.raises(ModelError, match=r"timm cannot load 'test_resnet': .*; pass a file with --weights"):
        zoo.load("timm:test_resnet")


def test_weights_from_a_file(tmp_path: Path, hub: Path, differing: Differing) -> None:
    saved = timm.create_model("test_vit", pretrained=False)
    save_file(saved.state_dict(), tmp_path / "mine.safetensors")
    loaded = zoo.load("timm:test_vit", weights=tmp_path / "mine.safetensors")
    assert differing(saved.state_dict(), loaded.model.state_dict()) == []
    with pytest.raises(ModelError, match="do not fit the model"):
        zoo.load("timm:test_resnet", weights=tmp_path / "mine.safetensors")


def test_weights_of_another_number_of_classes_make_the_model_with_as_many(
    tmp_path: Path, hub: Path, differing: Differing
) -> None:
    saved = timm.create_model("test_vit", pretrained=False, num_classes=5)
    torch.save({"model": saved.state_dict()}, tmp_path / "mine.pth")
    loaded = zoo.load("timm:test_vit", weights=tmp_path / "mine.pth")
    assert differing(saved.state_dict(), loaded.model.state_dict()) == []
    assert loaded.labels is None
    assert "is of 5 classes, so timm:test_vit was made with as many" in loaded.assumed


def test_names_and_tags_that_do_not_exist() -> None:
    with pytest.raises(ModelError, match="no timm model 'resnt18'; nearest: 'resnet18'"):
        zoo.load("timm:resnt18")
    with pytest.raises(ModelError, match=r"no timm weights 'resnet18\.a9_in1k'; nearest: .*resnet18 has: resnet18\.a1"):
        zoo.load("timm:resnet18.a9_in1k")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "find_spec", lambda _: None)
    for spec in ("timm:resnet18", "bundled:efficientnet_lite0"):
        with pytest.raises(ModelError, match=r"needs timm; pip install 'torch-attribution\[timm\]'"):
            zoo.load(spec)
