"""CAMs from one forward: in closed form where the tail is linear, else by batched gradients."""

from attribution_hooks.cam.grad_cam import HooksGradCAM as HooksGradCAM
from attribution_hooks.cam.layer_cam import HooksLayerCAM as HooksLayerCAM
