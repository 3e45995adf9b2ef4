"""Figures of tensors, pictures and strings; knows nothing of techniques, and never uses pyplot."""

from attribution.plots.contact import contact_sheet as contact_sheet
from attribution.plots.figures import activation_figure as activation_figure
from attribution.plots.figures import difference_figure as difference_figure
from attribution.plots.figures import heatmap_figure as heatmap_figure
from attribution.plots.figures import image_figure as image_figure
from attribution.plots.pixels import normalise as normalise
from attribution.plots.pixels import overlay as overlay
from attribution.plots.pixels import signed_overlay as signed_overlay
from attribution.plots.sheet import save as save
