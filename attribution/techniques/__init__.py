"""The built-in techniques."""

from attribution.techniques.activations import Activations as Activations
from attribution.techniques.cam.eigen_cam import EigenCAM as EigenCAM
from attribution.techniques.cam.element_wise_cam import ElementWiseCAM as ElementWiseCAM
from attribution.techniques.cam.grad_cam import GradCAM as GradCAM
from attribution.techniques.cam.grad_cam_plus_plus import GradCAMPlusPlus as GradCAMPlusPlus
from attribution.techniques.cam.hires_cam import HiResCAM as HiResCAM
from attribution.techniques.cam.layer_cam import LayerCAM as LayerCAM
from attribution.techniques.cam.xgrad_cam import XGradCAM as XGradCAM
from attribution.techniques.filter_visualization import ChannelsObjective as ChannelsObjective
from attribution.techniques.filter_visualization import DirectionObjective as DirectionObjective
from attribution.techniques.filter_visualization import FilterVisualization as FilterVisualization
from attribution.techniques.filter_visualization import FunctionObjective as FunctionObjective
from attribution.techniques.filter_visualization import Objective as Objective
from attribution.techniques.filter_visualization import SumObjective as SumObjective
from attribution.techniques.gradient.deconvolution import Deconvolution as Deconvolution
from attribution.techniques.gradient.gradient_shap import GradientSHAP as GradientSHAP
from attribution.techniques.gradient.guided_backprop import GuidedBackprop as GuidedBackprop
from attribution.techniques.gradient.guided_grad_cam import GuidedGradCAM as GuidedGradCAM
from attribution.techniques.gradient.input_x_gradient import InputXGradient as InputXGradient
from attribution.techniques.gradient.integrated_gradients import IntegratedGradients as IntegratedGradients
from attribution.techniques.gradient.saliency import Saliency as Saliency
from attribution.techniques.gradient.smooth_grad import SmoothGrad as SmoothGrad
from attribution.techniques.perturbation.occlusion import Occlusion as Occlusion
