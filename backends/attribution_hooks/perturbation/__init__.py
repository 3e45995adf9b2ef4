"""Covered inputs, sent through the model in batches."""

from attribution_hooks.perturbation.feature_ablation import HooksFeatureAblation as HooksFeatureAblation
from attribution_hooks.perturbation.occlusion import HooksOcclusion as HooksOcclusion
from attribution_hooks.perturbation.rise import HooksRISE as HooksRISE
from attribution_hooks.perturbation.shapley import HooksKernelSHAP as HooksKernelSHAP
from attribution_hooks.perturbation.shapley import HooksLIME as HooksLIME
from attribution_hooks.perturbation.shapley import HooksShapleySampling as HooksShapleySampling
