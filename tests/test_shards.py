"""Shards: the packed photos themselves wherever they lie, to each process its share, in an order that goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import forks
import numpy as np
import pytest
import sftp
import torch
from conftest import free_port, wait_for
from PIL import Image
from test_distributed import STAGES, TWO, figures, finish, run_of, start
from test_distributed import environment as environment

from colorization import pack, train
from colorization.core import hydra_main
from colorization.core.errors import InputError
from colorization.data.datamodules import FolderDataModule, ShardsDataModule, sample_photo
from colorization.data.loading import EpochSampler
from colorization.data.packed import Recipe
from colorization.data.shards import MIXED, Index, ShardedPhotos

SIDE = 40
PACK = [f"datamodule.image_size={SIDE}", "datamodule.cache_side=60", "datamodule.cache=raw", "shard_mb=0.05"]


def pack_main() -> None:
    hydra_main.run(pack.pack, "pack")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty small photos, of which five are grey and one cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rgb = Image.fromarray(sample_photo("skimage/coffee"))
    for i in range(60):
        photo = rgb.crop((i * 8, i * 5, i * 8 + 80 + i % 3, i * 5 + 64))
        (photo.convert("L") if i % 12 == 0 else photo).save(folder / f"{i:02d}.png")
    (folder / "broken.png").write_bytes(b"no photo")
    return folder


@pytest.fixture
def shards(tmp_path: Path, photos: Path, run_main: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of these photos."""
    monkeypatch.chdir(tmp_path)
    assert run_main(pack_main, "to=shards", f"datamodule.data_dir={photos}", *PACK) == 0
    return tmp_path / "shards"


@pytest.fixture
def url(tmp_path: Path, shards: Path) -> Iterator[str]:
    with sftp.serve(tmp_path) as url:
        yield f"{url}/shards"


def module(location: Path | str, cache: Path, **settings: Any) -> ShardsDataModule:
    usual = {"image_size": SIDE, "batch_size": 4, "num_workers": 0, "cache_dir": str(cache)}
    made = ShardsDataModule(str(location), **{**usual, **settings})  # type: ignore[arg-type]
    made.setup()
    return made


def epoch(made: ShardsDataModule, number: int = 0, split: str = "train") -> list[dict[str, torch.Tensor]]:
    loader = made.loader(split, train=split == "train")
    loader.sampler.set_epoch(number)
    return list(loader)


def test_they_hold_what_the_pack_holds(shards: Path, photos: Path, tmp_path: Path) -> None:
    folder = FolderDataModule(
        str(photos), image_size=SIDE, cache_side=60, cache="raw", cache_dir=str(tmp_path / "cache"), num_workers=0
    )
    folder.setup()
    made = module(shards, tmp_path / "cache")
    assert made.name == folder.name
    assert len(list((shards / "train").glob("*.bin"))) > 5
    for split in ("train", "val", "test"):
        packed, sharded = folder.fast(split, split == "train"), made.fast(split, split == "train")
        assert sorted(sharded.names) == sorted(packed.names)
        assert {f.name: f for f in made.facts[split]} == {f.name: f for f in folder.facts[split]}
        for i, name in enumerate(sharded.names):
            assert np.array_equal(sharded.read(i), packed.read(packed.names.index(name)))
    assert made.describe()["hash"] == folder.describe()["hash"]
    assert made.describe()["mean_ab"] == pytest.approx(folder.describe()["mean_ab"], abs=1e-4)
    # Near-grey photos are there, and left out where training is asked to.
    coloured = module(shards, tmp_path / "cache", min_colorfulness=15)
    assert len(coloured.facts["train"]) == len(made.facts["train"]) - made.near_grey["train"] < len(made.facts["train"])


def test_jpeg_shards_are_close(tmp_path: Path, photos: Path, run_main: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    raw, jpeg = (
        [
            run_main(pack_main, f"to={c}", f"datamodule.data_dir={photos}", *PACK, f"datamodule.cache={c}"),
            module(c, tmp_path),
        ]
        for c in ("raw", "jpeg")
    )
    assert raw[0] == jpeg[0] == 0
    one, other = raw[1].photos["train"], jpeg[1].photos["train"]
    assert one.names == other.names
    difference = [np.abs(one.read(i).astype(int) - other.read(i)).mean() for i in range(len(one.names))]
    assert 0 < np.mean(difference) < 3


def many(shards: int = 160, each: int = 20, lanes: int = 8) -> ShardedPhotos:
    """Photos that are nowhere: for the order alone."""
    rows = [dict.fromkeys(("offset", "length", "height", "width", "crc32", "bytes"), 1) for _ in range(shards * each)]
    for i, row in enumerate(rows):
        row |= {"name": str(i), "shard": i // each, "original_height": 1, "original_width": 1, "digest": b""}  # type: ignore[dict-item]
        row |= dict.fromkeys(("colorfulness", "mean_a", "mean_b"), 0)
    return ShardedPhotos(Path("nowhere"), Recipe("raw", 1, True), Index.of_rows(rows), lanes, Path("nowhere"))


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_each_process_reads_its_share_of_the_shards(world: int) -> None:
    photos = many()
    order = photos.order(np.random.default_rng(0))
    assert sorted(order) == list(range(3200))
    assert not np.array_equal(order, photos.order(np.random.default_rng(1)))
    read = [set((order[rank::world] // 20).tolist()) for rank in range(world)]
    later = photos.order(np.random.default_rng(7))
    assert read == [set((later[rank::world] // 20).tolist()) for rank in range(world)]  # in each epoch the same
    assert set().union(*read) == set(range(160))
    assert all(len(r) <= 160 / world + 8 for r in read)  # where a lane begins or ends within a shard two have it


def test_few_shards_are_in_use_at_a_time_and_photos_are_mixed() -> None:
    order = many().order(np.random.default_rng(0))
    for at in range(0, 3200 - 256, 64):
        assert len(set((order[at : at + 256] // 20).tolist())) <= 8 * (MIXED + 3)
    assert len(set((order[:32] // 20).tolist())) <= 8 * 2  # an epoch begins without waiting for more
    # Neighbours in a shard are seldom neighbours in the order.
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.01
    places = np.argsort(order)  # a photo's place says nothing of its number
    assert abs(np.corrcoef(places, np.arange(3200))[0, 1]) < 0.1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_in_the_middle(shards: Path, tmp_path: Path, num_workers: int) -> None:
    settings = {"damage": 0.5, "num_workers": num_workers}
    whole = epoch(module(shards, tmp_path, **settings), 3)
    assert len(whole) > 8
    first = module(shards, tmp_path, **settings).train_dataloader()
    first.sampler.set_epoch(3)
    batches = iter(first)
    begun = [next(batches) for _ in range(5)]
    second = module(shards, tmp_path, **settings).train_dataloader()
    second.load_state_dict(first.state_dict())
    second.sampler.set_epoch(3)
    found = begun + list(second)
    assert len(found) == len(whole)
    assert all(torch.equal(a[k], b[k]) for a, b in zip(whole, found, strict=True) for k in ("rgb", "grey", "index"))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_shards_elsewhere_come_once(shards: Path, url: str, tmp_path: Path, num_workers: int) -> None:
    expected = epoch(module(shards, tmp_path))
    cache = tmp_path / "cache"
    stamps = []
    for _ in range(2):
        found = epoch(module(url, cache, num_workers=num_workers))
        assert all(torch.equal(a["rgb"], b["rgb"]) for a, b in zip(expected, found, strict=True))
        stamps.append({f.name: f.stat().st_ino for f in cache.glob("shards-*/*.bin")})
        for file in (shards / "train").glob("*.bin"):  # the second time they are not to be had
            file.unlink()
    assert stamps[0] == stamps[1] and len(stamps[0]) > 5
    # One that a power failure has cut short is not taken for whole.
    file = next(cache.glob("shards-*/00002.bin"))
    file.write_bytes(file.read_bytes()[:99])
    with pytest.raises(InputError, match=r"00002.bin: cannot be read"):
        epoch(module(url, cache, num_workers=num_workers))


def test_the_cache_keeps_its_bound(shards: Path, url: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    size = sum(f.stat().st_size for f in (shards / "train").glob("*.bin"))
    bound = size // 3
    expected = epoch(module(shards, tmp_path), 1)
    found = epoch(module(url, cache, cache_gb=bound / 1e9, num_workers=1), 1)
    assert all(torch.equal(a["rgb"], b["rgb"]) for a, b in zip(expected, found, strict=True))
    assert 0 < sum(f.stat().st_size for f in cache.glob("shards-*/*.bin")) <= bound
    # Of all splits and sets together; what a killed process has left goes, too.
    folder = next(cache.glob("shards-*"))
    other = cache / "shards-0" / "00000.bin"
    other.parent.mkdir()
    other.write_bytes(bytes(bound))
    left = folder / ".00001.bin-left.bin"
    left.write_bytes(b"x")
    for file in (other, left):
        os.utime(file, (0, 0))
    epoch(module(url, cache, cache_gb=bound / 1e9), 2)
    assert 0 < sum(f.stat().st_size for f in cache.glob("shards-*/*.bin")) <= bound and not left.exists()


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("harm", ["damaged", "cut", "empty", "gone"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_shard_that_cannot_be_had_ends_it(
    shards: Path, url: str, tmp_path: Path, where: str, harm: str, num_workers: int
) -> None:
    """It is no unreadable photo, of which a few may be left out."""
    made = module(shards if where == "here" else url, tmp_path / "cache", num_workers=num_workers)
    shard = shards / "train" / "00003.bin"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    left = {"damaged": content, "cut": content[: len(content) // 3], "empty": b""}
    shard.write_bytes(left[harm]) if harm in left else shard.unlink()
    with pytest.raises(InputError, match=r"train/00003.bin: cannot be read \("):
        epoch(made)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_server_that_is_away_for_a_time_is_waited_for(
    shards: Path, tmp_path: Path, num_workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    with sftp.serve(tmp_path, port) as url:
        made = module(f"{url}/shards", tmp_path / "cache", num_workers=num_workers, lanes=1)
        batches = iter(made.loader("train", train=True))
        found = [next(batches)["index"]]
    start = time.monotonic()
    back = threading.Timer(2, lambda: stack.enter_context(sftp.serve(tmp_path, port)))
    with ExitStack() as stack:
        back.start()
        found += [batch["index"] for batch in batches]
        waited = time.monotonic() - start
        back.join()
    assert len(set(torch.cat(found).tolist())) == len(made.photos["train"].names) // 4 * 4
    assert waited > 2
    assert num_workers or "cannot be read ([Errno None] Unable to connect to port" in caplog.text


def test_another_order_begins_the_epoch_anew(shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is seen twice or left out where a run goes on with other lanes."""
    first = module(shards, tmp_path).train_dataloader()
    batches = iter(first)
    for _ in range(3):
        next(batches)
    other = module(shards, tmp_path, lanes=4).train_dataloader()
    other.load_state_dict(first.state_dict())
    whole = epoch(module(shards, tmp_path, lanes=4))
    assert all(torch.equal(a["index"], b["index"]) for a, b in zip(whole, other, strict=True))
    assert "are in another order than before: epoch 1 starts over" in caplog.text


# Kills itself when the photos of the third shard are written, and not yet what is known of them.
KILLED = """
import os, signal
from colorization import pack
from colorization.core import hydra_main
from colorization.data.shards import Index

of_rows, calls = Index.of_rows, iter(range(9))

def killed(rows):
    if next(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return of_rows(rows)

Index.of_rows = killed
hydra_main.run(pack.pack, "pack")
"""


def test_a_killed_packing_goes_on(photos: Path, tmp_path: Path, run_main: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["to=shards", f"datamodule.data_dir={photos}", *PACK]
    train_ = tmp_path / "shards" / "train"
    assert forks.Process(tmp_path, *command, code=KILLED).wait() == -signal.SIGKILL
    assert (train_ / "00002.bin").exists() and not (train_ / "00002.npz").exists()
    with pytest.raises(InputError, match="no shards there"):
        module("shards", tmp_path)
    first = train_ / "00000.bin"
    written = first.stat().st_mtime_ns
    assert run_main(pack_main, *command) == 0
    assert first.stat().st_mtime_ns == written
    assert run_main(pack_main, *command[:-1], "shard_mb=0.05", "to=other") == 0
    for file in (tmp_path / "other").rglob("*.bin"):
        assert (tmp_path / "shards" / file.relative_to(tmp_path / "other")).read_bytes() == file.read_bytes()
    # Other photos in the same place leave nothing of these.
    for file in sorted(photos.glob("*.png"))[20:60]:
        file.unlink()
    assert run_main(pack_main, *command) == 0
    names = module("shards", tmp_path).photos["train"].names
    assert len(list(train_.glob("*.bin"))) == 1 + max(
        Index.of_bytes((train_ / "index.npz").read_bytes()).columns["shard"]
    )
    assert {photos / n for n in names} <= set(photos.glob("*.png"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data_dir": None}, "datamodule.data_dir is not set"),
        ({"data_dir": "nowhere"}, "no shards there; python -m colorization.pack to=... writes them"),
        ({"image_size": 64}, "of photos packed for 40; set that, or pack them again"),
        ({"lanes": 0}, "datamodule.lanes=0: should be"),
        ({"cache_gb": -1}, "datamodule.cache_gb=-1: should be"),
    ],
)
def test_mistakes_are_told_in_a_sentence(shards: Path, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words.replace(".", r"\.")) as caught:
        made = ShardsDataModule(**{"data_dir": str(shards), "image_size": SIDE, "cache_dir": str(tmp_path), **settings})
        made.setup()
    assert "InputError" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", "[]", "{"])
def test_a_damaged_list_is_told_in_a_sentence(shards: Path, tmp_path: Path, content: str) -> None:
    (shards / "shards.json").write_text(content)
    with pytest.raises(InputError, match=r"^datamodule.data_dir=\S*shards: shards.json is damaged$"):
        module(shards, tmp_path)


def test_the_server_trains_on_shards_below_its_data(shards: Path, make_app: Callable[..., Any], tmp_path: Path) -> None:
    client = make_app(trainings=0).test_client()
    shards.rename(tmp_path / "data" / "shards")
    (tmp_path / "data" / "none").mkdir()
    asked = {"model": "unet", "datamodule": "shards", "image_size": SIDE, "accelerator": "cpu"}
    answer = client.post("/api/training/start", json={**asked, "data": "shards"})
    assert answer.status_code == 201, answer.json
    for data in ("none", "sftp://u@127.0.0.1/shards", str(tmp_path)):
        assert list(client.post("/api/training/start", json={**asked, "data": data}).json["errors"]) == ["data"]


@pytest.mark.slow
def test_training_on_shards_elsewhere_by_two_processes_and_then_by_one(
    shards: Path,
    url: str,
    environment: dict[str, str],
    run_main: Any,
    tmp_path: Path,
) -> None:
    """The same as by one process all along; each fetches its share."""
    options = [
        "datamodule=shards", f"datamodule.data_dir={url}", "datamodule.image_size=40", "datamodule.batch_size=4",
        "datamodule.num_workers=1", "accelerator=cpu", "logger.tensorboard=null", "trainer.log_every_n_steps=1",
        "samples=2", "test=false", "seed=3", "trainer.max_epochs=14", *STAGES["unet"], "model.optimizer.lr=1e-5",
    ]  # fmt: skip
    assert run_main(train.main, *options, "run_id=whole") == 0
    process = start(environment, *options, *TWO, "run_id=parts")
    parts = run_of("parts")
    wait_for(lambda: parts.status().get("step", 0) >= 5, process=process)
    os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: the workers, and who starts them, go on meanwhile
    finish(process, code=143)
    assert 5 <= parts.status()["step"] < 14 * 11
    assert run_main(train.main, "run_id=parts", "ckpt_path=last", "trainer=default", "trainer.devices=1") == 0
    expected, found = figures(run_of("whole")), figures(parts)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
    assert not any(b"secret" in f.read_bytes() for f in run_of("whole").path.rglob("*") if f.is_file())


def test_the_sampler_hands_out_lanes() -> None:
    photos = many()
    one = [i for _, i in EpochSampler(3200, True, 0, 8, True, photos)]
    assert one == photos.order(np.random.default_rng([0, 0])).tolist()
