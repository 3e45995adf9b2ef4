"""What stands on a page: colours, numbers and words, each held against its own reading of the answers."""

import base64
import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from attribution import RISE, Comparison, GradCAM, InputError, NonFiniteError, OutputError, compare, explain
from attribution.metrics import SRG, evaluate
from attribution.report import Item, Report, evidence
from attribution.report.channels import COLUMNS, ROWS
from tests.report.pages import CAM, HOSTILE, LABELS, MODEL, TURNED, answers, everything, item, picture
from tests.report.reading import Element, pixels, read

SHADE = 1.01 / 255  # a colour of a palette: 256 levels, rounded once more to 8 bits


@pytest.fixture(scope="module")
def html() -> str:
    return everything().html()


@pytest.fixture(scope="module")
def root(html: str) -> Element:
    return read(html)


def inferno(values: torch.Tensor) -> Any:
    share = values.clamp(min=0) / values.max()
    return colormaps["inferno"]((share.double().numpy() * 255).round().astype(int))[..., :3]


def test_every_map_has_its_colours_the_right_way_up(root: Element) -> None:
    shown = root.all("article")[0].all("figure", class_="tile")
    cam = answers()["grad_cam"]
    wanted = [(layer, t) for layer in ("1", "4") for t in range(2)]
    for (layer, t), tile in zip(wanted, shown, strict=False):
        assert tile.attributes["data-layer"] == layer
        assert tile.attributes["data-target"] == f"{LABELS[(1, 3)[t]]} ({(1, 3)[t]})"
        drawn = pixels(tile.one("img").attributes["src"])[..., :3]
        expected = inferno(cam.maps[layer][0, t])
        assert np.abs(drawn - expected).max() <= SHADE
        assert np.abs(drawn - expected[::-1]).max() > 0.1
        ticks = [float(span.text.replace("−", "-")) for span in tile.one("div", class_="ticks").all("span")]
        top = float(cam.maps[layer][0, t].max())
        assert ticks == pytest.approx([0, top / 2, top], rel=1e-2)
        assert tile.one("div", class_="unit").text == "logit"
    assert len(shown) == 4 + 2 + 2  # two layers of Grad-CAM, and two techniques in input space, for two targets


def test_signed_maps_are_symmetric_about_zero(root: Element) -> None:
    signed = [each for each in root.all("figure", class_="tile") if "data-signed" in each.attributes]
    assert {each.attributes["data-technique"] for each in signed} == {"input_x_gradient"}
    values = answers()["input_x_gradient"]
    plane = values.technique.drawn(values.maps)[0]["input"][0, 0].double()
    share = (plane / plane.abs().max() + 1) / 2
    expected = colormaps["RdBu_r"]((share.numpy() * 255).round().astype(int))[..., :3]
    assert np.abs(pixels(signed[0].one("img").attributes["src"])[..., :3] - expected).max() <= SHADE
    low, middle, high = [span.text for span in signed[0].one("div", class_="ticks").all("span")]
    assert (low, middle) == (f"−{high}", "0")


def test_a_small_map_is_enlarged_as_in_figures() -> None:
    small = explain(MODEL, picture(), GradCAM(layers=("4",), upsample=False), target=1)
    tile = read(Report(items=[item(answers={"cam": small})]).html()).one("figure", class_="tile")
    drawn = pixels(tile.one("img").attributes["src"])
    assert drawn.shape[:2] == (34, 46)
    large = torch.nn.functional.interpolate(small.map.double(), (34, 46), mode="bilinear", align_corners=False)[0, 0]
    share = large / small.map.max()
    expected = colormaps["inferno"]((share.numpy() * 255).round().astype(int))[..., :3]
    assert np.abs(drawn[..., :3] - expected).max() <= 2.1 / 255  # float32 levels may round to a neighbour
    alone = read(Report(items=[item(answers={"cam": small}, image=None)]).html()).one("figure", class_="tile")
    assert pixels(alone.one("img").attributes["src"]).shape[:2] == tuple(small.map.shape[-2:])


def test_every_channel_lies_in_its_place_on_its_own_scale(root: Element) -> None:
    section = root.one("section", class_="channels")
    maps = answers()["activations"].maps
    sheets = [sheet for sheet in section.all("figure") if sheet.attributes["data-layer"] == "0"]
    assert [len(sheet.all("li")) for sheet in sheets] == [COLUMNS * ROWS, 40 - COLUMNS * ROWS]
    height, width = maps["1"].shape[-2:]
    for page, sheet in enumerate(sheets):
        drawn = pixels(sheet.one("img").attributes["src"])
        below = drawn.shape[0] // -(-len(sheet.all("li")) // COLUMNS) - height
        for k, told in enumerate(sheet.all("li")):
            channel = maps["1"][0, page * COLUMNS * ROWS + k].double()
            line, column = divmod(k, COLUMNS)
            top, left = line * (height + below), column * width
            cell = drawn[top : top + height, left : left + width]
            low, high = float(channel.min()), float(channel.max())
            index = ((channel - low) / (high - low) * 254).round() if high > low else channel * 0
            expected = colormaps["viridis"](np.linspace(0, 1, 255))[index.numpy().astype(int)][..., :3]
            assert np.abs(cell[..., :3] - expected).max() <= SHADE, (page, k)
            assert (cell[..., 3] == 1).all()
            assert (drawn[top + height : top + height + below, :, 3] == 0).all()
            assert told.one("b").text == str(page * COLUMNS * ROWS + k)
    vector = [sheet for sheet in section.all("figure") if sheet.attributes["data-layer"] == "2"]
    assert "all values" in vector[0].one("figcaption").text


def test_agreement_tells_what_compare_found(root: Element) -> None:
    section = root.one("section", class_="agreement")
    compared = compare(MODEL, picture(), CAM, target=[[1, 3]])
    rows = section.one("tbody").all("tr")
    assert len(rows) == sum(map(len, compared.agreements.values())) == 4
    assert {row.all("td")[-1].text for row in rows} == {"agrees"}
    assert [float(row.all("td")[2].text) for row in rows] == [
        pytest.approx(each.scaled, rel=0.06) for each in next(iter(compared.agreements.values()))
    ]
    assert "agree on all 4 maps" in section.one("p", class_="verdict").text


def test_a_difference_is_not_called_agreement() -> None:
    first = answers()["grad_cam"]
    other = replace(first, backend="wrong", raw={key: raw * 1.01 for key, raw in first.raw.items()})
    pair = {("hooks", "wrong"): first.technique.agreement(first, other)}
    wrong = item(
        comparisons={"grad_cam": Comparison({"hooks": first, "wrong": other}, pair, {"x": "it is <b>off</b>"})}
    )
    section = read(Report(items=[wrong]).html()).one("section", class_="agreement")
    assert [row.all("td")[-1].text for row in section.one("tbody").all("tr")] == ["differs"] * 4
    assert "4 of 4 maps differ" in section.one("p", class_="verdict").text
    assert "Not asked: x: it is <b>off</b>" in section.text


def test_zero_maps_say_so() -> None:
    cam = answers()["grad_cam"]
    zero = replace(cam, maps={key: each * 0 for key, each in cam.maps.items()})
    tiles = read(Report(items=[item(answers={"cam": zero})]).html()).all("figure", class_="tile")
    assert all("zero everywhere" in tile.text for tile in tiles)
    assert "zero everywhere" in tiles[0].one("img").attributes["alt"]


def test_names_stay_text(html: str, root: Element) -> None:
    names = [each.text for each in root.all("h2")]
    assert HOSTILE in names
    assert TURNED not in html
    assert "gnp\\u202e.exe\\x07\\ud800" in names
    assert len(root.all("script")) == 1
    assert [each.attributes.get("onerror") for each in root.all("img")] == [None] * len(root.all("img"))


def test_the_page_needs_nothing_else(html: str, root: Element) -> None:
    (policy,) = (each.attributes["content"] for each in root.all("meta") if "http-equiv" in each.attributes)
    rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag in ("style", "script"):
        held = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(held.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert {each.attributes["src"].partition(":")[0] for each in root.all("img")} == {"data"}
    assert [each.attributes["href"][:1] for each in root.all("a")] == ["#"] * len(root.all("a"))
    assert not re.search(
        r"\sstyle=|\son\w+=\"", re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S).split(" alt=")[0]
    )
    assert everything().html() == html


def test_evidence_is_that_of_the_folder(root: Element, tmp_path: Path) -> None:
    section = root.one("section", class_="evidence")
    heads = [each.text for each in section.all("th", scope="col")]
    assert heads == ["map", "mean", "blur", "seconds a photo"]
    lines = [
        [each.text for each in row.children if isinstance(each, Element)] for row in section.one("tbody").all("tr")
    ]
    assert [line[0] for line in lines] == ["grad_cam", "saliency", "random control"]
    assert lines[0][1].startswith("0.65")
    asked = {"grad_cam": GradCAM(layers=("4",))}
    made = evaluate(MODEL, picture(2), asked, metrics=(SRG(steps=2),), out=tmp_path / "found")
    table = evidence.read(tmp_path / "found")
    assert (table.contestants, dict(table.better)) == (made.contestants, {"srg": "higher"})
    assert table.means("srg") == made.means("srg")
    with pytest.raises(InputError, match=r"holds no evaluation: run\.json does not exist"):
        evidence.read(tmp_path / "none")


def test_pictures_are_what_figures_take() -> None:
    """Normalised inputs, and images of five bands."""
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    seen = (picture() - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    with pytest.raises(InputError, match="give mean= and std="):
        item(image=seen)
    assert np.abs(item(image=seen, mean=mean, std=std).seen - picture()[0].movedim(0, -1).numpy()).max() < 1e-6
    five = torch.cat([picture(), 1 - picture()], dim=1)[:, :5]
    with pytest.raises(InputError, match="image has 5 channels; say which are shown"):
        item(image=five)
    shown = item(image=five, bands=(4, 0, 2), comparisons={})
    drawn = pixels(read(Report(items=[shown]).html()).one("figure", class_="photo").one("img").attributes["src"])
    assert np.abs(drawn[..., :3] - five[0, [4, 0, 2]].movedim(0, -1).numpy()).mean() < 0.05
    each = Item.each(answers(2), images=torch.cat([five, five]), bands=3)
    assert np.abs(each[1].seen - five[0, 3, ..., None].numpy()).max() < 1e-6


def test_a_technique_without_a_zero_is_drawn_from_its_smallest_value() -> None:
    rise = explain(MODEL, picture(), RISE(masks=32), target=1)
    tile = read(Report(items=[item(answers={"rise": rise}, comparisons={})]).html()).one("figure", class_="tile")
    low, high = float(rise.map.min()), float(rise.map.max())
    ticks = [float(span.text.replace("−", "-")) for span in tile.one("div", class_="ticks").all("span")]
    assert ticks == pytest.approx([low, (low + high) / 2, high], rel=1e-2)
    assert low > 0
    share = ((rise.map[0, 0] - low) / (high - low)).double().numpy()
    expected = colormaps["inferno"]((share * 255).round().astype(int))[..., :3]
    assert np.abs(pixels(tile.one("img").attributes["src"])[..., :3] - expected).max() <= 2.1 / 255


def test_of_many_classes_the_highest_are_shown() -> None:
    """And of as many agreements those that are furthest apart, a difference among them."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    model.append(torch.nn.Linear(6, 90))
    cam = explain(model.eval(), picture(), GradCAM(layers=("0",), relu=False), target=[list(range(90))])
    wrong = {key: raw.clone() for key, raw in cam.raw.items()}
    wrong["0"][0, 17] *= 1.5
    other = replace(cam, backend="wrong", raw=wrong)
    compared = Comparison({"hooks": cam, "wrong": other}, {("hooks", "wrong"): cam.technique.agreement(cam, other)}, {})
    root = read(Report(items=[item(answers={"cam": cam}, comparisons={"cam": compared})]).html())
    assert cam.scores is not None
    best = cam.scores[0].argsort(descending=True)[:40].tolist()
    shown = root.all("figure", class_="tile")
    assert [each.attributes["data-target"] for each in shown] == [f"class {k}" for k in best]
    drawn = pixels(shown[0].one("img").attributes["src"])[..., :3]
    plane = cam.maps["0"][0, best[0]].double()
    expected = colormaps["RdBu_r"]((((plane / plane.abs().max() + 1) / 2).numpy() * 255).round().astype(int))[..., :3]
    assert np.abs(drawn - expected).max() <= SHADE
    assert "Of 90 targets of Grad-CAM 40 are shown, the highest by their scores." in root.one("article").text
    section = root.one("section", class_="agreement")
    rows = section.one("tbody").all("tr")
    assert len(rows) == 40
    assert [row.all("td")[-1].text for row in rows[:2]] == ["differs", "agrees"]
    assert "target 17" in rows[0].text
    assert "1 of 90 maps differ" in section.one("p", class_="verdict").text


def test_a_batch_becomes_an_item_for_each_image() -> None:
    found = Item.each(answers(3), names=["a", "b", "c"], images=picture(3))
    assert [each.name for each in found] == ["a", "b", "c"]
    for k, each in enumerate(found):
        assert torch.equal(each.answers["grad_cam"].maps["4"], answers(3)["grad_cam"].maps["4"][k : k + 1])
        assert np.abs(each.image - picture(3)[k].movedim(0, -1).numpy()).max() < 1e-6
    page = read(Report(items=found, labels=LABELS).html())
    assert [link.attributes["href"] for link in page.one("nav").all("a")] == ["#item-0", "#item-1", "#item-2"]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Report(), InputError, "nothing to show"),
        (lambda: Item(answers(2)), InputError, "is of 2 images; Item.each"),
        (lambda: Item({"cam": 3}), InputError, "'cam' is a int; give an Attribution"),  # type: ignore[dict-item]
        (lambda: item(image=picture() * 3), InputError, "expected floats in"),
        (lambda: item(comparisons={"cam": 1}), InputError, "give a Comparison"),
        (lambda: Report(items=[1]), InputError, "items holds a int"),  # type: ignore[list-item]
        (lambda: Report(items=[item()], channels=0), InputError, "channels is 0"),
        (lambda: Report(items=[item()], filters={"x": answers()["saliency"]}), InputError, "makes no images"),
        (lambda: Report(items=[item()], labels=LABELS[:2]).html(), InputError, "labels has 2 names"),
        (lambda: Item.each({**answers(2), "x": answers()["saliency"]}), InputError, "give answers about the same"),
        (lambda: Item.each(answers(2), names=["a"]), InputError, "1 names for 2 images"),
    ],
)
def test_what_makes_no_page_is_refused(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        make()


def test_a_map_that_is_not_finite_is_refused() -> None:
    cam = answers()["grad_cam"]
    with pytest.raises(NonFiniteError):
        Report(items=[item(answers={"cam": replace(cam, maps={"1": cam.maps["1"] / 0})})]).html()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Report(items=[item()])
    for place, words in ((tmp_path / "x.pdf", "does not end in .html"), (tmp_path / "no" / "x.html", "does not exist")):
        with pytest.raises(OutputError, match=words):
            page.save(place)
    assert page.save(tmp_path / "page.html").read_text(encoding="utf-8") == page.html()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        page.save(tmp_path / "other.html")
    assert os.listdir(tmp_path) == ["page.html"]


def test_series_and_volumes_are_figures() -> None:
    series = torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 3)
    ).eval()
    answer = explain(series, torch.rand(1, 2, 11), GradCAM(layers=("1",)), target=1)
    page = read(Report(items=[Item({"cam": answer})]).html())
    assert page.all("figure", class_="tile") == []
    assert pixels(page.one("section", class_="plate").one("img").attributes["src"]).std() > 0.05
