"""The LightningModules: for a single optimizer and a pixel loss, for a distribution over classes of ab (alone or told
colours), for generator
and discriminator, and for a classifier."""

from colorization.training.stages.classifier import ClassifierStage
from colorization.training.stages.distribution import DistributionStage
from colorization.training.stages.gan import GANStage
from colorization.training.stages.hinted import HintedStage
from colorization.training.stages.regression import RegressionStage

__all__ = ["ClassifierStage", "DistributionStage", "GANStage", "HintedStage", "RegressionStage"]
