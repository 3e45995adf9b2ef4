"""What a notebook shows, in a real kernel: figures and answers as pictures, models and tables in a line."""

import base64
import io
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

CELLS = [
    """
import torch
from attribution import GradCAM, compare, explain
from attribution.testing import small_cnn
from attribution.zoo import LoadedModel
model, inputs = small_cnn(), torch.rand(1, 3, 17, 23)
result = explain(model, inputs, GradCAM(layers=("body",)), target=3)
""",
    "result.figure(inputs, ['tea', 'cup', 'pan', 'jug', 'pot'])",
    "result",
    "result.figure(inputs).savefig  # a figure that is no value of a cell is not shown",
    "LoadedModel('mine', model, None, (0.0,) * 3, (1.0,) * 3, ['a', '<b>'])",
    "compare(model, inputs, GradCAM(layers=('body',)), target=3)",
]


@pytest.fixture(scope="module")
def outputs() -> list[list[Any]]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    # The kernel's sockets may be closed by the collector, which warns.
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def spread(data: str) -> float:
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return float(np.asarray(picture.convert("L")).std())


def test_a_figure_shows_itself_once(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[1]
    assert spread(shown["data"]["image/png"]) > 20
    (other,) = outputs[3]
    assert "image/png" not in other["data"]


def test_an_answer_is_a_picture_with_a_line(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[2]
    assert shown["data"]["text/plain"].startswith("<Attribution grad_cam.hooks: 'body' (1, 1, 17, 23)>")
    html = shown["data"]["text/html"]
    assert spread(html.partition("base64,")[2].partition('"')[0]) > 20


def test_a_loaded_model_is_a_line(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[4]
    assert shown["data"]["text/plain"] == "<LoadedModel mine: Sequential, 2 classes>"
    assert "<td>2: a, &lt;b&gt;</td>" in shown["data"]["text/html"]


def test_a_comparison_is_a_verdict_a_table_and_the_difference(outputs: list[list[Any]]) -> None:
    (shown,) = (output for output in outputs[5] if output.output_type == "execute_result")
    assert shown["data"]["text/plain"].startswith("<Comparison grad_cam: captum, hooks agree, at most ")
    html = shown["data"]["text/html"]
    assert "body · image 0 · target 3" in html
    assert "agrees" in html
    assert spread(html.partition("base64,")[2].partition('"')[0]) > 20
