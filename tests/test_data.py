"""Photographs in, batches out: reading, checking, splitting, augmenting, and taking up where a run left off."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from colorization.core import color
from colorization.core.errors import InputError
from colorization.data.augment import Augment, framed
from colorization.data.cifar10 import CIFAR10DataModule
from colorization.data.datamodules import FolderDataModule, SampleDataModule, sample_photo
from colorization.data.photos import FolderPhotos, read_rgb
from colorization.data.splits import data_hash, split_names

SHARES = {"val": 0.1, "test": 0.2, "train": 0.7}
Batch = dict[str, torch.Tensor]


def colourful(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture with much colour: every pixel differs from its mirror image."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    phase = np.random.default_rng(seed).uniform(0, 6)
    planes = [np.sin(5 * x + phase) * 0.5 + 0.5, np.cos(4 * y + phase) * 0.5 + 0.5, x * (1 - 0.5 * y)]
    return Image.fromarray((np.stack(planes, -1) * 255).astype(np.uint8))


def grey(width: int, height: int) -> Image.Image:
    return colourful(width, height).convert("L").convert("RGB")


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    """Whether two lists of batches are equal to the bit."""
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, other, strict=True)
    )


def folder_module(data_dir: Path | None, **settings: Any) -> FolderDataModule:
    settings = {"image_size": 32, "batch_size": 2, "num_workers": 0, **settings}
    return FolderDataModule(str(data_dir) if data_dir else None, **settings)


def augmented(augment: Augment, photo: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """What becomes of one photo: (3, S, S) and, with damage, (1, S, S)."""
    return {k: v[0].numpy() for k, v in augment.batch([photo], [seed]).items()}


def is_multiset_once(indices: list[int], size: int) -> bool:
    return sorted(indices) == list(range(size))


# Splits


NAMES = [f"photo-{i:03d}.jpg" for i in range(40)]
VAL_OF_SEED_42 = [1, 28, 35, 36]
TEST_OF_SEED_42 = [4, 6, 17, 21, 31, 33, 37, 39]


def reference_split(names: list[str], seed: int) -> dict[str, set[str]]:
    ranked = sorted(names, key=lambda n: hashlib.sha256(f"{seed}:{n}".encode()).hexdigest())
    n_val, n_test = round(0.1 * len(names)), round(0.2 * len(names))
    return {
        "val": set(ranked[:n_val]),
        "test": set(ranked[n_val : n_val + n_test]),
        "train": set(ranked[n_val + n_test :]),
    }


def named(names: list[str], parts: dict[str, list[int]]) -> dict[str, set[str]]:
    return {split: {names[i] for i in indices} for split, indices in parts.items()}


def test_split_is_disjoint_and_complete() -> None:
    parts = split_names(NAMES, SHARES, 42)
    assert [len(parts[s]) for s in ("val", "test", "train")] == [4, 8, 28]
    assert is_multiset_once([i for p in parts.values() for i in p], len(NAMES))
    assert all(p == sorted(p) for p in parts.values())


def test_split_is_the_same_everywhere() -> None:
    parts = split_names(NAMES, SHARES, 42)
    assert parts["val"] == VAL_OF_SEED_42
    assert parts["test"] == TEST_OF_SEED_42
    for seed in (0, 1, 42):
        assert named(NAMES, split_names(NAMES, SHARES, seed)) == reference_split(NAMES, seed)


def test_split_depends_on_names_not_on_their_order() -> None:
    shuffled = NAMES[::-1]
    assert named(shuffled, split_names(shuffled, SHARES, 7)) == named(NAMES, split_names(NAMES, SHARES, 7))


def test_seeds_split_differently() -> None:
    splits = [frozenset(split_names(NAMES, SHARES, seed)["val"]) for seed in range(10)]
    assert len(set(splits)) == 10


def test_a_photo_more_moves_few_others() -> None:
    names = [f"{i}.jpg" for i in range(1000)]
    before, after = named(names, split_names(names, SHARES, 42)), reference_split([*names, "new.jpg"], 42)
    moved = sum(len(before[s] - after[s]) for s in before)
    assert moved <= 2  # one at each border


@pytest.mark.parametrize("count", [3, 4, 7, 10])
def test_no_split_of_few_photos_is_empty(count: int) -> None:
    parts = split_names(NAMES[:count], {"val": 0.1, "test": 0.1, "train": 0.8}, 42)
    assert all(parts.values())


def test_photos_of_one_content_share_a_split() -> None:
    """Twelve photos in five copies each, under names that a split by name would part."""
    names = [f"{i:02d}-{copy}.jpg" for copy in range(5) for i in range(12)]
    digests = [name[:2] for name in names]
    for seed in range(20):
        parts = split_names(names, SHARES, seed, digests)
        assert all(parts.values()) and is_multiset_once([i for p in parts.values() for i in p], len(names))
        found = {split: {digests[i] for i in p} for split, p in parts.items()}
        assert sum(map(len, found.values())) == 12


def test_copies_in_a_folder_are_told_and_not_parted(photo_folder: Path, caplog) -> None:
    for copy in range(4):
        for photo in sorted(photo_folder.rglob("*.jpg")):
            if "-" not in photo.stem:
                shutil.copy(photo, photo.with_name(f"{photo.stem}-{copy}.jpg"))
    module = folder_module(photo_folder)
    with caplog.at_level("INFO"):
        module.setup()
    assert "48 photos are copies of others" in caplog.text and module.manifest()["copies"] == 48
    of_split = {s: {Path(n).stem[:2] for n in p.names} for s, p in module.photos.items()}
    assert sum(map(len, of_split.values())) == 12
    for photo in list(photo_folder.rglob("*.jpg")):
        if not photo.stem.startswith("03"):
            photo.unlink()
    with pytest.raises(InputError, match="only 1 of its photos differ"):
        folder_module(photo_folder).setup()


def test_photos_that_look_alike_are_told(photo_folder: Path, caplog) -> None:
    """One copy is scaled and recompressed, one is brighter; no others of the folder are alike."""
    with Image.open(photo_folder / "02.jpg") as photo:
        photo.resize([round(n * 0.7) for n in photo.size]).save(photo_folder / "small.jpg", quality=60)
        photo.point(lambda v: min(255, round(v * 1.1))).save(photo_folder / "bright.png")
    module = folder_module(photo_folder, find_duplicates=True)
    with caplog.at_level("INFO"):
        module.setup()
    found = [{name.partition("/")[2] for name in pair} for pair in module.manifest()["look_alike"]]
    assert sorted(map(sorted, found)) == [
        ["02.jpg", "bright.png"],
        ["02.jpg", "small.jpg"],
        ["bright.png", "small.jpg"],
    ]
    assert "3 pairs of photos look alike" in caplog.text


# Reading files of all kinds


@pytest.fixture
def all_kinds(tmp_path: Path) -> Path:
    """A folder with every kind of file that can be read and some that cannot."""
    folder = tmp_path / "kinds"
    (folder / "deep" / "er").mkdir(parents=True)
    photo = colourful(90, 60)
    for name in ("a.jpg", "b.jpeg", "c.png", "d.webp", "e.bmp", "f.tif", "g.tiff", "UPPER.JPG", "Mixed.Png"):
        photo.save(folder / name)
    photo.save(folder / "deep" / "er" / "nested.jpg")
    grey(90, 60).save(folder / "grey-rgb.png")
    photo.convert("L").save(folder / "grey.jpg")
    photo.quantize(64).save(folder / "palette.png")
    photo.convert("RGBA").save(folder / "alpha.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    ramp = np.linspace(0, 65535, 400 * 300).reshape(300, 400).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "sixteen.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    photo.save(folder / "turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("not looked at")
    cut = io.BytesIO()
    colourful(600, 400).save(cut, "JPEG")
    (folder / "deep" / "truncated.jpg").write_bytes(cut.getvalue()[: cut.tell() // 2])
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


BROKEN = {"deep/truncated.jpg", "text.png", "empty.jpg"}


def test_every_kind_is_found_and_the_broken_are_told(all_kinds: Path) -> None:
    module = folder_module(all_kinds, max_unreadable=0.5)
    module.setup()
    manifest = module.manifest()
    json.dumps(manifest, allow_nan=False)
    assert {u["path"] for u in manifest["unreadable"]} == BROKEN
    assert all(u["error"].strip() for u in manifest["unreadable"])
    reasons = {u["path"]: u["error"] for u in manifest["unreadable"]}
    assert "Premature end" in reasons["deep/truncated.jpg"] and "no picture of a known type" in reasons["text.png"]
    everything = {p.relative_to(all_kinds).as_posix() for p in all_kinds.rglob("*") if p.is_file()}
    paths = [p["path"] for p in manifest["photos"]]
    assert len(paths) == len(set(paths))
    assert set(paths) == everything - BROKEN - {"notes.txt"}
    for row in manifest["photos"]:
        assert row["bytes"] == (all_kinds / row["path"]).stat().st_size
        assert row["split"] in ("train", "val", "test")
    batches = [*module.train_dataloader(), *module.val_dataloader(), *module.test_dataloader()]
    assert all(b["rgb"].shape[1:] == (3, 32, 32) and b["rgb"].dtype == torch.uint8 for b in batches)


def test_content_is_the_photo_whatever_the_kind(all_kinds: Path) -> None:
    truth = np.asarray(colourful(90, 60)).astype(int)
    tolerance = {"palette.png": 12, "cmyk.jpg": 6, "d.webp": 6}
    lossless = ("c.png", "e.bmp", "f.tif", "g.tiff", "Mixed.Png", "alpha.png")
    lossy = ("a.jpg", "b.jpeg", "UPPER.JPG", "deep/er/nested.jpg", "palette.png", "cmyk.jpg", "d.webp")
    for name in (*lossless, *lossy):
        rgb = read_rgb(all_kinds / name)
        assert rgb.shape == (60, 90, 3) and rgb.dtype == np.uint8
        difference = np.abs(rgb - truth).mean()
        assert difference == 0 if name in lossless else difference < tolerance.get(name, 3), name


def test_grey_files_have_three_equal_planes(all_kinds: Path) -> None:
    for name in ("grey.jpg", "grey-rgb.png", "sixteen.tif"):
        rgb = read_rgb(all_kinds / name)
        assert (rgb == rgb[..., :1]).all(), name


def test_sixteen_bits_become_eight_without_clipping(all_kinds: Path) -> None:
    rgb = read_rgb(all_kinds / "sixteen.tif")
    assert rgb.shape == (300, 400, 3)
    expected = np.linspace(0, 255, 400 * 300).reshape(300, 400)
    assert np.abs(rgb[..., 0] - expected).max() <= 1
    assert np.unique(rgb).size == 256


def test_orientation_of_the_camera_is_applied(all_kinds: Path) -> None:
    with Image.open(all_kinds / "turned.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        assert np.asarray(image).shape == (60, 90, 3)
    rgb = read_rgb(all_kinds / "turned.jpg")
    assert rgb.shape == (90, 60, 3)
    assert np.array_equal(rgb, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    colourful(40, 24).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as image:
        assert np.array_equal(read_rgb(tmp_path / "x.png"), np.asarray(ImageOps.exif_transpose(image)))


def test_facts_of_the_scan_are_those_of_the_whole_photo(tmp_path: Path) -> None:
    """The scan decodes large JPEGs at a reduced size; its statistics must stay those of the photo."""
    photo = Image.fromarray(sample_photo("sklearn/china"))
    photo.save(tmp_path / "large.jpg", quality=95)
    (facts,) = FolderPhotos(tmp_path, "data_dir").scan()
    planes = np.asarray(photo).transpose(2, 0, 1)
    assert facts.colorfulness == pytest.approx(float(color.colorfulness(planes)), abs=2)
    assert facts.mean_ab == pytest.approx(color.rgb_to_lab(planes)[1:].mean((1, 2)), abs=0.5)


# Mistakes that are told before training starts


def test_too_many_unreadable(all_kinds: Path) -> None:
    with pytest.raises(InputError, match=r"3 of 20 photos .*datamodule\.max_unreadable=0\.1"):
        folder_module(all_kinds, max_unreadable=0.1).setup()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"datamodule\.data_dir=.*nowhere: no such folder"):
        folder_module(tmp_path / "nowhere").setup()
    with pytest.raises(InputError, match=r"datamodule\.test_dir=.*nowhere: no such folder"):
        folder_module(None, test_dir=str(tmp_path / "nowhere")).setup()
    with pytest.raises(InputError, match=r"datamodule\.data_dir"):
        folder_module(None).setup()


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises(InputError, match=r"datamodule\.data_dir=.*: no photographs"):
        folder_module(tmp_path).setup()


def test_one_rule_for_what_is_a_photo(photo_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hidden and excluded files, those that systems make and linked folders are left out; any name is taken."""
    photo = (photo_folder / "00.jpg").read_bytes()
    (photo_folder / "@eaDir").mkdir()
    (photo_folder / "linked").symlink_to(photo_folder / "more")
    for name in (b"._00.jpg", b"@eaDir/00.jpg", b"00-small.JPG", b"M\xfcller.jpg"):
        Path(os.fsdecode(os.fsencode(photo_folder) + b"/" + name)).write_bytes(photo)
    with caplog.at_level("INFO"):
        module = folder_module(photo_folder, exclude=["more", "*-small.jpg"])
        module.setup()
    taken = {row["path"] for row in module.manifest()["photos"]}
    assert taken == {*(f"{i:02d}.jpg" for i in range(10)), os.fsdecode(b"M\xfcller.jpg")}
    assert "2 hidden or system files and folders left out; 2 excluded" in caplog.text
    assert "linked is a link to a folder and is not followed" in caplog.text
    assert len(module.describe()["hash"]) == 16
    with pytest.raises(InputError, match=r"datamodule\.exclude=\[3\]"):
        folder_module(photo_folder, exclude=[3])


def test_too_few_photos(tmp_path: Path) -> None:
    for i in range(2):
        colourful(40, 40, i).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match=r"datamodule\.data_dir=.*2 photos"):
        folder_module(tmp_path).setup()


def test_splits_that_share_a_photo(photo_folder: Path) -> None:
    with pytest.raises(InputError, match=r"datamodule\.val_dir=.*10\.jpg.*datamodule\.train_dir"):
        folder_module(None, train_dir=str(photo_folder), val_dir=str(photo_folder / "more")).setup()
    linked = photo_folder.parent / "linked"
    linked.mkdir()
    (linked / "another-name.jpg").symlink_to(photo_folder / "03.jpg")
    with pytest.raises(InputError, match=r"datamodule\.val_dir="):
        folder_module(None, train_dir=str(photo_folder), val_dir=str(linked)).setup()


def test_training_needs_two_folders(photo_folder: Path) -> None:
    with pytest.raises(InputError, match=r"datamodule\.train_dir.*datamodule\.val_dir"):
        folder_module(None, train_dir=str(photo_folder)).setup()
    only_val = folder_module(None, val_dir=str(photo_folder))
    only_val.setup()
    assert len(only_val.val_dataloader().dataset) == 12
    with pytest.raises(InputError, match=r"datamodule\.train_dir"):
        only_val.train_dataloader()


def test_a_folder_for_each_split(photo_folder: Path) -> None:
    other = photo_folder.parent / "other"
    other.mkdir()
    for i in range(3):
        colourful(50, 40, i).save(other / f"{i}.png")
    module = folder_module(None, train_dir=str(photo_folder), val_dir=str(other))
    module.setup()
    assert [len(module.photos[s].names) for s in ("train", "val")] == [12, 3]
    with pytest.raises(InputError, match=r"datamodule\.test_dir"):
        module.test_dataloader()
    only_test = folder_module(None, test_dir=str(other))
    only_test.setup()
    assert len(only_test.photos["test"].names) == 3


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", 31),
        ("image_size", 0),
        ("image_size", -256),
        ("image_size", 256.5),
        ("image_size", "large"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("num_workers", -1),
        ("num_workers", "many"),
        ("num_workers", 1.5),
        ("crop_scale", [0.0, 1.0]),
        ("crop_scale", [0.8, 0.5]),
        ("crop_scale", [0.5, 1.5]),
        ("crop_scale", [0.5]),
        ("crop_scale", 0.5),
        ("crop_scale", ["small", "large"]),
        ("flip", 1.5),
        ("flip", "often"),
        ("damage", -0.1),
        ("damage", "much"),
        ("frames", 2),
        ("max_unreadable", 2),
        ("max_unreadable", "few"),
        ("val_fraction", 0.0),
        ("val_fraction", 1.0),
        ("val_fraction", 0.95),
        ("val_fraction", "half"),
        ("test_fraction", -0.1),
        ("test_fraction", None),
        ("min_colorfulness", "grey"),
        ("max_photos", 0),
        ("max_photos", "1k"),
    ],
)
def test_values_that_cannot_work(photo_folder: Path, key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"datamodule\.{key}"):
        folder_module(photo_folder, **{key: value}).setup()


def test_the_config_makes_the_module(compose_train: Any, photo_folder: Path, tmp_path: Path) -> None:
    from colorization.core.hydra_main import instantiate

    cfg = compose_train(
        f"datamodule.data_dir={photo_folder}", f"paths.output_dir={tmp_path / 'out'}", "trainer.accelerator=cpu"
    )
    module = instantiate(cfg.datamodule)
    module.setup("fit")
    assert (module.image_size, module.batch_size, module.seed) == (256, 4, 42)
    assert sum(len(p.names) for p in module.photos.values()) == 12
    assert list((tmp_path / "out" / "cache").glob("scan-*.json"))
    for datamodule in ("sample", "coco", "cifar10"):
        assert compose_train(f"datamodule={datamodule}").datamodule._target_
    with pytest.raises(InputError, match=r"datamodule\.image_size=8"):
        instantiate(compose_train("datamodule=sample", "datamodule.image_size=8").datamodule)


# The check of the photos, and what is left out for it


def test_grey_photos_are_left_out_of_training_only(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        (tmp_path / split).mkdir()
        for i in range(4):
            (grey if i < 2 else colourful)(64, 48).save(tmp_path / split / f"{split}-{i}.png")
    dirs = {f"{s}_dir": str(tmp_path / s) for s in ("train", "val", "test")}
    module = folder_module(None, **dirs, min_colorfulness=15)
    module.setup()
    assert module.photos["train"].names == ["train-2.png", "train-3.png"]
    assert len(module.photos["val"].names) == len(module.photos["test"].names) == 4
    assert module.near_grey == {"train": 2, "val": 2, "test": 2}
    assert module.describe()["photos"] == 2
    everything = folder_module(None, **dirs)
    everything.setup()
    assert len(everything.photos["train"].names) == 4
    assert everything.describe()["hash"] != module.describe()["hash"]


def test_fewer_photos_to_train_on_are_a_part_of_more_and_the_others_lie_in_no_split(photo_folder: Path) -> None:
    """And a run on few that goes on, or is evaluated, keeps its split."""
    names, whole = [], folder_module(photo_folder)
    whole.setup()
    for number in (2, 4, 1000):
        module = folder_module(photo_folder, max_photos=number)
        module.setup()
        assert len(module.photos["train"].names) == min(number, len(whole.photos["train"].names)) > 1
        assert module.photos["test"].names == whole.photos["test"].names
        names.append(set(module.photos["train"].names))
        again = folder_module(photo_folder, max_photos=number)
        again.take_split(module.manifest())
        again.setup()
        again.check_same(module.manifest(), "r")
    assert names[0] < names[1] < names[2] == set(whole.photos["train"].names)


def test_nothing_left_for_training_names_the_key(tmp_path: Path) -> None:
    for i in range(6):
        grey(64, 48 + i).save(tmp_path / f"{i}.png")
    with pytest.raises(InputError, match=r"datamodule\.min_colorfulness=15"):
        folder_module(tmp_path, min_colorfulness=15).setup()


def test_description_of_the_training_data(photo_folder: Path) -> None:
    module = folder_module(photo_folder)
    assert module.describe() == {}
    module.setup()
    described = module.describe()
    means = []
    for name in module.photos["train"].names:
        means.append(color.rgb_to_lab(read_rgb(photo_folder / name).transpose(2, 0, 1))[1:].mean((1, 2)))
    assert described["mean_ab"] == pytest.approx(np.mean(means, axis=0), abs=0.5)
    assert described["hash"] == data_hash(module.facts["train"]) and len(described["hash"]) == 16
    assert described["photos"] == 10 and described["image_size"] == 32


def test_setup_scans_once(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = folder_module(photo_folder)
    module.setup("fit")
    before = module.manifest()
    monkeypatch.setattr(FolderPhotos, "_scan_one", lambda self, index: pytest.fail("scanned again"))
    module.setup("test")
    assert module.manifest() == before


def test_scan_is_remembered(photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    (photo_folder / "broken.jpg").write_bytes(b"no picture")
    first = folder_module(photo_folder, cache_dir=str(cache), max_unreadable=0.5)
    first.setup()

    scanned: list[str] = []
    scan_one = FolderPhotos._scan_one

    def remembering(self: FolderPhotos, index: int) -> Any:
        scanned.append(self.names[index])
        return scan_one(self, index)

    monkeypatch.setattr(FolderPhotos, "_scan_one", remembering)
    second = folder_module(photo_folder, cache_dir=str(cache), max_unreadable=0.5)
    second.setup()
    assert scanned == []
    assert second.manifest() == first.manifest() and second.facts == first.facts

    colourful(50, 70).save(photo_folder / "00.jpg")
    (photo_folder / "01.jpg").unlink()
    colourful(30, 40).save(photo_folder / "zz.jpg")
    third = folder_module(photo_folder, cache_dir=str(cache), max_unreadable=0.5)
    third.setup()
    assert sorted(scanned) == ["00.jpg", "zz.jpg"]
    paths = {p["path"] for p in third.manifest()["photos"]}
    assert "zz.jpg" in paths and "01.jpg" not in paths
    fresh = folder_module(photo_folder, max_unreadable=0.5)
    fresh.setup()
    assert fresh.manifest() == third.manifest() and fresh.facts == third.facts


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_photo_that_goes_missing_does_not_end_an_epoch(photo_folder: Path, num_workers: int) -> None:
    module = folder_module(photo_folder, batch_size=3, num_workers=num_workers, val_fraction=0.3)
    module.setup()
    (photo_folder / module.photos["train"].names[3]).unlink()
    (photo_folder / module.photos["val"].names[1]).write_bytes(b"overwritten")
    seen = [int(i) for epoch in range(3) for b in epoch_of(module, epoch) for i in b["index"]]
    assert set(seen) == set(range(7)) - {3}
    assert [b["index"].tolist() for b in module.val_dataloader()] == [[0, 2], [3]]
    assert all(len(b["rgb"]) == len(b["index"]) for b in module.val_dataloader())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_nor_does_a_batch_that_goes_missing(photo_folder: Path, num_workers: int) -> None:
    """Batches of one photo, and the odd last batch of validation."""
    module = folder_module(photo_folder, batch_size=1, num_workers=num_workers, val_fraction=0.3)
    module.setup()
    (photo_folder / module.photos["train"].names[3]).unlink()
    (photo_folder / module.photos["val"].names[3]).unlink()
    epoch = epoch_of(module, 0)
    assert {int(b["index"]) for b in epoch} == set(range(7)) - {3}
    # After an epoch that is shorter than it said, Lightning would leave out the validation.
    assert len(epoch) == len(module.train_dataloader())
    assert {int(b["index"]) for b in module.val_dataloader()} == {0, 1, 2}
    module.batch_size = 3
    assert next(b["index"].tolist() for b in module.val_dataloader()) == [0, 1, 2]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_all_photos_gone_is_one_sentence(photo_folder: Path, num_workers: int) -> None:
    module = folder_module(photo_folder, num_workers=num_workers)
    module.setup()
    for path in list(photo_folder.rglob("*.jpg")):
        path.unlink()
    with pytest.raises(InputError) as caught:
        list(module.train_dataloader())
    assert "Traceback" not in str(caught.value)


# Batches


def test_batches(photo_folder: Path) -> None:
    module = folder_module(photo_folder, image_size=48, batch_size=4)
    module.setup()
    batches = list(module.train_dataloader())
    assert len(batches) == len(module.train_dataloader()) == 2  # ten photos; the odd last two wait for another epoch
    for batch in batches:
        assert batch.keys() == {"rgb", "index"}
        assert batch["rgb"].shape == (4, 3, 48, 48) and batch["rgb"].dtype == torch.uint8
        assert batch["index"].shape == (4,) and batch["index"].dtype == torch.int64
    assert [tuple(b["rgb"].shape) for b in module.val_dataloader()] == [(1, 3, 48, 48)]


def test_fewer_photos_than_a_batch_still_train(photo_folder: Path) -> None:
    module = folder_module(photo_folder, batch_size=64)
    module.setup()
    (batch,) = module.train_dataloader()
    assert sorted(batch["index"].tolist()) == list(range(10))


def test_every_photo_once_an_epoch(photo_folder: Path) -> None:
    module = folder_module(photo_folder, batch_size=5)
    module.setup()
    loader = module.train_dataloader()
    orders = []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        orders.append([int(i) for batch in loader for i in batch["index"]])
        assert is_multiset_once(orders[-1], 10)
    assert orders[0] != orders[1] != orders[2]
    val = module.val_dataloader()
    assert [[int(i) for b in val for i in b["index"]] for _ in range(2)] == [[0], [0]]


def test_validation_does_not_change_from_epoch_to_epoch(photo_folder: Path) -> None:
    module = folder_module(photo_folder, val_fraction=0.4, damage=1.0)
    module.setup()
    loader = module.val_dataloader()
    first = list(loader)
    loader.sampler.set_epoch(3)
    assert same(first, list(loader))
    assert [i for b in first for i in b["index"].tolist()] == [0, 1, 2, 3, 4]
    assert all("grey" not in b for b in first)


def disc(width: int, height: int, radius: int, x: int, y: int) -> np.ndarray:
    """A white disc on blue, (H, W, 3) uint8."""
    image = Image.new("RGB", (width * 4, height * 4), (20, 40, 120))
    ImageDraw.Draw(image).ellipse([4 * (x - radius), 4 * (y - radius), 4 * (x + radius), 4 * (y + radius)], "white")
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def bounding_box(rgb: np.ndarray) -> tuple[float, float, bool]:
    """Width and height of the disc in (3, S, S) uint8, pixels, and whether it lies wholly inside."""
    inside = rgb[0] > 137
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    edge = inside[0].any() or inside[-1].any() or inside[:, 0].any() or inside[:, -1].any()
    if not rows.size or edge:
        return 0, 0, False
    return columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1, True


@pytest.mark.parametrize(("width", "height"), [(400, 200), (200, 400), (300, 300), (500, 180)])
def test_a_disc_stays_round(width: int, height: int) -> None:
    photo = disc(width, height, min(width, height) // 4, width // 2, height // 2)
    w, h, whole = bounding_box(augmented(Augment(128, train=False), photo, 0)["rgb"])
    assert whole and abs(w - h) <= 1 and abs(w - 64) <= 2
    train = Augment(128, train=True)
    boxes = [bounding_box(augmented(train, photo, seed)["rgb"]) for seed in range(80)]
    seen = [(w, h) for w, h, whole in boxes if whole]
    assert len(seen) >= 5
    assert all(abs(w - h) <= 2 for w, h in seen)


def test_training_crops_vary_within_their_scale() -> None:
    photo = disc(256, 256, 40, 128, 128)
    widths = [
        bounding_box(augmented(Augment(128, train=True, crop_scale=(0.5, 1.0)), photo, s)["rgb"])[0] for s in range(60)
    ]
    widths = [w for w in widths if w]
    # the whole photo shows the disc 40 pixels wide, half of its area 40 * sqrt(2)
    assert min(widths) >= 39 and max(widths) <= 59
    assert max(widths) - min(widths) >= 10


@pytest.mark.parametrize(("width", "height"), [(192, 128), (128, 200), (128, 128), (512, 256)])
def test_validation_is_the_centre_crop(width: int, height: int) -> None:
    photo = np.asarray(Image.fromarray(sample_photo("skimage/coffee")).resize((width, height)))
    factor = min(width, height) // 64
    small = photo.reshape(height // factor, factor, width // factor, factor, 3).mean((1, 3))
    top, left = (small.shape[0] - 64) // 2, (small.shape[1] - 64) // 2
    expected = small[top : top + 64, left : left + 64].transpose(2, 0, 1)
    found = augmented(Augment(64, train=False), photo, 0)["rgb"]
    assert found.shape == (3, 64, 64)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(301, 200), (200, 333)])
def test_validation_is_the_centre_crop_at_odd_sizes(width: int, height: int) -> None:
    photo = Image.fromarray(sample_photo("skimage/coffee")).resize((width, height))
    found = augmented(Augment(64, train=False), np.asarray(photo), 0)["rgb"].transpose(1, 2, 0)
    expected = ImageOps.fit(photo, (64, 64), Image.Resampling.BOX)
    assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 5


def test_photos_smaller_than_the_crop_are_enlarged() -> None:
    photo = np.asarray(colourful(40, 24))
    for train in (True, False):
        assert augmented(Augment(128, train=train), photo, 0)["rgb"].shape == (3, 128, 128)


def test_flip() -> None:
    photo = np.asarray(colourful(64, 64))
    plain = augmented(Augment(64, train=True, crop_scale=(1.0, 1.0), flip=0.0), photo, 3)["rgb"]
    flipped = augmented(Augment(64, train=True, crop_scale=(1.0, 1.0), flip=1.0), photo, 3)["rgb"]
    assert np.array_equal(plain, photo.transpose(2, 0, 1))
    assert np.array_equal(flipped, plain[:, :, ::-1])
    half = Augment(64, train=True, crop_scale=(1.0, 1.0), flip=0.5)
    share = np.mean([np.array_equal(augmented(half, photo, s)["rgb"], flipped) for s in range(200)])
    assert 0.35 < share < 0.65


# Damage


@pytest.mark.parametrize("image_size", [32, 128])
def test_damage_is_in_the_grey_input_only(photo_folder: Path, image_size: int) -> None:
    clean, damaged = (folder_module(photo_folder, image_size=image_size, damage=d) for d in (0.0, 1.0))
    for module in (clean, damaged):
        module.setup()
    differences = []
    for one, other in zip(clean.train_dataloader(), damaged.train_dataloader(), strict=True):
        assert "grey" not in one
        assert torch.equal(one["rgb"], other["rgb"]) and torch.equal(one["index"], other["index"])
        assert other["grey"].shape == (2, 1, image_size, image_size) and other["grey"].dtype == torch.uint8
        undamaged = color.grey_of_lightness(color.split(color.rgb_to_lab(one["rgb"]))[0]) * 255
        differences += (other["grey"] - undamaged).abs().mean((1, 2, 3)).tolist()
    assert len(differences) == 10
    assert np.median(differences) > 2 and max(differences) < 80
    assert len({round(d, 3) for d in differences}) == len(differences)


def test_a_frame_is_neutral_and_leaves_the_photo_inside() -> None:
    photo = np.empty((96, 120, 3), np.uint8)
    photo[:] = 200, 90, 30
    covered = []
    for seed in range(40):
        result = framed(photo, np.random.default_rng(seed))
        kept = (result == photo).all(2)
        neutral = (result[..., 0] == result[..., 1]) & (result[..., 1] == result[..., 2])
        assert (kept ^ neutral).all() and kept[40:56, 50:70].all()
        covered.append(neutral.mean())
        assert np.array_equal(result, framed(photo, np.random.default_rng(seed)))
    assert min(covered) < 0.2 < 0.5 < max(covered)


def test_the_share_of_framed_photos() -> None:
    photos = [np.full((80, 80, 3), (200, 90, 30), np.uint8)] * 300
    batch = Augment(64, train=True, frames=0.3).batch(photos, range(300))
    framed_ones = (batch["rgb"] != torch.tensor([200, 90, 30])[:, None, None]).any(3).any(2).any(1)
    assert float(framed_ones.float().mean()) == pytest.approx(0.3, abs=0.08)
    assert not (Augment(64, train=True).batch(photos[:9], range(9))["rgb"][:, 0] != 200).any()


def test_the_share_of_damaged_photos() -> None:
    photo = np.asarray(colourful(64, 64))
    sometimes, never = Augment(64, train=True, damage=0.3), Augment(64, train=True, damage=1e-9)
    pairs = [[augmented(augment, photo, s)["grey"] for augment in (sometimes, never)] for s in range(300)]
    changed = [not np.array_equal(*pair) for pair in pairs]
    assert 0.2 < np.mean(changed) < 0.4


def test_undamaged_grey_is_the_lightness() -> None:
    photo = sample_photo("skimage/chelsea")
    sample = augmented(Augment(128, train=True, damage=1e-9), photo, 1)
    L = color.split(color.rgb_to_lab(sample["rgb"]))[0]
    assert np.abs(color.lightness_of_grey(sample["grey"]) - L).max() < 0.01


def test_damage_does_not_follow_the_geometry() -> None:
    """Photos that are flipped or enlarged are damaged like the others."""
    photo = np.stack([np.tile(np.arange(64, dtype=np.uint8), (64, 1))] * 3, -1) + 96
    augment, clean = (Augment(32, train=True, crop_scale=(0.3, 1.0), damage=d) for d in (1.0, 1e-9))
    flipped, width, strength = [], [], []
    for seed in range(500):
        one, other = augmented(augment, photo, seed), augmented(clean, photo, seed)
        row = other["rgb"][0, 0].astype(int)
        flipped.append(row[-1] < row[0])
        width.append(abs(row[-1] - row[0]))
        strength.append(np.diff(one["grey"][0].astype(int), axis=0).std())  # grain: clean rows are all the same
    assert abs(np.corrcoef(flipped, strength)[0, 1]) < 0.2
    assert abs(np.corrcoef(width, strength)[0, 1]) < 0.2


# The same seed gives the same batches, wherever and in however many pieces


def epoch_of(module: FolderDataModule, epoch: int) -> list[Batch]:
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_workers_change_nothing(photo_folder: Path) -> None:
    epochs = []
    for num_workers in (0, 2):
        module = folder_module(photo_folder, num_workers=num_workers, damage=0.5)
        module.setup()
        epochs.append(epoch_of(module, 1))
    assert same(*epochs)


@pytest.mark.parametrize(
    ("device", "cores", "expected"),
    [
        *[("cpu", 1, 0), ("cpu", 2, 1), ("cpu", 16, 1), ("cpu", 64, 4)],
        *[("cuda", 1, 1), ("cuda", 2, 1), ("cuda", 16, 12), ("cuda", 64, 12)],
    ],
)
def test_workers_for_these_cores(device: str, cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr("colorization.core.devices.available", lambda: [device])
    assert FolderDataModule("photos").num_workers == expected


def test_seed_and_epoch_decide(photo_folder: Path) -> None:
    def module(seed: int) -> FolderDataModule:
        # the same photos for both seeds, so that only order and augmentation can differ
        made = folder_module(None, train_dir=str(photo_folder), val_dir=str(val), seed=seed)
        made.setup()
        return made

    val = photo_folder.parent / "val"
    val.mkdir()
    colourful(40, 40).save(val / "0.png")
    assert same(epoch_of(module(1), 0), epoch_of(module(1), 0))
    assert not same(epoch_of(module(1), 0), epoch_of(module(2), 0))

    def by_photo(batches: list[Batch]) -> dict[int, torch.Tensor]:
        return {int(i): rgb for b in batches for i, rgb in zip(b["index"], b["rgb"], strict=True)}

    first, second = (by_photo(epoch_of(module(1), e)) for e in (0, 1))
    assert first.keys() == second.keys() == set(range(12))
    assert not any(torch.equal(first[i], second[i]) for i in first)


def test_without_shuffling_every_epoch_is_the_same(photo_folder: Path) -> None:
    module = folder_module(photo_folder, shuffle=False, damage=0.5)
    module.setup()
    assert [i for b in epoch_of(module, 0) for i in b["index"].tolist()] == list(range(10))
    assert same(epoch_of(module, 0), epoch_of(module, 3))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loader_goes_on_where_it_was(photo_folder: Path, num_workers: int) -> None:
    module = folder_module(photo_folder, num_workers=num_workers, damage=0.5)
    module.setup()
    whole = [epoch_of(module, epoch) for epoch in (1, 2)]
    assert len(whole[0]) == 5

    loader = module.train_dataloader()
    loader.sampler.set_epoch(1)
    iterator = iter(loader)
    begun = [next(iterator), next(iterator)]
    state = loader.state_dict()
    assert state == {"epoch": 1, "done": 2}

    resumed = module.train_dataloader()
    resumed.load_state_dict(state)
    resumed.sampler.set_epoch(1)
    rest = list(resumed)
    assert same([*begun, *rest], whole[0])
    assert resumed.state_dict() == {"epoch": 1, "done": 5}
    resumed.sampler.set_epoch(2)
    assert same(list(resumed), whole[1])


SCRIPT = """
from colorization.data.datamodules import SampleDataModule

module = SampleDataModule(crops=1, image_size=32, batch_size=1, num_workers=1)
module.setup()
loader = module.train_dataloader()
begun = iter(loader)
next(begun)
print("done", flush=True)
"""


def test_a_script_ends_while_its_loader_is_alive() -> None:
    """Workers that ignore SIGTERM must not keep the process that started them from ending."""
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "done\n"
    try:
        assert process.wait() == 0
    finally:
        process.kill()
        process.stdout.close()


def test_state_of_another_epoch_starts_at_the_beginning(photo_folder: Path) -> None:
    module = folder_module(photo_folder)
    module.setup()
    loader = module.train_dataloader()
    loader.load_state_dict({"epoch": 0, "done": 5})
    loader.sampler.set_epoch(1)
    assert same(list(loader), epoch_of(module, 1))


# The photos that are always there


def test_sample_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*arguments: object, **keywords: object) -> None:
        pytest.fail("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    module = SampleDataModule(crops=3, image_size=32, batch_size=4, num_workers=0)
    module.setup()
    photos = {split: {n.split("#")[0] for n in p.names} for split, p in module.photos.items()}
    assert photos["train"] == set(SampleDataModule.TRAIN) and photos["test"] == set(SampleDataModule.TEST)
    assert not photos["train"] & photos["test"]
    # Validation sees of training's photos what training does not.
    astronaut = sample_photo("skimage/astronaut")
    columns = {}
    for split in ("train", "val"):
        set_ = module.photos[split]
        crops = [set_.read(i) for i, name in enumerate(set_.names) if "astronaut" in name]
        found = [cv2.minMaxLoc(cv2.matchTemplate(astronaut, crop, cv2.TM_SQDIFF)) for crop in crops]
        columns[split] = [(x, x + crop.shape[1]) for (_, _, (x, _), _), crop in zip(found, crops, strict=True)]
    assert len(columns["train"]) == 3 and max(right for _, right in columns["train"]) <= 307
    assert len(columns["val"]) == 1 and columns["val"][0][0] >= 307
    assert [len(module.photos[s].names) for s in ("train", "val", "test")] == [12, 3, 6]
    assert module.intervals is False
    assert SampleDataModule(intervals=True).intervals is False
    assert all(len(p.read(0).shape) == 3 and p.read(0).dtype == np.uint8 for p in module.photos.values())
    assert len(list(module.train_dataloader())) == 3
    again = SampleDataModule(crops=3, image_size=32, num_workers=0)
    again.setup()
    assert again.manifest() == module.manifest()
    assert np.array_equal(again.photos["train"].read(5), module.photos["train"].read(5))


def test_sample_crops() -> None:
    with pytest.raises(InputError, match=r"datamodule\.crops=0"):
        SampleDataModule(crops=0)


# CIFAR-10


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def jpeg(seed: int, side: int = 32) -> bytes:
    content = io.BytesIO()
    colourful(side, side, seed).save(content, "JPEG", quality=95)
    return content.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """30 training and 10 test photos in two classes."""
    path = tmp_path / "cifar.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for i in range(40):
            add(tar, f"{'train' if i < 30 else 'test'}/{'cat' if i % 2 else 'dog'}/{i:04d}.jpg", jpeg(i))
        add(tar, "README.txt", b"not a photo")
    return path


def cifar(archive: Path | None, **settings: Any) -> CIFAR10DataModule:
    settings = {"image_size": 32, "batch_size": 4, "num_workers": 0, "val_photos": 6, **settings}
    folder = str(archive.parent / "unpacked") if archive else "unpacked"
    return CIFAR10DataModule(folder, str(archive) if archive else None, **settings)


def test_cifar_from_an_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = cifar(archive)
    module.setup()
    names = {split: set(p.names) for split, p in module.photos.items()}
    assert {s: len(n) for s, n in names.items()} == {"train": 24, "val": 6, "test": 10}
    assert not names["train"] & names["val"]
    assert all(n.startswith("train/") for n in names["train"] | names["val"])
    assert all(n.startswith("test/") for n in names["test"])
    first = module.photos["test"].names[0]
    with tarfile.open(archive) as tar:
        file = tar.extractfile(first)
        assert file is not None
        expected = np.asarray(Image.open(io.BytesIO(file.read())))
    assert np.array_equal(module.photos["test"].read(0), expected)
    batch = next(iter(module.train_dataloader()))
    assert batch["rgb"].shape == (4, 3, 32, 32)

    monkeypatch.setattr(CIFAR10DataModule, "_unpack", lambda self, cache: pytest.fail("unpacked again"))
    again = cifar(archive)
    again.setup()
    assert again.manifest() == module.manifest()


def test_a_changed_archive_is_unpacked_again(archive: Path) -> None:
    cifar(archive).setup()
    with tarfile.open(archive, "w:xz") as tar:
        for i in range(20):
            add(tar, f"{'train' if i < 15 else 'test'}/cat/{i:04d}.jpg", jpeg(i))
    module = cifar(archive)
    module.setup()
    assert sum(len(p.names) for p in module.photos.values()) == 20


def damaged_archives(tmp_path: Path, archive: Path) -> Iterator[tuple[str, Path]]:
    yield "missing", tmp_path / "nowhere.tar"
    text = tmp_path / "text.tar.xz"
    text.write_text("not an archive")
    yield "text", text
    cut = tmp_path / "cut.tar.xz"
    cut.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    yield "cut", cut
    contents = {
        "nothing": {},
        "no test": {"train/cat/1.jpg": jpeg(1), "train/cat/2.jpg": jpeg(2)},
        "wrong size": {"train/cat/1.jpg": jpeg(1), "test/cat/2.jpg": jpeg(2, side=64)},
        "broken photo": {"train/cat/1.jpg": jpeg(1), "train/cat/2.jpg": b"no", "test/cat/2.jpg": jpeg(2)},
    }
    for name, members in contents.items():
        path = tmp_path / f"{name.replace(' ', '-')}.tar"
        with tarfile.open(path, "w") as tar:
            for member, content in members.items():
                add(tar, member, content)
        yield name, path


@pytest.mark.parametrize("kind", ["missing", "text", "cut", "nothing", "no test", "wrong size", "broken photo"])
def test_wrong_archives(tmp_path: Path, archive: Path, kind: str) -> None:
    path = dict(damaged_archives(tmp_path, archive))[kind]
    with pytest.raises(InputError, match=r"datamodule\.archive=") as caught:
        cifar(path).setup()
    assert str(path) in str(caught.value)


def test_cut_archive_of_large_size(tmp_path: Path) -> None:
    """Long enough for the end to be missing only after many members have been read."""
    whole, cut = tmp_path / "whole.tar.xz", tmp_path / "cut.tar.xz"
    with tarfile.open(whole, "w:xz") as tar:
        for i in range(400):
            pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            add(tar, f"{'train' if i < 300 else 'test'}/cat/{i:04d}.png", content.getvalue())
    cut.write_bytes(whole.read_bytes()[:-200_000])
    with pytest.raises(InputError, match=r"datamodule\.archive="):
        cifar(cut).setup()


@pytest.mark.parametrize("val_photos", [0, -1, 50_000, 30, 40])
def test_val_photos(archive: Path, val_photos: int) -> None:
    with pytest.raises(InputError, match=r"datamodule\.val_photos"):
        cifar(archive, val_photos=val_photos).setup()


def test_cifar_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    with pytest.raises(InputError, match=r"Name or service not known.*datamodule\.archive=") as caught:
        CIFAR10DataModule(str(tmp_path)).setup()
    assert "\n" not in str(caught.value)


def test_cifar_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Downloaded:
        classes = ("cat", "dog")

        def __init__(self, root: str, train: bool, download: bool) -> None:
            assert root == str(tmp_path) and download
            self.targets = [i % 2 for i in range(20 if train else 5)]
            self.data = np.stack([np.asarray(colourful(32, 32, i)) for i in range(20 if train else 5)])

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Downloaded)
    module = CIFAR10DataModule(str(tmp_path), val_photos=4, image_size=32, num_workers=0)
    module.setup()
    assert {s: len(p.names) for s, p in module.photos.items()} == {"train": 16, "val": 4, "test": 5}
    index = int(module.photos["val"].names[0].removeprefix("train/"))
    assert np.array_equal(module.photos["val"].read(0), np.asarray(colourful(32, 32, index)))
    assert module.class_numbers("val")[0] == index % 2
