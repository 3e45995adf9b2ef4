"""Reports: answers about images as one HTML file that opens anywhere, without a network.

>>> import torch
>>> from attribution import GradCAM, explain
>>> from attribution.report import Item, Report
>>> from attribution.testing import small_cnn
>>> model, inputs = small_cnn(), torch.rand(1, 3, 17, 23)
>>> answer = explain(model, inputs, GradCAM(layers=("body",)), target=3)
>>> page = Report(items=[Item({"grad_cam": answer}, image=inputs)]).html()
>>> page.startswith("<!doctype html>")
True
"""

from attribution.report.report import Item as Item
from attribution.report.report import Report as Report
