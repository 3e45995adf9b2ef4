"""Shows what PyTorch vision models learn and why they predict what they predict.

>>> import torch
>>> from attribution import GradCAM, explain
>>> from attribution.testing import small_cnn
>>> model, inputs = small_cnn(), torch.rand(1, 3, 17, 23)
>>> result = explain(model, inputs, GradCAM(layers=("body",)), backend="hooks", target=3)
>>> result.map.shape
torch.Size([1, 1, 17, 23])
"""

from attribution.agreement import Agreement as Agreement
from attribution.api import Comparison as Comparison
from attribution.api import compare as compare
from attribution.api import explain as explain
from attribution.api import load as load
from attribution.attributor import Attributor as Attributor
from attribution.attributor import Run as Run
from attribution.errors import AttributionError as AttributionError
from attribution.errors import BackendNotInstalledError as BackendNotInstalledError
from attribution.errors import InputError as InputError
from attribution.errors import LayerError as LayerError
from attribution.errors import ModelError as ModelError
from attribution.errors import NonFiniteError as NonFiniteError
from attribution.errors import OutputError as OutputError
from attribution.errors import PluginError as PluginError
from attribution.errors import ResourceError as ResourceError
from attribution.errors import TargetError as TargetError
from attribution.errors import UnknownAttributorError as UnknownAttributorError
from attribution.execution import Execution as Execution
from attribution.registry import available as available
from attribution.registry import register as register
from attribution.result import Attribution as Attribution
from attribution.technique import Technique as Technique
from attribution.techniques import Activations as Activations
from attribution.techniques import FilterVisualization as FilterVisualization
from attribution.techniques import GradCAM as GradCAM
from attribution.techniques import Occlusion as Occlusion
