"""Attention by one function mode: a forward in plain steps, and gradients through it."""

from attribution_hooks.attention.attention import HooksAttention as HooksAttention
from attribution_hooks.attention.gradient_attention import HooksGradientAttention as HooksGradientAttention
from attribution_hooks.attention.legrad import HooksLeGrad as HooksLeGrad
from attribution_hooks.attention.rollout import HooksAttentionRollout as HooksAttentionRollout
