"""What the backends are held against: independent of torch's autograd and of the product."""

from tests.oracles.formulas import ascend as ascend
from tests.oracles.formulas import bilinear as bilinear
from tests.oracles.formulas import grad_cam as grad_cam
from tests.oracles.formulas import images as images
from tests.oracles.formulas import occlusion as occlusion
from tests.oracles.formulas import softmax as softmax
from tests.oracles.formulas import stacked as stacked
from tests.oracles.net import Net as Net
