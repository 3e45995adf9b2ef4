import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import VGG16_Weights, squeezenet1_1, vgg16

from attribution import zoo
from attribution.errors import ModelError
from attribution.zoo.download import cached_path, fetch

Differing = Callable[[dict[str, Tensor], dict[str, Tensor]], list[str]]


def overlapping(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Random numbers of which neighbours share memory, so that 138 million of them make a small file."""
    columns = shape[1:].numel()
    numbers = torch.randn(columns + shape[0], generator=generator)
    return numbers.as_strided((shape[0], columns), (1, 1)).view(shape)


def test_vgg16_is_loaded_from_the_cache(torch_home: Path, no_network: list[str], differing: Differing) -> None:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in vgg16(init_weights=False).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {name: overlapping(shape, generator) for name, shape in shapes.items()}
    path = torch_home / "hub" / "checkpoints" / "vgg16-397923af.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)

    loaded = zoo.load("torchvision:vgg16")

    found = loaded.model.state_dict()
    assert differing(state, found) == []
    found["features.28.bias"][7] += 1e-6
    assert differing(state, found) == ["features.28.bias"]
    assert no_network == []
    assert loaded.name == "torchvision:vgg16"
    assert repr(loaded.transform) == repr(VGG16_Weights.DEFAULT.transforms())
    assert (loaded.mean, loaded.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert loaded.index("espresso") == 967
    assert not loaded.model.training


def test_without_network_one_line_says_what_to_do(
    torch_home: Path, no_network: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        zoo.load("torchvision:vgg16")
    url = "https://download.pytorch.org/models/vgg16-397923af.pth"
    assert str(caught.value) == (
        f"the weights of torchvision:vgg16 cannot be downloaded from {url} (Name or service not known); pass a file "
        "with --weights, or use a bundled model: bundled:squeezenet1_1, bundled:efficientnet_lite0"
    )
    assert no_network == [url]
    assert capfd.readouterr() == ("", "")
    assert not torch_home.exists()


def test_a_download_lands_in_the_cache_and_is_checked(torch_home: Path, tmp_path: Path) -> None:
    content = b"weights"
    right = tmp_path / f"a-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    wrong = tmp_path / "b-00000000.pth"
    for path in (right, wrong):
        path.write_bytes(content)
    fetched = fetch(right.as_uri(), "a")
    assert fetched == cached_path(right.as_uri())
    assert fetched.is_relative_to(torch_home)
    assert fetched.read_bytes() == content
    right.unlink()
    assert fetch(right.as_uri(), "a") == fetched
    with pytest.raises(ModelError, match="invalid hash value"):
        fetch(wrong.as_uri(), "b")
    assert [path.name for path in fetched.parent.iterdir()] == [right.name]


def test_a_damaged_file_in_the_cache_is_named(torch_home: Path) -> None:
    path = torch_home / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>sign in to the network</html>")
    with pytest.raises(ModelError, match=r"squeezenet1_1-b8a52dc0\.pth holds no plain tensors"):
        zoo.load("torchvision:squeezenet1_1")


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(ModelError, match="no torchvision classifier 'VGG16'; nearest: 'vgg16'"):
        zoo.load("torchvision:VGG16")
    with pytest.raises(ModelError, match="no torchvision classifier 'fcn_resnet50'"):
        zoo.load("torchvision:fcn_resnet50")


@pytest.mark.parametrize("name", ["googlenet", "mnasnet0_5"])
def test_models_that_torchvision_builds_otherwise_for_their_weights(
    name: str, torch_home: Path, differing: Differing
) -> None:
    from torchvision.models import get_model, get_model_weights

    options = {} if name.startswith("mnasnet") else {"aux_logits": True, "init_weights": False}
    weights = get_model_weights(name).DEFAULT
    path = cached_path(weights.url)
    path.parent.mkdir(parents=True)
    torch.save(get_model(name, **options).state_dict(), path)
    theirs = get_model(name, weights=weights)
    ours = zoo.load(f"torchvision:{name}").model
    assert differing(theirs.state_dict(), ours.state_dict()) == []
    assert repr(theirs) == repr(ours)
    assert getattr(theirs, "transform_input", None) == getattr(ours, "transform_input", None)


def test_weights_of_another_number_of_classes_make_the_model_with_as_many(
    tmp_path: Path, no_network: list[str], differing: Differing
) -> None:
    trained = squeezenet1_1(num_classes=5)
    path = tmp_path / "best.pt"
    torch.save({"epoch": 3, "model_state_dict": trained.state_dict()}, path)
    loaded = zoo.load("torchvision:squeezenet1_1", weights=path)
    assert differing(trained.state_dict(), loaded.model.state_dict()) == []
    assert loaded.labels is None
    assert loaded.assumed.startswith(f"{path} is of 5 classes, so torchvision:squeezenet1_1 was made with as many")
    torch.save(squeezenet1_1().state_dict(), path)
    whole = zoo.load("torchvision:squeezenet1_1", weights=path)
    assert whole.label(967) == "espresso"
    assert whole.assumed == ""
    state = trained.state_dict()
    state["features.0.weight"] = state["features.0.weight"][:5]
    torch.save(state, path)
    with pytest.raises(ModelError, match="do not fit the model"):
        zoo.load("torchvision:squeezenet1_1", weights=path)
    assert no_network == []
