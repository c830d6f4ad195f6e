"""Publish weights on a model hub: ``python -m colorization.push weights=<file or run> repo=owner/name metrics=<file>``.

The model card is written from the description of the weights and the evaluation's ``metrics.json``.
"""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from colorization.core import atomic, hydra_main
from colorization.core.errors import InputError
from colorization.evaluation.catalog import METRICS
from colorization.evaluation.report import HEADINGS, table
from colorization.models import descriptions, loading
from colorization.models.hub import TWIN_FILE, WEIGHTS_FILE
from colorization.models.weights import resolve_weights

log = logging.getLogger(__name__)

_METRICS = tuple(m.name for m in METRICS if m.trained)
_IDENTITY = ("stage", "network", "pretrained", "training_data", "version", "git")


def own_rows(report: dict[str, Any], description: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The rows of an evaluation that a card shows: the trivial answers, and last the weights at ``path``.

    Raises:
        InputError: these weights were not evaluated there.
    """
    evaluated = [row for row in report["rows"] if "stage" in row]
    own = [row for row in evaluated if all(row.get(k) == description.get(k) for k in _IDENTITY)]
    if len(own) > 1:  # two files that say the same of themselves
        own = [row for row in own if Path(row["weights"]).resolve() == path.resolve()]
    if len(own) != 1:
        names = ", ".join(row["weights"] for row in evaluated) or "none"
        raise InputError(f"metrics: not an evaluation of {path}; evaluated were: {names}")
    return [row for row in report["rows"] if "stage" not in row] + own


def model_card(repo: str, path: Path, report: dict[str, Any], license: str) -> str:
    """The card (Markdown with the hub's YAML header) of the weights at ``path``. Raises ``InputError``."""
    from huggingface_hub import EvalResult, ModelCardData

    description = descriptions.read(path)
    rows = own_rows(report, description, path)
    protocol, own = report["protocol"], rows[-1]
    results = [
        EvalResult(
            task_type="image-to-image",
            task_name="Image colorization",
            dataset_type="image-folder",
            dataset_name=f"{protocol['data']} ({protocol['n']} photos at {protocol['size']}x{protocol['size']})",
            metric_type=metric,
            metric_name=HEADINGS[metric],
            metric_value=own[metric]["mean"],
        )
        for metric in _METRICS
        if own[metric]["mean"] is not None
    ]
    header = ModelCardData(
        license=license,
        library_name="lab-colorization",
        pipeline_tag="image-to-image",
        tags=["colorization"],
        model_name=repo.partition("/")[2],
        eval_results=results,
    )
    data = {k: description["training_data"].get(k, "unknown") for k in ("photos", "name", "hash", "image_size")}
    target, arguments = description["network"]["_target_"], {**description["network"]}
    del arguments["_target_"]
    lines = [
        f"---\n{header.to_yaml()}\n---\n",
        f"# {header.model_name}\n",
        f"Automatic colorization of photographs in CIE L\\*a\\*b\\*: stage `{description['stage']}`,",
        f"`{target}` with `{json.dumps(arguments)}`.\n",
        "```python",
        "from colorization import Colorizer\n",
        f'Colorizer.load("{repo}").colorize(image)',
        "```\n",
        "## Training\n",
        f"- photos: {data['photos']} of {data['name']} (hash {data['hash']}), at {data['image_size']} pixels",
        *(f"- pretrained {part}: {source}" for part, source in description["pretrained"].items()),
        f"- made {description['created']} with version {description['version']}, "
        f"revision {description['git']['revision']}",
        f"- SHA-256 of `{WEIGHTS_FILE}`: {atomic.sha256(path)}\n",
        "## Evaluation\n",
        table({**report, "rows": rows}),
        f"PSNR: {protocol['psnr']}. SSIM: {protocol['ssim']}. Intervals: {protocol['intervals']}.",
        f"Data hash {protocol['data_hash']}.\n",
        "## Limits\n",
        "Colours are guesses, not evidence; label colorized photographs as such. The rows without a model are the",
        "trivial answers: figures mean something beside them only.\n",
    ]
    return "\n".join(lines)


def push(cfg: DictConfig) -> None:
    """The command, as configured.

    Raises:
        InputError: no such weights, not evaluated, or the hub refuses.
    """
    if find_spec("huggingface_hub") is None:
        raise InputError("a model hub needs the package huggingface_hub: pip install 'lab-colorization[hub]'")
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    path = resolve_weights(cfg.weights, cfg.paths.output_dir)
    if path.suffix != ".safetensors":
        raise InputError(f"weights={cfg.weights}: only *.safetensors are published, as a finished run has them")
    try:
        report = json.loads(Path(cfg.metrics).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"metrics={cfg.metrics}: should be the metrics.json of an evaluation ({error})") from error
    card = model_card(cfg.repo, path, report, cfg.license)
    files: dict[str, Path | bytes] = {"README.md": card.encode(), WEIGHTS_FILE: path, TWIN_FILE: loading.twin(path)}
    if cfg.dry_run:
        print(card)
        return
    api = HfApi()
    try:
        api.create_repo(cfg.repo, private=cfg.private, exist_ok=True)
        commit = api.create_commit(
            cfg.repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"{path.name} of {atomic.sha256(path)[:12]}",
        )
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalTokenNotFoundError) as error:
        raise InputError(f"repo={cfg.repo}: the hub refused ({str(error).splitlines()[0]})") from error
    log.info("pushed: %s", commit.commit_url)


if __name__ == "__main__":
    hydra_main.run(push, "push")
