"""
Maps while a model learns
=========================

``AttributionCallback`` draws the maps of the same images while a model is trained with Lightning. The network learns
here to find a cross among circles; its Grad-CAM moves to the cross.
"""

# %%

import logging
import warnings

import lightning.pytorch as pl
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from attribution import GradCAM, runs

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")
torch.manual_seed(0)


def drawings(count: int, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 3, 48, 48) with three circles, in half of them one is a cross: class 1."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    images, classes = 0.2 * torch.rand(count, 3, 48, 48, generator=random), torch.arange(count) % 2
    for image, has_cross in zip(images, classes.tolist(), strict=True):
        corners = torch.randperm(4, generator=random)[:3].tolist()
        for number, corner in enumerate(corners):
            dy, dx = y - 12 - 24 * (corner // 2), x - 12 - 24 * (corner % 2)
            circle = ((dy**2 + dx**2).sqrt() - 7).abs() < 1.5
            cross = ((dy.abs() < 1.5) | (dx.abs() < 1.5)) & (torch.maximum(dy.abs(), dx.abs()) < 8)
            image[:, cross if has_cross and number == 0 else circle] = 1.0
    return images, classes


class Classifier(pl.LightningModule):
    """Three convolutions, a mean over places, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 16), (16, 32), (32, 32))
        layers = [part for i, o in sizes for part in (nn.Conv2d(i, o, 3, stride=2, padding=1), nn.ReLU())]
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.net.parameters(), lr=2e-3)


# %%
# The callback explains the same four images after epochs 2, 4, 8 … and hands a strip of pictures to ``log``; without
# ``log`` it goes to TensorBoard, Weights & Biases or MLflow, whichever the trainer logs to.

shown, _ = drawings(8, torch.Generator().manual_seed(1))
strips = []
callback = runs.AttributionCallback(
    GradCAM(layers=("4",)),
    shown[1::2],
    every_n_epochs=4,
    log=lambda name, image, step: strips.append((step, image)),
    model=lambda module: module.net,
    target=1,
)
data = TensorDataset(*drawings(512, torch.Generator().manual_seed(2)))
trainer = pl.Trainer(
    max_epochs=16,
    accelerator="cpu",
    callbacks=[callback],
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(Classifier(), DataLoader(data, batch_size=64, shuffle=True))

figure = Figure(figsize=(7, 7), layout="constrained")
for axes, (step, strip) in zip(figure.subplots(len(strips), 1), strips, strict=True):
    axes.imshow(strip)
    axes.set_title(f"after {step} steps: Grad-CAM of 'a cross is there'", loc="left", fontsize=10)
    axes.set_axis_off()
