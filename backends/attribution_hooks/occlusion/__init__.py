"""Occlusion by windows written into batches."""

from attribution_hooks.occlusion.attributor import HooksOcclusion as HooksOcclusion
