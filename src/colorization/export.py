"""Export weights: ``python -m colorization.export weights=<file or run> format=onnx``, for machines without torch.

The result takes any batch, height and width, and says what it is as the weights do (:mod:`.descriptions`),
with the SHA-256 of the file that it was made from. Its input ``L`` is (N, 1, h, w) float32 in [0, 1], its output ``ab``
(K, N, 2, h, w) float32 normalised, from each of K members (1 but for an ensemble). A network with a distribution over
classes of ab also takes ``vividness``, one float32 in [0, 1], and gives its ``distribution``, (N, Q, h', w') float32
log-probabilities of the colours :func:`colorization.core.color.ab_grid` (grid) as often as in the photographs.

``format=float16`` writes the weights themselves in half the size, to pass on.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from colorization.core import hydra_main
from colorization.core.errors import InputError
from colorization.models import backends, checkpoint
from colorization.models.onnx_export import ENDINGS, export
from colorization.models.weights import resolve_weights
from colorization.networks import building


def write_float16(
    source: Path,
    target: Path,
    chroma: float = 1.0,
    size: int | None = None,
    vividness: float | None = None,
    temperature: float | None = None,
) -> None:
    """Write the weights in ``source`` to ``target`` as float16, with other colours or settings of their own.

    Args:
        source: ``*.safetensors`` or ``*.ckpt``.
        target: ``*.safetensors``, not ``source``.
        chroma: factor on a* and b*, above 0, noted in the description. It is a setting of
            :class:`colorization.networks.encoder_unet.ClassUNet`; in any other network it goes into the last layer,
            ahead of the squashing that bounds them, so colours near the bound change less.
        size: working size, see :func:`colorization.models.descriptions.working_size`.
        vividness, temperature: of :class:`colorization.networks.encoder_unet.ClassUNet`.

    Raises:
        InputError: the weights cannot be used, are an ensemble, whose members have colours of their own, or have no
            such setting.
        OSError: ``target`` cannot be written.
    """
    network, description = checkpoint.load_weights(source)
    has_classes = backends.has_distribution(description)
    if chroma != 1 and not has_classes:
        head = getattr(network, "head", None)
        if head is None:
            raise InputError(f"chroma={chroma}: {source} is an ensemble; scale the colours of its members")
        last = [m for m in head.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)][-1]
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.mul_(chroma)
        # The figures of training do not hold for these colours.
        description = {**description, "chroma": chroma * description.get("chroma", 1.0), "metrics": {}}
    if size is not None:
        description = {**description, "working_size": size}
    own = {k: v for k, v in (("vividness", vividness), ("temperature", temperature)) if v is not None}
    if chroma != 1 and has_classes:
        own["chroma"] = chroma * description["network"].get("chroma", 1.0)
    if own:
        if not has_classes:
            raise InputError(f"{next(iter(own))}: weights of a {description['stage']} have no such setting")
        description = {**description, "network": {**description["network"], **own}, "metrics": {}}
        building.build_network(description["network"])  # refuses a value that cannot work
    checkpoint.save_weights(target, network, description, torch.float16)


def command(cfg: DictConfig) -> None:
    """The command, as configured. Raises as :func:`export`."""
    if cfg.format not in ENDINGS:
        raise InputError(f"format={cfg.format}: should be {', '.join(ENDINGS)}")
    source = resolve_weights(cfg.weights, cfg.paths.output_dir)
    target = source.with_suffix(ENDINGS[cfg.format]) if cfg.output is None else Path(cfg.output)
    if target.suffix != ENDINGS[cfg.format]:
        raise InputError(f"output={target}: should end in {ENDINGS[cfg.format]}")
    if cfg.chroma != 1 and cfg.format != "float16":
        raise InputError(f"chroma={cfg.chroma}: needs format=float16; what is exported from those weights has it, too")
    given = [key for key in ("size", "vividness", "temperature") if cfg[key] is not None]
    if given and cfg.format != "float16":
        raise InputError(f"{given[0]}={cfg[given[0]]}: needs format=float16")
    if cfg.size is not None and (not isinstance(cfg.size, int) or cfg.size < 32):
        raise InputError(f"size={cfg.size}: should be a whole number, 32 or more")
    if not cfg.chroma > 0:
        raise InputError(f"chroma={cfg.chroma}: should be above 0")
    if target.exists() and target.samefile(source):
        raise InputError(f"output={target}: these are the weights themselves; give another file")
    try:
        if cfg.format == "float16":
            write_float16(source, target, cfg.chroma, cfg.size, cfg.vividness, cfg.temperature)
        else:
            export(source, target)
    except OSError as error:
        raise InputError(f"output={target}: cannot be written ({error.strerror})") from error
    logging.getLogger(__name__).info("%s: %.1f MB", target, target.stat().st_size / 1e6)


if __name__ == "__main__":
    hydra_main.run(command, "export")
