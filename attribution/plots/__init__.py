"""Figures of tensors, pictures and strings; knows nothing of techniques, and never uses pyplot."""

from attribution.plots.backdrops import pictures as pictures
from attribution.plots.contact import contact_sheet as contact_sheet
from attribution.plots.figures import activation_figure as activation_figure
from attribution.plots.figures import difference_figure as difference_figure
from attribution.plots.figures import image_figure as image_figure
from attribution.plots.heatmaps import heatmap_figure as heatmap_figure
from attribution.plots.heatmaps import overlay as overlay
from attribution.plots.heatmaps import signed_overlay as signed_overlay
from attribution.plots.pixels import normalise as normalise
from attribution.plots.sheet import save as save
from attribution.plots.side_by_side import Heatmaps as Heatmaps
from attribution.plots.side_by_side import side_by_side_figure as side_by_side_figure
