"""Several networks as one: merging, fitted weights, the file, the Colorizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from test_eval import weights

from colorization import Colorizer, ensemble
from colorization import eval as evaluation
from colorization.colorize.colorizer import Settings
from colorization.core import color
from colorization.core.errors import InputError
from colorization.data.datamodules import sample_photo
from colorization.models import checkpoint, descriptions
from colorization.networks.ensemble import Ensemble


@pytest.fixture
def command(run_main: Callable[..., int]) -> Callable[..., int]:
    """``command(*overrides)``: the ensemble command in this process, in ``tmp_path``; returns its exit code."""
    return lambda *overrides: run_main(ensemble.main, "datamodule.num_workers=0", "accelerator=cpu", *overrides)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [weights(tmp_path / f"{i}.safetensors", seed=i) for i in range(3)]


def photo() -> np.ndarray:
    return sample_photo("skimage/coffee")[::4, ::4].copy()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_merging_is_numpys_mean_and_median_for_arrays_and_tensors(k: int) -> None:
    members = np.random.default_rng(k).normal(size=(k, 2, 2, 5, 6)).astype(np.float32)
    shares = np.random.default_rng(0).dirichlet(np.ones(k))
    expected = {
        "mean": members.mean(0),
        "median": np.median(members, 0),
        "weights": np.average(members, 0, weights=shares),
    }
    for how, answer in expected.items():
        given = shares.tolist() if how == "weights" else how
        for x in (members, torch.from_numpy(members)):
            merged = color.merge_ab(x, given)
            assert type(merged) is type(x)
            np.testing.assert_allclose(np.asarray(merged), answer, atol=1e-6)
            assert np.asarray(merged).dtype == np.float32


def test_disagreement_is_the_standard_deviation_in_lab_units() -> None:
    members = np.random.default_rng(1).normal(size=(5, 2, 2, 4, 3)).astype(np.float32)
    expected = 110 * np.sqrt(members.var(0).sum(1))
    for x in (members, torch.from_numpy(members)):
        np.testing.assert_allclose(np.asarray(color.disagreement(x)), expected, rtol=1e-5)
    # Two answers that are 10 Lab units apart in a* are each 5 from their mean.
    apart = np.zeros((2, 2, 1, 1), np.float32)
    apart[1, 0] = 10 / 110
    assert color.disagreement(apart)[0, 0] == pytest.approx(5, rel=1e-5)
    assert not color.disagreement(members[:1]).any()


def merged_by_hand(files: list[Path], how: str, L: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        answers = [checkpoint.load_weights(f)[0](L).numpy() for f in files]
    return (np.mean if how == "mean" else np.median)(answers, 0)


@pytest.mark.parametrize("how", ["mean", "median"])
def test_a_saved_ensemble_is_a_model_like_any(how, command, files, tmp_path, photo_folder) -> None:
    """Loaded by the same functions, it answers what its members' answers merge to."""
    arguments = [f"weights=[{','.join(map(str, files))}]", f"datamodule.val_dir={photo_folder}"]
    assert command(*arguments, f"merge={how}", "output=e.safetensors") == 0
    network, description = checkpoint.load_weights(tmp_path / "e.safetensors")
    L = torch.rand(2, 1, 40, 57, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        np.testing.assert_allclose(network(L).numpy(), merged_by_hand(files, how, L), atol=1e-6)
    assert description["stage"] == "ensemble"
    assert description["training_data"]["image_size"] == 64
    import hashlib

    digests = [m["sha256"] for m in description["members"]]
    assert digests == [hashlib.sha256(f.read_bytes()).hexdigest() for f in files]
    assert [m["network"]["width"] for m in description["members"]] == [4, 4, 4]

    together, saved = Colorizer.load(files), Colorizer.load(tmp_path / "e.safetensors")
    settings = Settings(merge=how)
    prediction = together.predict(photo(), settings)
    assert prediction.members.shape[0] == 3
    np.testing.assert_allclose(prediction.ab, saved.predict(photo()).ab, atol=1e-6)
    np.testing.assert_allclose(prediction.members, saved.predict(photo()).members, atol=1e-6)
    expected = merged_by_hand(files, how, torch.from_numpy(prediction.L)[None, None])[0]
    np.testing.assert_allclose(prediction.ab, expected, atol=1e-5)


def test_several_weights_work_at_the_largest_size_of_their_training(tmp_path, files) -> None:
    larger = weights(tmp_path / "larger.safetensors", seed=9, image_size=96)
    assert Colorizer.load([files[0], larger]).predict(photo()).L.shape == (96, 144)
    assert Colorizer.load([files[0], larger]).predict(photo(), Settings(48)).L.shape == (48, 72)


def test_flips_of_an_ensemble_are_merged_with_its_own_merge(files) -> None:
    """Each member is averaged with its own mirror image before the median is taken."""
    settings = Settings(merge="median", flips=True)
    prediction = Colorizer.load(files).predict(photo(), settings)
    L = torch.from_numpy(prediction.L)[None, None]
    with torch.no_grad():
        each = [(n(L) + n(L.flip(-1)).flip(-1)) / 2 for n in (checkpoint.load_weights(f)[0] for f in files)]
    np.testing.assert_allclose(prediction.ab, np.median(np.stack(each), 0)[0], atol=1e-5)


def test_fitted_weights_are_no_worse_than_any_on_a_grid() -> None:
    """Three members with a known best mixture; scikit-image measures the distance of every mixture of a grid."""
    rng = np.random.default_rng(0)
    truth = rgb2lab(photo()[::3, ::3]).astype(np.float32).transpose(2, 0, 1)
    noise = rng.normal(0, 8, (2, 2, *truth.shape[1:])).astype(np.float32)
    # The errors of the first two point opposite ways, so that 0.7 and 0.3 cancel them; the third is far off.
    errors = np.stack((3 * noise[0], -7 * noise[0], 60 + 20 * noise[1])) / 10
    answers = (truth[1:] + errors).astype(np.float32) / 110

    def distance(w: np.ndarray) -> float:
        ab = np.tensordot(w, answers, 1) * 110
        lab = np.concatenate((truth[:1], ab)).transpose(1, 2, 0)
        _, shown = color.as_shown(lab.transpose(2, 0, 1).astype(np.float32))
        return deltaE_ciede2000(shown.transpose(1, 2, 0), truth.transpose(1, 2, 0)).mean()

    found = ensemble.fit(answers, truth)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    assert found == pytest.approx([0.7, 0.3, 0], abs=0.03)
    grid = [np.array([i, j, 20 - i - j]) / 20 for i in range(21) for j in range(21 - i)]
    assert distance(found) <= min(map(distance, grid)) + 0.01


@pytest.mark.parametrize("painter", [0, 1])
def test_fitting_uses_the_validation_photos_alone(painter, command, files, tmp_path, photo_folder) -> None:
    """The member that has painted the validation photos gets the weight, whoever painted the test photos."""
    for split, file in (("val", files[painter]), ("test", files[1 - painter])):
        (tmp_path / split).mkdir()
        colorizer = Colorizer.load(file)
        for source in sorted(photo_folder.glob("*.jpg"))[:4]:
            with Image.open(source) as image:
                colorizer.colorize(image.resize((64, 64)), saturation=0.7).save(
                    tmp_path / split / f"{split}{source.stem}.png"
                )
    given = f"weights=[{','.join(map(str, files))}]"
    assert (
        command(given, "datamodule.val_dir=val", "datamodule.test_dir=test", "merge=fit", "output=e.safetensors") == 0
    )
    description = descriptions.read(tmp_path / "e.safetensors")
    shares = dict(zip((m["weights"] for m in description["members"]), description["network"]["merge"], strict=True))
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert shares[files[painter].name] > 0.6


def test_members_without_weight_are_left_out(command, files, tmp_path, photo_folder, monkeypatch, capsys) -> None:
    monkeypatch.setattr(ensemble, "fit", lambda answers, truth: np.array([0.25, 0.0, 0.75]))
    arguments = [f"weights=[{','.join(map(str, files))}]", f"datamodule.val_dir={photo_folder}", "merge=fit"]
    assert command(*arguments, "output=e.safetensors") == 0
    network, description = checkpoint.load_weights(tmp_path / "e.safetensors")
    assert [m["weights"] for m in description["members"]] == ["0.safetensors", "2.safetensors"]
    L = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, last = (checkpoint.load_weights(files[i])[0](L) for i in (0, 2))
        np.testing.assert_allclose(network(L), 0.25 * first + 0.75 * last, atol=1e-6)
    monkeypatch.setattr(ensemble, "fit", lambda answers, truth: np.array([0.0, 1.0, 0.0]))
    assert command(*arguments, "output=none.safetensors") == 2
    assert f"add nothing to {files[1]}" in capsys.readouterr().err
    assert not (tmp_path / "none.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["weights=[0.safetensors]"], ["two or more"]),
        (["weights=[0.safetensors,0.safetensors]"], ["each of them once"]),
        (["weights=[0.safetensors,1.safetensors]", "merge=best"], ["merge=best", "median"]),
        (["weights=[0.safetensors,1.safetensors]", "output=e.ckpt"], ["output=e.ckpt"]),
        (["weights=[0.safetensors,other.safetensors]"], ["other.safetensors", "colour constants"]),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words, command, files, tmp_path, photo_folder, capsys) -> None:
    network, description = checkpoint.load_weights(files[0])
    other = {**description, "color": {**description["color"], "ab_scale": 128.0}}
    checkpoint.save_weights(tmp_path / "other.safetensors", network, other)
    assert command(f"datamodule.val_dir={photo_folder}", *arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert all(w in error for w in words), error


@pytest.mark.parametrize(("members", "merge"), [(0, "mean"), (2, "mode"), (2, [0.5, 0.25, 0.25])])
def test_an_ensemble_that_cannot_be_is_refused(members, merge) -> None:
    spec = {"_target_": "colorization.networks.baseline.BaselineCNN", "width": 4}
    with pytest.raises(InputError, match="merge="):
        Ensemble([spec] * members, merge)


def test_the_ensemble_is_a_row_of_the_table(run_main, files, tmp_path, photo_folder) -> None:
    """In memory and from a file it scores the same, and no worse than its members do on average (of their squares)."""
    arguments = ["datamodule.num_workers=0", "accelerator=cpu", "datamodule.image_size=64", "strips=0"]
    given = f"weights=[{','.join(map(str, files))}]"
    assert run_main(ensemble.main, *arguments[:2], given, f"datamodule.val_dir={photo_folder}", "merge=mean",
                    "output=e.safetensors") == 0  # fmt: skip
    test = f"datamodule.test_dir={photo_folder}"
    together = f"{given[:-1]},e.safetensors]"  # which is an ensemble already, and does not count twice
    assert run_main(evaluation.main, *arguments, together, test, "ensemble=mean", "eval_dir=a") == 0
    assert run_main(evaluation.main, *arguments, "weights=e.safetensors", test, "eval_dir=b") == 0
    import json

    a, b = (json.loads((tmp_path / d / "metrics.json").read_text())["rows"] for d in "ab")
    assert a[-1]["name"] == "mean of all"
    assert b[-1]["name"] == "ensemble"
    for metric in ("psnr", "ssim", "delta_e2000", "colorfulness"):
        assert a[-1][metric]["mean"] == pytest.approx(b[-1][metric]["mean"], abs=1e-4)
    validated = descriptions.read(tmp_path / "e.safetensors")["metrics"]["val/delta_e2000"]
    assert validated == pytest.approx(b[-1]["delta_e2000"]["mean"], abs=1e-4)  # the same photos at the same size


def test_one_model_alone_is_no_ensemble(run_main, files, photo_folder, capsys) -> None:
    status = run_main(
        evaluation.main,
        "accelerator=cpu",
        f"weights={files[0]}",
        f"datamodule.test_dir={photo_folder}",
        "ensemble=mean",
    )
    assert status == 2
    assert "needs two weights or more" in capsys.readouterr().err
