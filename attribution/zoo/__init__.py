"""From a model's name to the model, the transform that belongs to its weights, and its class names."""

from attribution.images.samples import sample_photo as sample_photo
from attribution.zoo.adapted import adapted as adapted
from attribution.zoo.loaded import LoadedModel as LoadedModel
from attribution.zoo.spec import load as load
