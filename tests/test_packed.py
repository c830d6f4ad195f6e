"""Packed photos: the same pictures as the files, whatever happens to files, disk and process."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
import torch
from conftest import wait_for
from PIL import Image

from colorization.core.errors import InputError
from colorization.data import packed
from colorization.data.datamodules import FolderDataModule, sample_photo
from colorization.data.packed import PackedPhotos
from colorization.data.photos import read_rgb

Batch = dict[str, torch.Tensor]


def module(folder: Path, cache: str = "raw", **settings: Any) -> FolderDataModule:
    """By default the pack's side is larger than all photos, so that packing changes no pixel."""
    usual: dict[str, Any] = {"image_size": 32, "batch_size": 4, "num_workers": 0, "cache_side": 400}
    made = FolderDataModule(
        str(folder), cache=cache, **{**usual, "cache_dir": str(folder.parent / "cache"), **settings}
    )
    made.setup()
    return made


def epoch_of(made: FolderDataModule, split: str = "train") -> list[Batch]:
    loader = made.train_dataloader() if split == "train" else made.test_dataloader()
    return list(loader)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) for a, b in zip(one, other, strict=True)
    )


def packs(folder: Path) -> list[Path]:
    """The packs beside a folder, by what is in their cache."""
    return sorted((folder.parent / "cache").glob("packed-*"))


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colorization.files.pictures.Picture", lambda *_: pytest.fail("decoded a photo"))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_raw_pack_changes_no_batch(photo_folder: Path, split: str, num_workers: int) -> None:
    """Where photos are no larger than the pack's side, batches are those of the files to the bit."""
    settings = {"damage": 0.5, "num_workers": num_workers, "test_fraction": 0.4}
    plain, fast = (epoch_of(module(photo_folder, cache, **settings), split) for cache in ("off", "raw"))
    assert len(packs(photo_folder)) == 1
    assert same(plain, fast)
    assert all(b["rgb"].is_contiguous(memory_format=torch.channels_last) for b in fast)


def test_photos_are_reduced_to_the_side_and_never_enlarged(photo_folder: Path) -> None:
    made = module(photo_folder, cache_side=70)
    photos = made.fast("train", train=True)
    reduced = 0
    for i, name in enumerate(photos.names):
        original = read_rgb(photo_folder / name)
        height, width = original.shape[:2]
        found = photos.read(i)
        if min(height, width) <= 70:
            assert np.array_equal(found, original)
            continue
        reduced += 1
        assert min(found.shape[:2]) == 70 and abs(found.shape[0] / found.shape[1] * width / height - 1) < 0.02
        expected = Image.fromarray(original).resize(found.shape[1::-1], Image.Resampling.BOX)
        assert np.abs(found.astype(int) - np.asarray(expected)).mean() < 5
    assert reduced >= 5


def test_the_default_side_loses_no_detail(photo_folder: Path) -> None:
    """The smallest crop of a square photo still has as many pixels as the network sees."""
    for low in (0.25, 0.5, 1.0):
        made = FolderDataModule(str(photo_folder), image_size=64, crop_scale=(low, 1.0))
        assert made.cache_side >= np.sqrt(low * made.cache_side**2) >= 64
        assert made.cache_side <= 64 / np.sqrt(low) + 1


def test_jpeg_packs_are_small_and_keep_the_colours(photo_folder: Path) -> None:
    made = {c: module(photo_folder, c, image_size=80) for c in ("raw", "jpeg")}
    one, other = (m.fast("train", train=True) for m in made.values())
    assert one.names == other.names
    errors = [np.abs(one.read(i).astype(int) - other.read(i)).mean() for i in range(len(one.names))]
    assert max(errors) < 4
    raw, jpeg = (sum(f.stat().st_size for f in p.folder.glob("photos.bin")) for p in (one, other))  # type: ignore[union-attr]
    assert jpeg < raw / 2
    for batch in made["jpeg"].test_dataloader():
        assert batch["rgb"].shape == (1, 3, 80, 80)
    # red and blue in their places, and no chroma subsampling: thin lines of pure red stay red
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[:, ::4] = (230, 20, 20)
    (photo_folder / "lines").mkdir()
    for i in range(3):
        lines[0, 0] = i  # identical photos would share a split
        Image.fromarray(lines).save(photo_folder / "lines" / f"{i}.png")
    found = module(photo_folder / "lines", "jpeg").fast("train", train=True).read(0)
    assert np.abs(found.astype(int) - lines).max() < 40


def test_another_run_decodes_nothing(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = epoch_of(module(photo_folder))
    forbid_decoding(monkeypatch)
    assert same(first, epoch_of(module(photo_folder)))


def test_another_seed_and_filter_use_the_same_pack(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module(photo_folder).fast("train", train=True)
    forbid_decoding(monkeypatch)
    for settings in ({"seed": 7}, {"min_colorfulness": 20}, {"val_fraction": 0.3}):
        photos = module(photo_folder, **settings).fast("train", train=True)
        assert isinstance(photos, PackedPhotos) and len(packs(photo_folder)) == 1


@pytest.mark.parametrize("change", ["content", "same size and time", "one more", "one less"])
def test_a_changed_folder_is_packed_anew(photo_folder: Path, change: str) -> None:
    epoch_of(module(photo_folder))
    file = photo_folder / module(photo_folder).photos["train"].names[0]
    if change == "one more":
        shutil.copy(file, photo_folder / "more" / "zz.jpg")
    elif change == "one less":
        file.unlink()
    else:
        stat = file.stat()
        content = bytearray(file.read_bytes())
        content[15] ^= 2  # of the resolution: still a sound photo
        file.write_bytes(content)
        if change == "same size and time":
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert same(epoch_of(module(photo_folder)), epoch_of(module(photo_folder, "off")))
    assert len(packs(photo_folder)) == 2


def test_a_copy_of_the_folder_shares_the_pack(photo_folder: Path) -> None:
    epoch_of(module(photo_folder))
    copy = shutil.copytree(photo_folder, photo_folder.parent / "copy", copy_function=shutil.copyfile)
    epoch_of(module(copy))
    assert len(packs(photo_folder)) == 1


def test_the_index_tells_grey_and_unreadable_photos(photo_folder: Path) -> None:
    Image.fromarray(sample_photo("skimage/coffee")[:60, :60]).convert("L").save(photo_folder / "grey.png")
    (photo_folder / "broken.jpg").write_bytes(b"no photo")
    made = module(photo_folder, max_unreadable=0.5, min_colorfulness=15)
    photos = made.fast("train", train=True)
    assert isinstance(photos, PackedPhotos)
    index = json.loads((photos.folder / "index.json").read_text())
    assert [p["path"] for p in index["photos"] if p["near_grey"]] == ["grey.png"]
    assert [p["path"] for p in index["unreadable"]] == ["broken.jpg"]
    assert "no picture" in index["unreadable"][0]["error"]
    assert "grey.png" not in photos.names and len(photos.names) == len(made.photos["train"].names)


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "no index", "half an index"])
def test_a_damaged_pack_is_packed_again(photo_folder: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    before = epoch_of(module(photo_folder))
    (pack,) = packs(photo_folder)
    content = bytearray((pack / "photos.bin").read_bytes())
    if damage == "cut short":
        (pack / "photos.bin").write_bytes(content[:-1])
    elif damage == "a flipped bit":
        content[len(content) // 2] ^= 8
        (pack / "photos.bin").write_bytes(content)
    elif damage == "no index":
        (pack / "index.json").unlink()
    else:
        index = (pack / "index.json").read_text()
        (pack / "index.json").write_text(index[: len(index) // 2])
    assert same(before, epoch_of(module(photo_folder)))
    assert "damaged" in caplog.text and str(pack) in caplog.text


SCRIPT = """
import sys
from colorization.data import packed
from colorization.data.datamodules import FolderDataModule

encode = packed.encode
def slow(photos, facts, index, recipe):
    import time
    time.sleep(0.05)
    return encode(photos, facts, index, recipe)
packed.encode = slow
module = FolderDataModule(sys.argv[1], cache="raw", image_size=32, cache_dir=sys.argv[2])
module.setup()
module.fast("train", train=True)
"""


def test_a_killed_process_leaves_nothing_that_looks_whole(photo_folder: Path) -> None:
    cache = photo_folder.parent / "cache"
    process = forks.Process(photo_folder.parent, str(photo_folder), str(cache), code=SCRIPT)
    wait_for(lambda: list(cache.glob(".packed-*/photos.bin")))
    process.kill()
    process.wait()
    (left,) = cache.glob(".packed-*")
    assert packs(photo_folder) == []
    old = time.time() - 2 * packed._ABANDONED
    for path in (left, *left.iterdir()):
        os.utime(path, (old, old))
    assert same(epoch_of(module(photo_folder)), epoch_of(module(photo_folder, "off")))
    assert not left.exists()  # what was abandoned is cleared away


def test_no_room_is_one_sentence(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(photo_folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"takes .* MB and 0\.0 MB are free; set paths\.cache_dir"):
        epoch_of(module(photo_folder))
    assert list((photo_folder.parent / "cache").glob("*packed-*")) == []


def test_a_full_disk_is_one_sentence(photo_folder: Path) -> None:
    """A real file system that fills up while the pack is written, where one can be mounted."""
    small = photo_folder.parent / "cache"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a file system here")
    usage = shutil.disk_usage(photo_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)  # the estimate finds room
        try:
            with pytest.raises(InputError, match="the disk is full"):
                epoch_of(module(photo_folder))
            assert list(small.glob("*packed-*")) == []
        finally:
            subprocess.run(["umount", small], check=True)


def test_photos_that_change_while_they_are_packed(photo_folder: Path) -> None:
    made = module(photo_folder)
    Image.new("RGB", (50, 50), "red").save(photo_folder / made.photos["train"].names[2])
    with pytest.raises(InputError, match="has changed since the photos were checked"):
        made.fast("train", train=True)
    (photo_folder / made.photos["train"].names[2]).unlink()
    with pytest.raises(InputError, match="cannot be read any longer"):
        made.fast("train", train=True)
    assert packs(photo_folder) == []


def test_workers_get_the_path_and_not_the_pixels(photo_folder: Path) -> None:
    """Where worker processes are spawned the data set is pickled."""
    photos = module(photo_folder).fast("train", train=True)
    first = photos.read(0)
    content = pickle.dumps(photos)
    assert len(content) < 5000 < first.nbytes * len(photos.names)
    assert np.array_equal(pickle.loads(content).read(0), first)


def test_the_command_packs_what_training_uses(photo_folder: Path, run_main: Any, monkeypatch: Any, capsys: Any) -> None:
    from colorization import pack
    from colorization.core import hydra_main

    def command() -> None:
        hydra_main.run(pack.pack, "pack")

    asked = (f"datamodule.data_dir={photo_folder}", "datamodule.image_size=32", "paths.output_dir=out")
    assert run_main(command, *asked) == 0
    said = capsys.readouterr()
    assert "10 photos" in said.out and "packing" in said.err
    written = sorted(Path("out/cache").glob("packed-*"))
    assert len(written) == 3 and all(str(p) in said.out for p in written)
    made = module(photo_folder, "auto", cache_side="auto", cache_dir="out/cache")
    monkeypatch.setattr(packed, "_build", lambda *_: pytest.fail("packed again"))
    epoch_of(made)
    epoch_of(made, "test")
    assert run_main(command, "datamodule=sample", "paths.output_dir=out") == 0
    assert "not packed" in capsys.readouterr().out


@pytest.mark.parametrize(("key", "value"), [("cache", "zip"), ("cache_side", 16), ("cache_side", "large")])
def test_values_that_cannot_work(photo_folder: Path, key: str, value: object) -> None:
    with pytest.raises(InputError, match=rf"datamodule\.{key}={value}: should be"):
        FolderDataModule(str(photo_folder), image_size=32, **{key: value})
