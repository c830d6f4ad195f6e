"""Weights from a model hub: ``owner/name[@revision]``. Imports huggingface_hub only to fetch something."""

from __future__ import annotations

import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from colorization.core.errors import InputError

WEIGHTS_FILE, TWIN_FILE = "weights.safetensors", "weights.onnx"  # files of a repository; the twin may be missing
_REFERENCE = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")
_FILES = (".safetensors", ".ckpt", ".onnx", ".xml")


def is_reference(text: str) -> bool:
    """Whether ``text`` looks like a reference and not like a weights file."""
    return _REFERENCE.fullmatch(text) is not None and not text.endswith(_FILES)


def fetch(reference: str) -> Path:
    """The weights of a repository, from the hub, or from its cache if it did not change or cannot be reached.

    Their ONNX twin is fetched as well, if there is one. ``$HF_ENDPOINT``, ``$HF_HOME``, ``$HF_TOKEN`` and
    ``$HF_HUB_OFFLINE`` are huggingface_hub's.

    Raises:
        InputError: not there, not allowed, not reachable and not cached, or huggingface_hub is not installed.
    """
    match = _REFERENCE.fullmatch(reference)
    assert match is not None, reference
    if find_spec("huggingface_hub") is None:
        raise InputError(
            f"weights={reference}: neither a file nor a run, and to fetch it from a model hub needs the package "
            "huggingface_hub: pip install 'lab-colorization[hub]'"
        )
    from huggingface_hub import errors, hf_hub_download

    try:
        path = Path(hf_hub_download(match["repo"], WEIGHTS_FILE, revision=match["revision"]))
        with suppress(errors.EntryNotFoundError):  # also: not cached, and the hub cannot be reached
            hf_hub_download(match["repo"], TWIN_FILE, revision=match["revision"])
    except errors.RevisionNotFoundError as error:
        raise InputError(f"weights={reference}: {match['repo']} has no revision {match['revision']}") from error
    except errors.RepositoryNotFoundError as error:  # also a gated one
        raise InputError(
            f"weights={reference}: neither a file nor a run, and the hub has no such repository, or not for you"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(f"weights={reference}: not in the cache, and the hub cannot be reached") from error
    except errors.EntryNotFoundError as error:
        raise InputError(f"weights={reference}: this repository has no {WEIGHTS_FILE}") from error
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise InputError(f"weights={reference}: the hub refused ({str(error).splitlines()[0]})") from error
    return path
