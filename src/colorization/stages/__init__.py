"""The LightningModules: for a single optimizer and a pixel loss, for a distribution over classes of ab, for generator
and discriminator, and for a classifier."""

from colorization.stages.classifier import ClassifierStage
from colorization.stages.distribution import DistributionStage
from colorization.stages.gan import GANStage
from colorization.stages.regression import RegressionStage

__all__ = ["ClassifierStage", "DistributionStage", "GANStage", "RegressionStage"]
