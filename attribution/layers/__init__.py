"""Layer names ↔ modules, what each layer puts out, and the layers a technique takes by default."""

from attribution.layers.defaults import activation_layers as activation_layers
from attribution.layers.defaults import grad_cam_layer as grad_cam_layer
from attribution.layers.ending import ended_at as ended_at
from attribution.layers.ending import outputs_until as outputs_until
from attribution.layers.grids import patch_grids as patch_grids
from attribution.layers.names import LayerName as LayerName
from attribution.layers.names import cut_off as cut_off
from attribution.layers.names import find as find
from attribution.layers.names import never_ran as never_ran
from attribution.layers.names import no_influence as no_influence
from attribution.layers.names import no_space as no_space
from attribution.layers.names import not_a_tensor as not_a_tensor
from attribution.layers.names import per_image as per_image
from attribution.layers.names import runs_often as runs_often
from attribution.layers.trace import Stop as Stop
from attribution.layers.trace import graph_bytes as graph_bytes
from attribution.layers.trace import missing as missing
from attribution.layers.trace import peak_bytes as peak_bytes
from attribution.layers.trace import record as record
from attribution.layers.trace import run_once as run_once
from attribution.layers.trace import survey as survey
