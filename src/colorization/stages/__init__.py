"""The LightningModules: one for a single optimizer, one for generator and discriminator, one for a classifier."""

from colorization.stages.classifier import ClassifierStage
from colorization.stages.gan import GANStage
from colorization.stages.regression import RegressionStage

__all__ = ["ClassifierStage", "GANStage", "RegressionStage"]
