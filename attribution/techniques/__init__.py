"""The four built-in techniques."""

from attribution.techniques.activations import Activations as Activations
from attribution.techniques.filter_visualization import FilterVisualization as FilterVisualization
from attribution.techniques.grad_cam import GradCAM as GradCAM
from attribution.techniques.occlusion import Occlusion as Occlusion
