"""The settings of the forms: one entry each, which checks requests and which ``GET /api/schema`` returns.

Other inputs of a form (files, folders, weights, the model, a person's colours) have their own pickers and are defined
with its route.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from apiflask.fields import Float, Integer, String
from apiflask.validators import OneOf, Range
from marshmallow.fields import Field
from omegaconf import OmegaConf

from colorization.api.routes.fields import JSONBoolean, S, flag, with_fields
from colorization.api.training.composing import choices
from colorization.colorize.colorizer import RANGES, SMALLEST_SIDE
from colorization.colorize.colorizer import Settings as Colours
from colorization.core.color import MERGES
from colorization.files.photofiles import TYPES
from colorization.files.writing import QUALITIES, Output

NONE = "none"  # of a choice that may be left out, in a form, which has no null


@dataclass(frozen=True)
class Choice:
    """One of the values of a setting.

    Attributes:
        value: in requests.
        label: for people; ``help``: its meaning.
        takes: further fields of the form that go with it.
    """

    value: str
    label: str
    help: str = ""
    takes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting of a form.

    Attributes:
        key: the field of the request.
        label: for people; ``help``: its effect, in a sentence or two.
        kind: ``share`` is a number that people see in percent.
        default: where nothing is asked; of a training each model's own, see ``per``.
        low, high: its range, both included; ``above`` its lower limit, not included.
        step: of the buttons and sliders of a form; ``usual``: the largest value that a slider offers, if less than
            ``high``.
        offered: of a number the values that a form offers, if not all.
        choices: its values.
        none: label of "no value"; empty: it always has a value.
        config: the key of the config tree that it overrides, or the field of :class:`.colorizer.Settings` or
            :class:`.writing.Output` that it is.
        per: whether its default depends on the model or on the data.
        of_network: the argument of the weights' network that has its default; other weights do not have it.
        further: whether a form shows it only to those who ask for more.
    """

    key: str
    label: str
    help: str = ""
    kind: Literal["integer", "number", "share", "choice", "flag"]
    default: Any = None
    low: float | None = None
    above: float | None = None
    high: float | None = None
    step: float | None = None
    usual: float | None = None
    offered: tuple[int, ...] = ()
    choices: tuple[Choice, ...] = ()
    none: str = ""
    config: str = ""
    per: Literal["model", "datamodule"] | None = None
    of_network: str = ""
    further: bool = False

    def field(self, multipart: bool, filled: bool) -> Field[Any]:
        """That checks it in a request.

        Args:
            multipart: whether that is a form with files, whose values are text, or JSON.
            filled: whether the request has its default where it is left out.
        """
        description = f"{self.label}. {self.help}".strip()
        given: dict[str, Any] = {"metadata": {"description": description}}
        if self.kind == "flag" and multipart:
            return flag(description)
        if filled:
            given["load_default"] = self.default
        if self.kind == "flag":
            return JSONBoolean(**given)
        if self.kind == "choice":
            values = [choice.value for choice in self.choices]
            if not (self.none and multipart):
                return String(validate=OneOf(values), allow_none=bool(self.none), **given)
            return String(validate=OneOf([*values, NONE]), **given | {"load_default": self.default or NONE})
        low = self.low if self.above is None else self.above
        range_ = Range(low, self.high, min_inclusive=self.above is None)
        if self.kind == "integer":
            return Integer(strict=not multipart, validate=range_, **given)
        return Float(validate=range_, **given)


def with_settings(
    settings: Sequence[Setting], multipart: bool = False, filled: bool = True
) -> Callable[[type[S]], type[S]]:
    """The schema of a request with a field for each of these; arguments as for :meth:`Setting.field`."""
    return with_fields({setting.key: setting.field(multipart, filled) for setting in settings})


def defaults(settings: Sequence[Setting]) -> dict[str, Any]:
    """The values of a request that sets nothing."""
    return {setting.key: setting.default for setting in settings}


def overrides(settings: Sequence[Setting], asked: Mapping[str, Any]) -> list[str]:
    """Those of a command that a request asks for, of plain values."""
    found = [(s.config, asked[s.key]) for s in settings if s.key in asked]
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in found]


def given_to(cls: type, settings: Sequence[Setting], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a dataclass that a request asks for."""
    own = {field.name for field in dataclasses.fields(cls)}
    return {s.config: asked[s.key] for s in settings if s.config in own}


def _shipped(file: str, key: str) -> Any:
    """A value of a file of the config tree, which no other file replaces; composing it all takes seconds."""
    text = (resources.files("colorization.configs") / file).read_text(encoding="utf-8")
    return OmegaConf.select(OmegaConf.create(text), key)


_DATA = (
    Choice(
        "folder",
        "Your photos",
        "A folder below a data root of the server, split by itself for validation and test.",
        takes=("data",),
    ),
    Choice("sample", "Sample photos", "A few photos that are always there. Shows that all works; little is learnt."),
    Choice("coco", "COCO val2017", "5,000 photos; `make data` downloads them.", takes=("data",)),
    Choice("cifar10", "CIFAR-10", "60,000 tiny pictures of 32 × 32; downloaded at the first run."),
    Choice(
        "imagenet-sample",
        "ImageNet sample",
        "One photo of each of 1,000 classes, in `data/imagenet-sample` of the server.",
    ),
    Choice("photos", "Photos in three folders", "`train`, `val` and `test` in the data folder of the server."),
    Choice(
        "shards",
        "Shards",
        "A folder below a data root that `python -m colorization.pack to=...` wrote.",
        takes=("data",),
    ),
)
_MERGES = tuple(Choice(name, name.capitalize()) for name in MERGES)
_FORMATS = {"jpeg": "JPEG", "png": "PNG, lossless", "tiff": "TIFF, lossless", "webp": "WebP"}

DATAMODULE = Setting(
    key="datamodule",
    label="Photos",
    help="Kind of data.",
    kind="choice",
    default=next(group["datamodule"] for group in _shipped("train.yaml", "defaults") if "datamodule" in group),
    # Kinds that others have added to the config tree go by their names.
    choices=(*_DATA, *(Choice(n, n) for n in choices("datamodule") if n not in {c.value for c in _DATA})),
    config="datamodule",
)
TRAINING = (
    Setting(
        key="image_size",
        label="Image size",
        help="Side of the crops, pixels.",
        kind="integer",
        low=SMALLEST_SIDE,
        high=4096,
        step=32,
        config="datamodule.image_size",
        per="datamodule",
    ),
    Setting(
        key="epochs", label="Epochs", kind="integer", low=1, high=100_000, config="trainer.max_epochs", per="model"
    ),
    Setting(
        key="batch_size",
        label="Batch size",
        kind="integer",
        low=1,
        high=4096,
        config="datamodule.batch_size",
        per="model",
    ),
    Setting(
        key="lr",
        label="Learning rate",
        kind="number",
        above=0,
        high=1,
        step=0.0001,
        config="model.optimizer.lr",
        per="model",
    ),
    Setting(
        key="l1_weight",
        label="L1 weight",
        help="Of the L1 term beside the adversarial one.",
        kind="number",
        low=0,
        high=10_000,
        step=10,
        config="loss.l1_weight",
        per="model",
    ),
    Setting(
        key="width",
        label="Network width",
        help="Channels of its first level.",
        kind="integer",
        low=1,
        high=1024,
        step=8,
        config="model.network.width",
        per="model",
        further=True,
    ),
    Setting(
        key="lr_schedule",
        label="Schedule",
        help="Of the learning rate.",
        kind="choice",
        choices=(
            Choice("linear_decay", "Constant, then falling"),
            Choice("constant", "Constant"),
            Choice("cosine", "Cosine"),
        ),
        config="model.lr_schedule",
        per="model",
        further=True,
    ),
    Setting(key="seed", label="Seed", kind="integer", low=0, high=2**32 - 1, config="seed", per="model", further=True),
    Setting(
        key="accelerator",
        label="Device",
        kind="choice",
        choices=(
            Choice("auto", "The best that is there"),
            Choice("cpu", "Processor"),
            Choice("cuda", "NVIDIA GPU"),
            Choice("mps", "Apple GPU"),
        ),
        config="trainer.accelerator",
        per="model",
        further=True,
    ),
)
EVALUATION = (
    Setting(
        key="image_size",
        label="Side of the crops, pixels",
        help="Smaller is faster; figures of different sizes cannot be compared.",
        kind="integer",
        default=_shipped("datamodule/_common.yaml", "image_size"),
        low=SMALLEST_SIDE,
        high=2048,
        step=32,
        config="datamodule.image_size",
    ),
    Setting(
        key="ensemble",
        label="All models merged, as one more row",
        kind="choice",
        default=_shipped("eval.yaml", "ensemble"),
        choices=_MERGES,
        none="No",
        config="ensemble",
    ),
    Setting(
        key="uncertainty",
        label="Uncertainty too",
        help="How well it tells the error; takes about five times as long.",
        kind="flag",
        default=_shipped("eval.yaml", "uncertainty"),
        config="uncertainty",
    ),
)
_SIZE = Setting(
    key="size",
    label="Model input size",
    help="Short side of what the network sees, pixels. The result always has all the photo's pixels.",
    kind="integer",
    default=Colours().size,
    low=SMALLEST_SIDE,
    high=512,
    offered=(64, 128, 192, 256, 384, 512),
    none="As it was trained",
    config="size",
)
_FLIPS = Setting(
    key="flips",
    label="Average with mirror image",
    help="Steadier, twice the time.",
    kind="flag",
    default=Colours().flips,
    config="flips",
)
_FORMAT = Setting(
    key="format",
    label="File format",
    kind="choice",
    default=Output().type,
    choices=(Choice("same", "As the photo"), *(Choice(name, _FORMATS.get(name, name)) for name in sorted(TYPES))),
    config="type",
)
COMPARISON = (
    Setting(
        key="ensemble",
        label="All of them merged, as an ensemble",
        kind="choice",
        default=Colours().merge,
        choices=_MERGES,
        none="None",
        config="merge",
    ),
    Setting(
        key="uncertainty",
        label="Uncertainty",
        help="Maps of where the colours were guessed; takes longer.",
        kind="flag",
        default=False,
    ),
    dataclasses.replace(_SIZE, high=1024, further=True),
    dataclasses.replace(_FLIPS, further=True),
    dataclasses.replace(_FORMAT, further=True),
)
COLORIZE = (
    Setting(
        key="mode",
        label="Kind of photo",
        kind="choice",
        default="grey",
        choices=(
            Choice("grey", "Grey photo", "Any colours of its own are ignored."),
            Choice("color", "Colour photo", "Its own colours are the truth that the result is measured by."),
        ),
    ),
    Setting(
        key="vividness",
        label="Vividness",
        help="0 %: the likeliest colours. 100 %: the boldest.",
        kind="share",
        default=Colours().vividness,
        low=RANGES["vividness"][0],
        high=RANGES["vividness"][1],
        step=0.05,
        config="vividness",
        of_network="vividness",
    ),
    Setting(
        key="strength",
        label="Strength",
        help="0 % leaves it grey.",
        kind="share",
        default=Colours().strength,
        low=RANGES["strength"][0],
        high=RANGES["strength"][1],
        step=0.01,
        config="strength",
    ),
    Setting(
        key="saturation",
        label="Saturation",
        help="Factor on the chroma.",
        kind="share",
        default=Colours().saturation,
        low=RANGES["saturation"][0],
        high=RANGES["saturation"][1],
        step=0.05,
        usual=3,
        config="saturation",
    ),
    _SIZE,
    _FORMAT,
    _FLIPS,
    Setting(
        key="uncertainty",
        label="Uncertainty",
        help="Shows where the model was guessing: bright is unsure.",
        kind="flag",
        default=False,
    ),
    Setting(
        key="quality",
        label="Quality",
        help="Of JPEG and WebP.",
        kind="integer",
        default=Output().quality,
        low=QUALITIES[0],
        high=QUALITIES[1],
        config="quality",
        further=True,
    ),
    Setting(
        key="ensemble",
        label="How several weights are merged",
        kind="choice",
        default=Colours().merge,
        choices=_MERGES,
        config="merge",
        further=True,
    ),
)
FORMS = {"training": (DATAMODULE, *TRAINING), "evaluation": EVALUATION, "comparison": COMPARISON, "colorize": COLORIZE}
