"""The LightningModules: one for a single optimizer, one for generator and discriminator."""

from colorization.stages.gan import GANStage
from colorization.stages.regression import RegressionStage

__all__ = ["GANStage", "RegressionStage"]
