"""What is measured: one entry for each figure. Tables, cards, comparisons and protocols read it here. Imports no torch.

How each is computed stands in :mod:`colorization.evaluation.metrics`; what is measured of a photo or of a row is named
there by the entry's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PSNR_LIMIT = 58.92  # dB: errors below the rounding of 8-bit pixels (variance 1/12 of a step) do not count
LIGHT_EDGE = 10.0  # L*: a step from which on an edge in lightness may carry one in colour
STAINED, UNSTAINED = 25.0, 8.0  # chroma, Lab units


@dataclass(frozen=True)
class Metric:
    """A figure of an evaluation.

    Attributes:
        name: in ``metrics.json``, ``per_image.csv`` and the code.
        label: for people, e.g. on an axis.
        heading: of its column: the label, an arrow towards what is better, the unit.
        digits: behind the point.
        better: ``higher`` or ``lower``; ``None`` where neither is (a colorfulness beyond the truth's is no virtue).
        form: how it is defined, with its source.
        shown: whether the table has its column unless asked otherwise.
        paired: whether rows are compared by it, photo by photo.
        trained: whether training measures it, too.
    """

    name: str
    label: str
    heading: str
    digits: int
    better: Literal["higher", "lower"] | None
    form: str
    shown: bool = True
    paired: bool = True
    trained: bool = False


_ACCURACY = (
    "% of the pixels right in all channels: |dL*| <= t, |da*| <= 2.2 t, |db*| <= 2.2 t, each rounded to whole units "
    "first (Nazeri et al. 2018, as their code has it)"
)
METRICS = (
    Metric(
        "psnr",
        "PSNR",
        "PSNR ↑ (dB)",
        2,
        "higher",
        f"mean of images, at most {PSNR_LIMIT} dB (8-bit rounding)",
        trained=True,
    ),
    Metric(
        "ssim",
        "SSIM",
        "SSIM ↑",
        4,
        "higher",
        "Gaussian 11x11, sigma 1.5, windows inside the picture only (Wang et al. 2004)",
        trained=True,
    ),
    Metric("lpips", "LPIPS", "LPIPS ↓", 4, "lower", "AlexNet, v0.1 (Zhang et al. 2018)", trained=True),
    Metric(
        "delta_e2000",
        "ΔE2000",
        "ΔE2000 ↓",
        2,
        "lower",
        "CIEDE2000 (Sharma et al. 2005) of the displayed colours, mean over the pixels",
        trained=True,
    ),
    Metric(
        "colorfulness", "colorfulness", "CF", 1, None, "Hasler-Suesstrunk 2003 M3, signed", paired=False, trained=True
    ),
    Metric(
        "delta_colorfulness",
        "ΔCF",
        "ΔCF ↓",
        1,
        "lower",
        "|mean colorfulness of predictions - mean colorfulness of truths|",
        paired=False,
        trained=True,
    ),
    Metric(
        "photo_delta_colorfulness",
        "photo ΔCF",
        "photo ΔCF ↓",
        1,
        "lower",
        "mean over photos of |colorfulness of the prediction - colorfulness of the truth|",
        shown=False,
    ),
    Metric(
        "mae",
        "MAE",
        "MAE ↓ (Lab)",
        2,
        "lower",
        "mean |difference| over pixels and the three channels L*, a*, b*, Lab units, of the displayed colours",
        shown=False,
    ),
    Metric("accuracy_2", "ε2", "ε2 % ↑", 1, "higher", f"{_ACCURACY}, t = 2", shown=False),
    Metric("accuracy_5", "ε5", "ε5 % ↑", 1, "higher", f"{_ACCURACY}, t = 5", shown=False),
    Metric(
        "bleeding",
        "bleeding",
        "bleeding (%)",
        1,
        None,
        f"% of the change in a*b* that is further than sigma from every edge in the true L* (steps of {LIGHT_EDGE:g} "
        "or more), gradients under a Gaussian of sigma = short side / 128, at least 1 pixel; of colours rounded to "
        "8-bit RGB",
    ),
    Metric(
        "stains",
        "stains",
        "stains (%) ↓",
        1,
        "lower",
        "% of photos with a stain: a square of an eighth of the short side whose mean a*b* have a chroma above "
        f"{STAINED:g} where the mean chroma of the truth is below {UNSTAINED:g}; squares half a side apart",
    ),
    Metric(
        "stability",
        "size ΔE",
        "size ΔE ↓",
        2,
        "lower",
        "mean dE2000 of pixels between what is predicted at each two working sizes, after reduction to the size of the "
        "crop",
    ),
    Metric(
        "top1",
        "top-1",
        "top-1 % ↑",
        1,
        "higher",
        "share of the photos whose path names a synset of ImageNet (n01440764, ...) that the classifier puts there "
        "first, as Zhang et al. 2016 test the meaning of colours; each photo enlarged to the classifier's own size",
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}
# Of pixels against pixels: what is better can be said of a single photo, and training measures it.
HIGHER_IS_BETTER = {m.name: m.better == "higher" for m in METRICS if m.trained and m.paired}
# Of two sets of photos.
KID_FORM = (
    "kernel distance (Binkowski et al. 2018, cubic kernel, unbiased, all photos at once) times 1000, of the features "
    "that the judge classifies by: not Inception's, and no figure of other papers compares"
)
