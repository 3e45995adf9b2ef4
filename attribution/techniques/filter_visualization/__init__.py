"""Filter visualisation by gradient ascent: which pattern excites this filter most?"""

from attribution.techniques.filter_visualization.agreeing import FIRST_STEP as FIRST_STEP
from attribution.techniques.filter_visualization.objectives import ChannelsObjective as ChannelsObjective
from attribution.techniques.filter_visualization.objectives import DirectionObjective as DirectionObjective
from attribution.techniques.filter_visualization.objectives import FunctionObjective as FunctionObjective
from attribution.techniques.filter_visualization.objectives import Objective as Objective
from attribution.techniques.filter_visualization.objectives import SumObjective as SumObjective
from attribution.techniques.filter_visualization.optimisation import DEAD as DEAD
from attribution.techniques.filter_visualization.optimisation import DIVERGED as DIVERGED
from attribution.techniques.filter_visualization.optimisation import OK as OK
from attribution.techniques.filter_visualization.optimisation import Gradient as Gradient
from attribution.techniques.filter_visualization.optimisation import filters_at_once as filters_at_once
from attribution.techniques.filter_visualization.reading import Reading as Reading
from attribution.techniques.filter_visualization.receptive_field import Crop as Crop
from attribution.techniques.filter_visualization.receptive_field import find_crop as find_crop
from attribution.techniques.filter_visualization.technique import FilterVisualization as FilterVisualization
from attribution.techniques.filter_visualization.units import LOGITS as LOGITS
