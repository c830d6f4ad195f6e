"""The metrics against scikit-image, the ``lpips`` package and plain arithmetic, and what happens without AlexNet."""

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

from colorization.core import color
from colorization.core.errors import InputError
from colorization.evaluation import metrics
from colorization.evaluation.catalog import BY_NAME

ALEXNET = "alexnet-owt-7be5be79.pth"


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty torch hub folder, a network that is down, and no LPIPS from another test."""

    def download(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    metrics._load_lpips.cache_clear()
    yield tmp_path
    metrics._load_lpips.cache_clear()


@pytest.fixture
def alexnet(torch_home: Path) -> None:
    """AlexNet weights (random ones) where torchvision keeps them."""
    (torch_home / "hub" / "checkpoints").mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = torchvision.models.alexnet(weights=None).state_dict()
    torch.save(state, torch_home / "hub" / "checkpoints" / ALEXNET)


def pictures(
    count: int, size: tuple[int, int] = (48, 64), noise: float = 0.1, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth RGB pictures (count, 3, H, W) and the same with noise that grows from picture to picture."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((count, 3, 5, 6), dtype=np.float32))
    truth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clip(0, 1)
    scale = noise * torch.arange(1, count + 1)[:, None, None, None]
    other = truth + scale * torch.from_numpy(rng.standard_normal(truth.shape, dtype=np.float32))
    return other.clip(0, 1), truth


def lab_pair(count: int, **kwargs: float) -> tuple[torch.Tensor, torch.Tensor]:
    """As a stage gives them: predictions with the true L*, and truths."""
    rgb, truth = pictures(count, **kwargs)
    lab, true_lab = color.rgb_to_lab(rgb), color.rgb_to_lab(truth)
    return torch.cat((true_lab[:, :1], lab[:, 1:]), 1), true_lab


def test_psnr_of_each_picture_is_that_of_scikit_image() -> None:
    rgb, truth = pictures(3)
    expected = [peak_signal_noise_ratio(t.numpy(), x.numpy(), data_range=1.0) for x, t in zip(rgb, truth, strict=True)]
    assert max(expected) - min(expected) > 3
    assert metrics.psnr(rgb, truth).tolist() == pytest.approx(expected, abs=1e-4)


def test_psnr_of_equal_pictures_is_the_limit() -> None:
    """The limit is the PSNR of rounding to 8 bits: a variance of 1/12 of a squared step."""
    rgb, truth = pictures(2)
    rgb[0] = truth[0]
    values = metrics.psnr(rgb, truth)
    assert float(values[0]) == pytest.approx(-10 * math.log10(1 / 12 / 255**2), abs=0.01)
    assert float(values[0]) == pytest.approx(metrics.PSNR_LIMIT)
    assert float(values[1]) < 40


def reference_ssim(rgb: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """scikit-image's, in float64, with the window of Wang et al. 2004 wherever it lies inside the picture."""
    return [
        structural_similarity(
            t.permute(1, 2, 0).double().numpy(),
            x.permute(1, 2, 0).double().numpy(),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, t in zip(rgb, truth, strict=True)
    ]


@pytest.mark.parametrize("size", [(48, 64), (33, 41), (11, 11), (12, 40)])
def test_ssim_of_each_picture_is_that_of_scikit_image(size: tuple[int, int]) -> None:
    rgb, truth = pictures(3, size=size)
    expected = reference_ssim(rgb, truth)
    assert max(expected) - min(expected) > 0.1
    assert metrics.ssim(rgb, truth).tolist() == pytest.approx(expected, abs=1e-5)
    assert metrics.ssim(rgb, truth, metrics.window_means(truth - 0.5)).tolist() == metrics.ssim(rgb, truth).tolist()


@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_ssim_of_flat_pictures_survives_float32(level: float, noise: float) -> None:
    """Variances of almost nothing beside squares of up to 1, where the stabilizing constants decide."""
    rng = np.random.default_rng(0)
    truth = (level + noise * torch.from_numpy(rng.standard_normal((4, 3, 40, 48), dtype=np.float32))).clip(0, 1)
    rgb = truth.clone()
    rgb[1] *= 0.98
    rgb[2] = 1 - truth[2]
    rgb[3] += noise * torch.from_numpy(rng.standard_normal((3, 40, 48), dtype=np.float32))
    assert metrics.ssim(rgb, truth).tolist() == pytest.approx(reference_ssim(rgb, truth), abs=2e-5)


def test_ssim_at_an_edge_between_black_and_white() -> None:
    truth = torch.zeros(1, 3, 32, 40)
    truth[..., 20:] = 1
    rgb = torch.cat((truth * 0.9 + 0.05, truth, truth.flip(-1)))
    truth = truth.expand(3, -1, -1, -1)
    assert metrics.ssim(rgb, truth).tolist() == pytest.approx(reference_ssim(rgb, truth), abs=2e-5)


def test_ssim_of_pictures_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(InputError, match="SSIM needs pictures of 11 pixels or more, not 40x10"):
        metrics.ssim(*pictures(1, size=(10, 40)))


def test_all_metrics_are_those_of_scikit_image_however_batched() -> None:
    """Two predictions of three truths, one far out of gamut: together, one by one, and photo by photo."""
    first, true_lab = lab_pair(3)
    second = true_lab * torch.tensor([1.0, 2.0, -1.5])[:, None, None]
    together = metrics.image_metrics([first, second], true_lab)
    truth = color.lab_to_rgb(true_lab).permute(0, 2, 3, 1).double().numpy()
    for lab, values in zip((first, second), together, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of colours that do not exist
            shown = lab2rgb(lab.permute(0, 2, 3, 1).double().numpy())
        expected = {
            "psnr": [peak_signal_noise_ratio(t, x, data_range=1.0) for x, t in zip(shown, truth, strict=True)],
            "ssim": reference_ssim(*(torch.from_numpy(x).permute(0, 3, 1, 2) for x in (shown, truth))),
            "delta_e2000": deltaE_ciede2000(rgb2lab(shown), true_lab.permute(0, 2, 3, 1).double().numpy()).mean((1, 2)),
        }
        for name, tolerance in {"psnr": 1e-4, "ssim": 1e-5, "delta_e2000": 1e-3}.items():
            assert values[name].tolist() == pytest.approx(list(expected[name]), abs=tolerance), name
        (alone,) = metrics.image_metrics([lab], true_lab)
        last = metrics.image_metrics([lab[2:].contiguous(memory_format=torch.channels_last)], true_lab[2:])[0]
        for name in values:
            assert values[name].tolist() == alone[name].tolist()
            assert values[name][2].item() == pytest.approx(last[name].item(), rel=1e-6)


def test_autocast_does_not_touch_the_metrics() -> None:
    """Validation runs under it where training is in mixed precision."""
    lab, true_lab = lab_pair(2)
    (expected,) = metrics.image_metrics([lab], true_lab)
    with torch.autocast("cpu", torch.bfloat16):
        (values,) = metrics.image_metrics([lab], true_lab)
    assert {n: v.tolist() for n, v in values.items()} == {n: v.tolist() for n, v in expected.items()}


def test_delta_e2000_is_that_of_the_displayed_colours() -> None:
    """The prediction counts as it is shown, clipped to sRGB: mean over the pixels of scikit-image's difference."""
    lab, true_lab = lab_pair(2)
    lab[:, 1:] *= 2  # far out of gamut
    shown = color.lab_to_rgb(lab).permute(0, 2, 3, 1).numpy()
    expected = deltaE_ciede2000(rgb2lab(shown), true_lab.permute(0, 2, 3, 1).numpy()).mean((1, 2))
    assert metrics.image_metrics([lab], true_lab)[0]["delta_e2000"].tolist() == pytest.approx(expected, abs=1e-3)


def test_means_are_over_images_and_not_over_batches_or_pixels() -> None:
    """A batch of one and a batch of three; PSNR of pooled pixels, and the mean of batch means, would be another."""
    lab, true_lab = lab_pair(4)
    whole = metrics.ColorizationMetrics()
    whole.update(lab[:1], true_lab[:1])
    whole.update(lab[1:], true_lab[1:])
    result = whole.compute()

    rgb, truth = color.lab_to_rgb(lab).numpy(), color.lab_to_rgb(true_lab).numpy()
    each = [peak_signal_noise_ratio(t, x, data_range=1.0) for x, t in zip(rgb, truth, strict=True)]
    assert float(result["psnr"]) == pytest.approx(np.mean(each), abs=1e-3)
    assert abs(np.mean(each) - peak_signal_noise_ratio(truth, rgb, data_range=1.0)) > 0.1
    assert abs(np.mean(each) - (each[0] + np.mean(each[1:])) / 2) > 0.1
    for name, values in metrics.image_metrics([lab], true_lab)[0].items():
        assert float(result[name]) == pytest.approx(values.double().mean().item(), rel=1e-5)


def test_reset_forgets() -> None:
    lab, true_lab = lab_pair(2)
    metric = metrics.ColorizationMetrics()
    metric.update(lab, true_lab)
    first = float(metric.compute()["psnr"])
    metric.reset()
    metric.update(true_lab, true_lab)
    assert first < 40 and float(metric.compute()["psnr"]) == pytest.approx(metrics.PSNR_LIMIT)


def test_delta_colorfulness_is_the_difference_of_the_means() -> None:
    """Two pictures, one too colourful and one too pale: errors of opposite sign cancel."""
    _, true_lab = lab_pair(2)
    lab = true_lab.clone()
    lab[0, 1:] *= 0.5
    lab[1, 1:] *= 1.3
    metric = metrics.ColorizationMetrics()
    metric.update(lab, true_lab)
    result = metric.compute()
    shown, true = color.lab_to_rgb(lab) * 255, color.lab_to_rgb(true_lab) * 255

    def colorfulness(rgb: torch.Tensor) -> list[float]:
        r, g, b = rgb.double().unbind(1)
        rg, yb = (r - g).flatten(1), ((r + g) / 2 - b).flatten(1)
        spread = (rg.var(1, correction=0) + yb.var(1, correction=0)).sqrt()
        return (spread + 0.3 * (rg.mean(1) ** 2 + yb.mean(1) ** 2).sqrt()).tolist()

    predicted, truth = colorfulness(shown), colorfulness(true)
    assert predicted[0] < truth[0] and predicted[1] > truth[1]
    assert float(result["colorfulness"]) == pytest.approx(np.mean(predicted), rel=1e-4)
    assert float(result["l1"]) == pytest.approx(float((lab - true_lab)[:, 1:].abs().mean()) / 110, rel=1e-5)
    assert float(result["true_colorfulness"]) == pytest.approx(np.mean(truth), rel=1e-4)
    assert float(result["delta_colorfulness"]) == pytest.approx(abs(np.mean(predicted) - np.mean(truth)), rel=1e-3)


def test_without_alexnet_there_is_a_reason_and_no_lpips() -> None:
    network, reason = metrics.lpips_network()
    assert network is None
    assert reason is not None and "no route to host" in reason and ALEXNET in reason
    lab, true_lab = lab_pair(1)
    assert "lpips" not in metrics.image_metrics([lab], true_lab)[0]
    metric = metrics.ColorizationMetrics()
    metric.update(lab, true_lab)
    names = {"l1", "psnr", "ssim", "delta_e2000", "colorfulness", "true_colorfulness", "delta_colorfulness"}
    assert set(metric.compute()) == names


@pytest.mark.usefixtures("alexnet")
def test_lpips_is_that_of_torchmetrics() -> None:
    """Both read the same AlexNet; per image, and as the mean in the metric."""
    rgb, truth = pictures(3, size=(64, 80))
    expected = [
        float(learned_perceptual_image_patch_similarity(rgb[i : i + 1], truth[i : i + 1], "alex", normalize=True))
        for i in range(3)
    ]
    assert max(expected) - min(expected) > 1e-3
    values = metrics.lpips(rgb, truth)
    assert values is not None
    assert values.tolist() == pytest.approx(expected, abs=1e-4)

    lab, true_lab = color.rgb_to_lab(rgb), color.rgb_to_lab(truth)
    metric = metrics.ColorizationMetrics()
    metric.update(lab[:1], true_lab[:1])
    metric.update(lab[1:], true_lab[1:])
    assert float(metric.compute()["lpips"]) == pytest.approx(np.mean(expected), abs=1e-4)


def in_lab(L: torch.Tensor, a: torch.Tensor, b: torch.Tensor | float = 0.0) -> torch.Tensor:
    """One picture (1, 3, 96, 96) from rows of 96 values, Lab units."""
    b = b if isinstance(b, torch.Tensor) else torch.full((96,), b)
    return torch.stack([x.expand(96, 96) for x in (L, a, b)])[None]


X = torch.arange(96.0)


def step(at: int, low: float, high: float) -> torch.Tensor:
    return torch.where(at > X, torch.tensor(low), torch.tensor(high))


def test_accuracy_and_mae_of_known_colours() -> None:
    """Each pixel another error: one channel beyond its limit makes it wrong, and rounding comes first."""
    truth = torch.zeros(1, 3, 1, 8)
    errors = [
        (2, 4.4, -4.4),
        (2.4, 0, 0),
        (2.6, 0, 0),
        (0, 4.6, 0),
        (0, 0, -4.6),
        (5, 11.4, -11.4),
        (5.6, 0, 0),
        (0, 0, 12),
    ]
    lab = truth + 50
    other = lab + torch.tensor(errors).T.view(1, 3, 1, 8)
    assert metrics.accuracy(other, lab, 2).item() == pytest.approx(100 * 2 / 8)
    assert metrics.accuracy(other, lab, 5).item() == pytest.approx(100 * 6 / 8)
    assert metrics.mae(other, lab).item() == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    # 0.4 and 2.6 round to 0 and 3.
    assert metrics.accuracy(lab + 2.6, lab + 0.4, 2).item() == 0


@pytest.mark.parametrize("height", [20.0, 40.0])
def test_a_sharp_step_has_its_height(height: float) -> None:
    found = metrics.step_heights(in_lab(step(48, 30, 30 + height), X * 0)[:, :1])[0, 48]
    assert found[47:49].tolist() == pytest.approx([height] * 2, rel=1e-5)
    assert found[:40].max() < 1e-3
    both = metrics.step_heights(in_lab(X * 0, step(48, 0, 30), step(48, 0, -40))[:, 1:])[0, 48, 48]
    assert both.item() == pytest.approx(50, rel=1e-5)


def bled(a: torch.Tensor, L: torch.Tensor) -> float:
    return metrics.bleeding(in_lab(L, a), metrics.near_light_edges(in_lab(L, X * 0))).item()


def test_bleeding_of_known_pictures() -> None:
    edge = step(48, 30, 70)
    reach = 3  # columns on each side of an edge of 40 in L*, from which colours are near it
    assert bled(step(48, -20, 20), edge) < 1
    assert bled(step(48, -12, 12), edge) == pytest.approx(bled(step(48, -20, 20), edge), abs=0.01)  # pale is not tidy
    assert bled(step(70, -20, 20), edge) > 99.9  # a border of colour on an even surface
    assert bled(step(70, -20, 20), edge * 0 + 50) > 99.9
    assert bled(step(48, -10, 10) + step(70, 0, 40), edge) == pytest.approx(100 * 40 / 60, abs=1)
    ramp = (X - 47.5).clamp(-20, 20)  # a border 40 wide, of which 6 are near the edge
    assert bled(ramp, edge) == pytest.approx(100 * (40 - 2 * reach) / 40, abs=2.5)
    assert bled(step(48, -20, 20), step(48, 30, 35)) > 99.9  # an edge that hardly anybody sees
    assert bled(X * 0, edge) == bled(X * 0 + 30, edge) == 0


def test_stains_are_strong_colour_where_the_truth_is_grey() -> None:
    def stained(prediction: torch.Tensor, truth: torch.Tensor) -> float:
        return metrics.stains(in_lab(X * 0 + 50, prediction), in_lab(X * 0 + 50, truth)).item()

    def patch(side: int, value: float) -> torch.Tensor:
        a = torch.zeros(96, 96)
        a[30 : 30 + side, 40 : 40 + side] = value
        return a

    assert X.shape[-1] == 96  # a square of 12 pixels, every 6
    assert stained(patch(18, 30), X * 0) == 100
    assert stained(patch(18, -30), X * 0) == 100
    assert stained(patch(18, 24), X * 0) == 0  # too pale
    assert stained(patch(6, 60), X * 0) == 0  # too small
    assert stained(patch(18, 30), patch(18, 30)) == 0 and stained(patch(18, 30), X * 0 + 9) == 0  # coloured in truth
    checks = 9 * (2 * ((X + X[:, None]) % 2) - 1)  # whose mean is grey, not its colours
    assert stained(patch(18, 30), checks) == 0
    assert stained(X * 0, X * 0) == 0


def test_size_stability_of_known_models() -> None:
    rgb = (pictures(2, size=(64, 64))[1] * 255).byte()

    def by_size(L: torch.Tensor) -> torch.Tensor:
        """a* = 11, 22 or 33 for 32, 64 or 128 pixels."""
        return torch.full((1, 2, *L.shape[2:]), {32: 0.1, 64: 0.2, 128: 0.3}[L.shape[-1]]) * torch.tensor([1, 0]).view(
            2, 1, 1
        )

    found = metrics.size_stability(rgb, by_size, [32, 64, 128])
    for photo, value in zip(rgb, found.tolist(), strict=True):
        lab = rgb2lab(photo.permute(1, 2, 0).numpy())
        shown = [
            rgb2lab(lab2rgb(np.dstack((lab[..., :1], 0 * lab[..., :1] + a, 0 * lab[..., :1])))) for a in (11, 22, 33)
        ]
        pairs = [deltaE_ciede2000(shown[i], shown[j]).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
        assert value == pytest.approx(np.mean(pairs), abs=0.02)
    constant = metrics.size_stability(rgb, lambda L: torch.full((1, 2, *L.shape[2:]), 0.2), [32, 64, 128])
    assert constant.max() < 1e-3
    of_pixels = metrics.size_stability(rgb, lambda L: torch.cat((L - 0.5, 0.5 - L), 1) / 4, [64, 128])
    assert of_pixels.max() < 1  # colours that follow from each pixel alone hardly depend on the size


def test_a_broken_alexnet_file_is_a_reason_not_a_crash(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    file.parent.mkdir(parents=True)
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    metrics._load_lpips.cache_clear()
    try:
        network, reason = metrics.lpips_network()
    finally:
        metrics._load_lpips.cache_clear()
    assert network is None
    assert "broken" in reason


def test_every_figure_has_one_entry_that_says_how_it_is_defined() -> None:
    truth = color.rgb_to_lab(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8))
    measured = metrics.means(metrics.image_metrics([truth], truth, further=True)[0])
    of_truth = {"true_colorfulness", "true_bleeding"}
    assert {*measured} - of_truth | {"lpips", "stability", "top1"} == set(BY_NAME)
    for entry in BY_NAME.values():
        assert entry.heading.startswith(entry.label) and len(entry.form) > 10 and len(entry.help) > 10
        assert ("↑" in entry.heading) == (entry.better == "higher") and ("↓" in entry.heading) == (
            entry.better == "lower"
        )
