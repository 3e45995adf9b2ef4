"""CAMs from one forward: in closed form where the tail is linear, else by batched gradients."""

from attribution_hooks.cam.ablation_cam import HooksAblationCAM as HooksAblationCAM
from attribution_hooks.cam.eigen_cam import HooksEigenCAM as HooksEigenCAM
from attribution_hooks.cam.element_wise_cam import HooksElementWiseCAM as HooksElementWiseCAM
from attribution_hooks.cam.grad_cam import HooksGradCAM as HooksGradCAM
from attribution_hooks.cam.grad_cam_plus_plus import HooksGradCAMPlusPlus as HooksGradCAMPlusPlus
from attribution_hooks.cam.hires_cam import HooksHiResCAM as HooksHiResCAM
from attribution_hooks.cam.layer_cam import HooksLayerCAM as HooksLayerCAM
from attribution_hooks.cam.score_cam import HooksScoreCAM as HooksScoreCAM
from attribution_hooks.cam.xgrad_cam import HooksXGradCAM as HooksXGradCAM
