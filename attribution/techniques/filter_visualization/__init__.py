"""Filter visualisation by gradient ascent: which pattern excites this filter most?"""

from attribution.techniques.filter_visualization.objectives import LOGITS as LOGITS
from attribution.techniques.filter_visualization.optimisation import DEAD as DEAD
from attribution.techniques.filter_visualization.optimisation import DIVERGED as DIVERGED
from attribution.techniques.filter_visualization.optimisation import OK as OK
from attribution.techniques.filter_visualization.optimisation import Gradient as Gradient
from attribution.techniques.filter_visualization.optimisation import filters_at_once as filters_at_once
from attribution.techniques.filter_visualization.receptive_field import Crop as Crop
from attribution.techniques.filter_visualization.receptive_field import find_crop as find_crop
from attribution.techniques.filter_visualization.technique import FIRST_STEP as FIRST_STEP
from attribution.techniques.filter_visualization.technique import FilterVisualization as FilterVisualization
