import pytest
from timm.data.imagenet_info import ImageNetInfo

from attribution import zoo
from attribution.errors import TargetError
from attribution.zoo.labels import find, imagenet


@pytest.mark.parametrize("text", ["espresso", "Espresso", " ESPRESSO ", "967"])
def test_a_class_by_name_or_number(text: str) -> None:
    assert find(text, imagenet()) == 967
    assert imagenet()[967] == "espresso"


def test_unknown_names_show_the_nearest() -> None:
    with pytest.raises(TargetError, match="no class 'expresso'; nearest: 'espresso'"):
        find("expresso", imagenet())
    for text in ("1000", "-1", "1.0", "", "9" * 5000):
        with pytest.raises(TargetError, match="999"):
            find(text, imagenet())


def test_names_that_occur_twice_list_their_indices() -> None:
    labels = [description.partition(",")[0] for description in ImageNetInfo().label_descriptions()]
    with pytest.raises(TargetError, match=r"'crane' names several classes: 134 \(crane\), 517 \(crane\); give the"):
        find("crane", labels)
    with pytest.raises(TargetError, match=r"638 \(maillot\), 639 \(maillot\)"):
        find("Maillot", labels)
    assert find("517", labels) == 517


def test_as_written_comes_before_without_case() -> None:
    assert imagenet()[264] == "Cardigan"
    assert imagenet()[474] == "cardigan"
    assert find("Cardigan", imagenet()) == 264
    assert find("cardigan", imagenet()) == 474
    with pytest.raises(TargetError, match=r"264 \(Cardigan\), 474 \(cardigan\)"):
        find("CARDIGAN", imagenet())


def test_without_names_only_an_index_can_be_given() -> None:
    assert find("12", None) == 12
    with pytest.raises(TargetError, match="class names are unknown; give a class index"):
        find("espresso", None)


def test_every_name_of_the_bundled_model_is_found(squeezenet: zoo.LoadedModel) -> None:
    assert squeezenet.labels is not None
    assert [squeezenet.index(label) for label in squeezenet.labels] == list(range(1000))


@pytest.mark.parametrize("labels", [None, ("cup", "espresso")])
def test_a_negative_index_is_told_where_counting_begins(labels: tuple[str, ...] | None) -> None:
    with pytest.raises(TargetError, match=r"^no class -1; classes are counted from 0( to 1)?$"):
        find("-1", labels)
    assert find("-1", ("cup", "-1")) == 1
