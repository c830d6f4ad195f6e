"""The list of metrics: one entry each, read by tables, cards, protocols and (``GET /api/schema``) the web app.

Imports no torch. A metric of a photo is one entry, whose ``formula`` names the function that computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PSNR_LIMIT = 58.92  # dB: errors below the rounding of 8-bit pixels (variance 1/12 of a step) do not count
LIGHT_EDGE = 10.0  # L*: a step from which on an edge in lightness may carry one in colour
STAINED, UNSTAINED = 25.0, 8.0  # chroma, Lab units
MAIN = "delta_e2000"  # by which rows, runs and photos are put into order


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of an evaluation.

    Attributes:
        name: in ``metrics.json``, ``per_image.csv`` and the code.
        label: for people, short: of a column or a card.
        title: the same where there is room, e.g. above a curve; empty: the label.
        unit: after the figure; empty: none.
        digits: behind the point, in all tables and pages.
        better: ``higher`` or ``lower``; ``None`` if neither is (more colorfulness than the truth's is no virtue).
        help: its meaning, for people who do not know it.
        form: how it is defined, with its source.
        formula: the function that computes it for each photo; its parameters are named as in
            :class:`colorization.evaluation.metrics.Compared`. ``None``: it has no value for a single photo, or a
            collector of :mod:`colorization.evaluation.scoring` measures it.
        arguments: further ones of the formula.
        axis: a bad and a good value, as centre and edge of a radar; ``None``: it has no axis.
        shown: whether tables have its column unless asked otherwise.
        paired: whether rows are compared by it, photo by photo.
        trained: whether training also measures it, and the colorizer on a photo in colour.
    """

    name: str
    label: str
    title: str = ""
    unit: str = ""
    digits: int
    better: Literal["higher", "lower"] | None
    help: str
    form: str
    formula: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    axis: tuple[float, float] | None = None
    shown: bool = True
    paired: bool = True
    trained: bool = False

    @property
    def heading(self) -> str:
        """The heading of its column: the label, an arrow in the better direction, the unit."""
        arrow = {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
        return self.label + arrow + (f" ({self.unit})" if self.unit else "")


_FORMULAS = "colorization.evaluation.metrics"
_ACCURACY = (
    "% of the pixels right in all channels: |dL*| <= t, |da*| <= 2.2 t, |db*| <= 2.2 t, each rounded to whole units "
    "first (Nazeri et al. 2018, as their code has it)"
)
METRICS = (
    Metric(
        name="psnr",
        label="PSNR",
        unit="dB",
        digits=2,
        better="higher",
        help="on RGB rebuilt from the true lightness; near-grey photos dominate its mean",
        form=f"mean of images, at most {PSNR_LIMIT} dB (8-bit rounding)",
        formula=f"{_FORMULAS}.psnr",
        axis=(15, 35),
        trained=True,
    ),
    Metric(
        name="ssim",
        label="SSIM",
        digits=4,
        better="higher",
        help="structural similarity; 1 is exact",
        form="Gaussian 11x11, sigma 1.5, windows inside the picture only (Wang et al. 2004)",
        formula=f"{_FORMULAS}.ssim",
        axis=(0.6, 1),
        trained=True,
    ),
    Metric(
        name="lpips",
        label="LPIPS",
        digits=4,
        better="lower",
        help="distance as AlexNet sees it; 0 is exact",
        form="AlexNet, v0.1 (Zhang et al. 2018)",
        formula=f"{_FORMULAS}.lpips",
        axis=(0.5, 0),
        trained=True,
    ),
    Metric(
        name="delta_e2000",
        label="ΔE2000",
        digits=2,
        better="lower",
        help="mean perceptual colour difference; 1 is just noticeable",
        form="CIEDE2000 (Sharma et al. 2005) of the displayed colours, mean over the pixels",
        formula=f"{_FORMULAS}.delta_e2000",
        axis=(25, 0),
        trained=True,
    ),
    Metric(
        name="colorfulness",
        label="CF",
        title="Colorfulness",
        digits=1,
        better=None,
        help="colorfulness of Hasler and Süsstrunk, to be compared with that of the truth",
        form="Hasler-Suesstrunk 2003 M3, signed",
        formula="colorization.core.color.colorfulness",
        paired=False,
        trained=True,
    ),
    Metric(
        name="delta_colorfulness",
        label="ΔCF",
        title="Distance in colorfulness",
        digits=1,
        better="lower",
        help="distance of the mean colorfulness to that of the truth; large for timid colours",
        form="|mean colorfulness of predictions - mean colorfulness of truths|",
        paired=False,
        trained=True,
    ),
    Metric(
        name="photo_delta_colorfulness",
        label="photo ΔCF",
        digits=1,
        better="lower",
        help="distance in colorfulness, photo by photo",
        form="mean over photos of |colorfulness of the prediction - colorfulness of the truth|",
        formula=f"{_FORMULAS}.photo_delta_colorfulness",
        shown=False,
    ),
    Metric(
        name="mae",
        label="MAE",
        unit="Lab",
        digits=2,
        better="lower",
        help="mean absolute error of the pixels in Lab",
        form="mean |difference| over pixels and the three channels L*, a*, b*, Lab units, of the displayed colours",
        formula=f"{_FORMULAS}.mae",
        shown=False,
    ),
    *(
        Metric(
            name=f"accuracy_{t}",
            label=f"ε{t}",
            unit="%",
            digits=1,
            better="higher",
            help=f"share of the pixels that are right within {t} %",
            form=f"{_ACCURACY}, t = {t}",
            formula=f"{_FORMULAS}.accuracy",
            arguments={"threshold": t},
            shown=False,
        )
        for t in (2, 5)
    ),
    Metric(
        name="bleeding",
        label="bleeding",
        unit="%",
        digits=1,
        better=None,
        help="share of the change in colour that is beside no edge in lightness",
        form="% of the change in a*b* that is further than sigma from every edge in the true L* (steps of "
        f"{LIGHT_EDGE:g} or more), gradients under a Gaussian of sigma = short side / 128, at least 1 pixel; of "
        "colours rounded to 8-bit RGB",
        formula=f"{_FORMULAS}.bleeding",
    ),
    Metric(
        name="stains",
        label="stains",
        unit="%",
        digits=1,
        better="lower",
        help="share of photos with a patch of strong colour where the truth is as good as grey",
        form="% of photos with a stain: a square of an eighth of the short side whose mean a*b* have a chroma above "
        f"{STAINED:g} where the mean chroma of the truth is below {UNSTAINED:g}; squares half a side apart",
        formula=f"{_FORMULAS}.stains",
    ),
    Metric(
        name="stability",
        label="size ΔE",
        digits=2,
        better="lower",
        help="ΔE2000 between the colours at different working sizes",
        form="mean dE2000 of pixels between what is predicted at each two working sizes, after reduction to the size "
        "of the crop",
    ),
    Metric(
        name="top1",
        label="top-1",
        unit="%",
        digits=1,
        better="higher",
        help="share of the photos in which a classifier sees first what they show",
        form="share of the photos whose path names a synset of ImageNet (n01440764, ...) that the classifier puts "
        "there first, as Zhang et al. 2016 test the meaning of colours; each photo enlarged to the classifier's own "
        "size",
    ),
)


@dataclass(frozen=True)
class Logged:
    """A value that training logs besides the metrics.

    Attributes:
        name: in ``metrics.csv`` of a run, after its split.
        title: for people; ``unit``, ``digits``, ``better``: as in :class:`Metric`.
        first: whether its curve is shown at once.
    """

    name: str
    title: str
    digits: int
    better: Literal["higher", "lower"] | None = None
    unit: str = ""
    first: bool = False


LOGGED = (
    Logged("loss", "Loss", 3, "lower", first=True),
    Logged("d_loss", "Discriminator loss", 3, first=True),
    Logged("lr", "Learning rate", 6, first=True),
    Logged("l1", "L1", 4, "lower"),
    Logged("error", "Wrong answers", 3, "lower"),
    Logged("delta_e2000_cf", "ΔE2000 + ΔCF", 2, "lower"),
    Logged("g_adversarial", "Generator, adversarial part", 3),
    Logged("d_real", "Discriminator on real photos", 3),
    Logged("d_fake", "Discriminator on predictions", 3),
    Logged("d_lr", "Learning rate of the discriminator", 6),
    Logged("true_colorfulness", "Colorfulness of the photos", 1),
    Logged("images_per_second", "Photos a second", 1),
    Logged("peak_memory_mb", "Memory", 0, unit="MB"),
)
BY_NAME = {metric.name: metric for metric in METRICS}
# Metrics that compare pixels with pixels, which training measures: a single photo has a better and a worse value.
HIGHER_IS_BETTER = {m.name: m.better == "higher" for m in METRICS if m.trained and m.paired}
# Of two sets of photos.
KID_FORM = (
    "kernel distance (Binkowski et al. 2018, cubic kernel, unbiased, all photos at once) times 1000, of the features "
    "that the judge classifies by: not Inception's, and no figure of other papers compares"
)
