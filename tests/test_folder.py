"""The folder run: what is found, what is written, and that it goes on after anything."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.color import rgb2gray
from test_colorize import save

from colorization import Colorizer
from colorization.colorize import folder
from colorization.colorize.cli import colorize
from colorization.core import color
from colorization.data.datamodules import sample_photo

Run = Callable[..., int]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save(tmp_path / "w.safetensors", (0.2, 0.3), image_size=32)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Twelve grey photos in nested folders, of all types, one with a line break and an emoji in its name."""
    root = tmp_path / "scans"
    grey = Image.fromarray(sample_photo("skimage/coffee")).convert("L")
    names = ["a.jpg", "b.png", "c.webp", "d.tif", "new\nline 😀.jpg", "box 1/a.jpg", "box 1/b.JPG", "box 1/c.png"]
    names += [f"box 1/deep/{i}.jpg" for i in range(3)] + ["box 2/a.jpg"]
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        grey.crop((i * 20, i * 10, i * 20 + 60 + i, i * 10 + 48)).save(root / name)
    return root


@pytest.fixture
def run(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("scans", "-o", "out")``: the command, recursive, in ``tmp_path``, and all of it in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLORIZATION_WEIGHTS", str(weights))
    return lambda *arguments: colorize([*map(str, arguments), "--recursive", "--file-timeout", "0"])


def results(out: Path) -> dict[str, bytes]:
    """All files of results but the manifest, by their path."""
    files = (f for f in out.rglob("*") if f.is_file() and f.relative_to(out).parts[0] != folder.WORK)
    return {f.relative_to(out).as_posix(): f.read_bytes() for f in files if f.name != folder.MANIFEST}


def lines(out: Path) -> list[dict[str, Any]]:
    """The manifest's lines about photos."""
    rows = [json.loads(line) for line in (out / folder.MANIFEST).read_text().splitlines()]
    return [row for row in rows if "run" not in row]


def canonical(out: Path) -> list[str]:
    """What does not depend on when a photo was done: the last line of each, without times."""
    last = {}
    for row in lines(out):
        for file in (row.get("input", {}), *row.get("outputs", ())):
            file.pop("mtime_ns", None)
        last[row["target"]] = {k: v for k, v in row.items() if k != "seconds"}
    return [json.dumps(last[target], sort_keys=True) for target in sorted(last)]


def names(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


# What is found and where it goes


def test_the_tree_is_kept_and_each_result_is_that_of_the_colorizer(run, scans, weights, tmp_path, capsys) -> None:
    assert run("scans", "-o", "out", "--workers", 3) == 0
    assert sorted(results(tmp_path / "out")) == names(scans)
    assert capsys.readouterr().out.startswith("done 12, skipped 0, failed 0; ")
    colorizer = Colorizer.load(weights)
    for name in ("b.png", "d.tif", "box 1/c.png"):  # of no loss
        with Image.open(scans / name) as before, Image.open(tmp_path / "out" / name) as after:
            assert np.array_equal(np.asarray(colorizer.colorize(before)), np.asarray(after.convert("RGB")))


def test_results_do_not_depend_on_the_workers(run, scans, tmp_path) -> None:
    assert run("scans", "-o", "one", "--workers", 1) == run("scans", "-o", "four", "--workers", 4) == 0
    assert results(tmp_path / "one") == results(tmp_path / "four")
    assert canonical(tmp_path / "one") == canonical(tmp_path / "four")


def test_the_manifest_has_a_line_for_each_photo(run, scans, weights, tmp_path) -> None:
    assert run("scans", "-o", "out", "--saturation", 1.5) == 0
    rows = lines(tmp_path / "out")
    assert len(rows) == 12
    for row in rows:
        source, (result,) = scans.parent / row["source"], row["outputs"]
        assert row["input"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
        assert result["sha256"] == hashlib.sha256((tmp_path / "out" / result["name"]).read_bytes()).hexdigest()
        assert row["recipe"]["weights"] == [hashlib.sha256(weights.read_bytes()).hexdigest()]
        assert row["recipe"]["settings"]["saturation"] == 1.5
        assert row["seconds"] >= 0 and row["state"] == "done"


def test_what_is_no_photo_is_left_out_and_counted(run, scans, tmp_path, capsys) -> None:
    """Hidden files, those that systems make, links to folders, other files, what is excluded, and the results."""
    everything = names(scans)
    photo = (scans / "a.jpg").read_bytes()
    left_out = ["._a.jpg", ".hidden/a.jpg", "@eaDir/a.jpg", "box 1/Thumbs.db", "thumbs/a.jpg", "b-small.jpg"]
    for copy in (*left_out, "photo.dat", "box 2/nothing"):
        (scans / copy).parent.mkdir(exist_ok=True)
        (scans / copy).write_bytes(photo)
    (scans / "box 1" / "circle").symlink_to(scans)
    for other in ("Page.txt", "BMX.txt", "P5.txt", "empty.pdf"):
        (scans / other).write_text(other[:-4].replace("empty", ""))
    arguments = ("scans", "-o", "scans/colour", "--exclude", "thumbs", "--exclude", "*-SMALL.jpg")
    for _ in range(2):  # the second time there are results in the folder
        assert run(*arguments) == 0
        assert sorted(results(scans / "colour")) == everything
        said = capsys.readouterr()
        assert "skipped: scans/box 1/circle: a link to a folder" in said.err
        assert (
            "\n6 other files not taken: 3 .txt, 1 .pdf, 1 .dat, 1 without an ending; 4 hidden or system files and "
            "folders left out; 2 excluded; 2 of them are pictures with unusual endings: --any-ending takes them\n"
        ) in said.out
    assert run(*arguments, "--any-ending", "--filter", "*.dat*", "--filter", "nothing*") == 0
    assert sorted(results(scans / "colour")) == sorted([*everything, "photo.dat.jpg", "box 2/nothing.jpg"])
    assert "4 other files not taken: 3 .txt, 1 .pdf; 4 hidden" in capsys.readouterr().out


def test_earlier_results_are_not_colorized_again(run, scans, tmp_path, capsys) -> None:
    made = scans / "made"
    for type in ("jpeg", "png", "webp", "tiff"):
        assert run("scans/a.jpg", "scans/b.png", "-o", made / type, "--type", type) == 0
    capsys.readouterr()
    for again in ("skipped 8", "(20 more were finished before), skipped 0"):
        assert run("scans", "-o", "out") == 0
        said = capsys.readouterr()
        assert again in said.out
        assert len([s for s in said.err.splitlines() if "is a result already: its tag says" in s]) == 8 * ("8" in again)
    assert not (tmp_path / "out" / "made" / "jpeg" / "a.jpg").exists()


def test_without_recursive_only_the_folder_itself(run, scans, tmp_path, capsys) -> None:
    assert colorize(["scans", "-o", "out"]) == 0
    assert sorted(results(tmp_path / "out")) == sorted(f.name for f in scans.iterdir() if f.is_file())
    assert "skipped: scans/box 1: a folder; --recursive goes into it" in capsys.readouterr().err


def test_several_folders_keep_their_names(run, scans, tmp_path) -> None:
    assert run("scans/box 1", "scans/box 2/", "scans/a.jpg", "-o", "out") == 0
    assert sorted(results(tmp_path / "out")) == ["a.jpg", *(n for n in names(scans) if n.startswith("box"))]


def test_filter_and_limit_choose_always_the_same(run, scans, tmp_path) -> None:
    assert run("scans", "-o", "a", "--filter", "?.jpg", "--limit", 3) == 0
    first = sorted(results(tmp_path / "a"))
    assert first == ["a.jpg", "box 1/a.jpg", "box 1/b.JPG"]
    assert run("scans", "-o", "a", "--filter", "?.jpg", "--limit", 3) == 0
    assert sorted(results(tmp_path / "a")) == first
    assert run("scans", "-o", "b", "--filter", "box 1/deep/*", "--filter", "*.webp") == 0
    assert sorted(results(tmp_path / "b")) == [*(f"box 1/deep/{i}.jpg" for i in range(3)), "c.webp"]


def test_a_dry_run_writes_nothing(run, scans, tmp_path, capsys) -> None:
    before = names(tmp_path)
    assert run("scans", "-o", "out", "--dry-run", "--limit", 5) == 0
    said = capsys.readouterr().out.splitlines()
    assert names(tmp_path) == before and not (tmp_path / "out").exists()
    assert len([s for s in said if s.startswith("would colorize: ")]) == 5 and said[-1] == "5 to do, 0 finished"
    assert "would colorize: scans/new\\nline 😀.jpg -> out/new\\nline 😀.jpg" in said
    run("scans", "-o", "out", "--limit", 3)
    capsys.readouterr()
    assert run("scans", "-o", "out", "--dry-run", "--limit", 5) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 to do, 3 finished"


def test_types_and_names(run, scans, tmp_path) -> None:
    assert run("scans/box 1/deep", "-o", "out", "--type", "png", "--name", "{stem}-colour{suffix}", "--strip") == 0
    assert sorted(results(tmp_path / "out")) == [f"{i}-colour{end}" for i in range(3) for end in ("-strip.jpg", ".png")]
    with Image.open(tmp_path / "out" / "0-colour.png") as image, Image.open(scans / "box 1/deep/0.jpg") as before:
        assert image.format == "PNG" and image.size == before.size
        with Image.open(tmp_path / "out" / "0-colour-strip.jpg") as strip:
            assert strip.size == (2 * before.width, before.height)
            left, right = np.asarray(strip)[:, : before.width - 8], np.asarray(strip)[:, before.width + 8 :]
            assert np.ptp(left, axis=2).mean() < 3 < np.ptp(right, axis=2).mean()  # grey, coloured


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scans", "-o", "scans"], ["-o scans", "choose another"]),
        (["scans/box 1", "-o", "scans", "--name", "../{name}{suffix}"], ["name=../{name}", "{suffix}"]),
        (["scans", "-o", "out", "--name", "{stem}-colour"], ["name={stem}-colour", "{suffix}"]),
        (["scans", "-o", "out", "--name", "{title}{suffix}"], ["{title}", "{stem}"]),
        (["scans", "-o", "out", "--workers", "0"], ["--workers 0", "1 or more"]),
        (["scans", "-o", "out", "--saturation", "-1"], ["saturation=-1"]),
        (["scans", "-o", "scans/a.jpg"], ["scans/a.jpg", "folder"]),
        (["scans", "-o", "out", "--filter", "*.xyz"], ["no photos"]),
        (["empty", "-o", "out"], ["no photos in empty"]),
        (["scans", "-o", "out", "--weights", "nothing"], ["nothing"]),
        (["scans/a.jpg", "-o", "out.png", "--type", "jpeg"], ["--type", "out.png"]),
        (["scans/a.jpg", "-o", "w.safetensors/out.jpg"], ["w.safetensors"]),
        (["scans", "-o", "w.safetensors/out"], ["w.safetensors"]),
    ],
)
def test_a_mistake_is_one_sentence_and_starts_nothing(arguments, words, run, scans, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    before = names(tmp_path)
    assert run(*arguments) in (1, 2)
    said = capsys.readouterr().err.strip()
    assert said.startswith(("error: ", "failed: ")) and "\n" not in said
    assert all(w in said for w in words)
    assert names(tmp_path) == before


def test_two_photos_never_become_one_file(run, scans, tmp_path, capsys) -> None:
    """Only those keep their ending whose results would have the name of another's, whatever else is chosen."""
    Image.new("RGB", (40, 40)).save(scans / "a.avif")
    Image.new("L", (40, 40)).save(scans / "a.png")
    assert run("scans", "-o", "one", "--filter", "a.avif", "--filter", "b.png") == 0
    assert sorted(results(tmp_path / "one")) == ["a.avif.jpg", "b.png"]
    assert run("scans", "-o", "out", "--type", "png", "--name", "{stem}-c{suffix}", "--filter", "[ab].*") == 0
    assert {"a.jpg-c.png", "a-c.png", "a.avif-c.png", "b-c.png"} <= set(results(tmp_path / "out"))
    assert run("scans/a.jpg", "scans/box 1/a.jpg", "-o", "out") == 2
    assert "scans/a.jpg and scans/box 1/a.jpg would both become out/a.jpg" in capsys.readouterr().err
    Image.new("L", (40, 40)).save(scans / "b-strip.jpg")  # a result, and what comes beside another
    assert run("scans", "-o", "other", "--strip", "--filter", "[ab]*.*") == 0
    assert {"a.jpg-strip.jpg", "a.png-strip.jpg", "b.png-strip.jpg", "b-strip.jpg"} <= set(results(tmp_path / "other"))


def test_an_original_is_never_replaced(run, scans, tmp_path, capsys) -> None:
    before = {f: (scans / f).read_bytes() for f in names(scans)}
    (tmp_path / "link").symlink_to(scans)
    for arguments in (["scans/box 2", "-o", "scans/box 2"], ["scans/box 2/a.jpg", "-o", "scans/box 2"]):
        assert run(*arguments, "--overwrite") == 2
    assert run("scans/a.jpg", "scans/b.png", "-o", "link", "--overwrite") == 2
    assert "would replace" in capsys.readouterr().err
    assert {f: (scans / f).read_bytes() for f in before} == before


# Going on


def test_a_second_run_does_nothing_again(run, scans, tmp_path, capsys) -> None:
    assert run("scans", "-o", "out") == 0
    before = {f: (tmp_path / "out" / f).stat().st_mtime_ns for f in results(tmp_path / "out")}
    (scans / "b.png").touch()  # the same content at another time
    capsys.readouterr()
    assert run("scans", "-o", "out") == 0
    assert capsys.readouterr().out.startswith("done 0 (12 more were finished before), skipped 0, failed 0")
    assert {f: (tmp_path / "out" / f).stat().st_mtime_ns for f in before} == before
    assert len(lines(tmp_path / "out")) == 12


def test_new_changed_and_lost_files_are_done(run, scans, tmp_path, capsys) -> None:
    assert run("scans", "-o", "out") == 0
    first = results(tmp_path / "out")
    Image.new("L", (50, 40), 80).save(scans / "new.jpg")
    Image.new("L", (50, 40), 90).save(scans / "a.jpg")
    (tmp_path / "out" / "b.png").unlink()
    (tmp_path / "out" / "c.webp").write_bytes(b"")  # as after a power cut
    capsys.readouterr()
    assert run("scans", "-o", "out") == 0
    assert capsys.readouterr().out.startswith("done 4 (9 more were finished before)")
    now = results(tmp_path / "out")
    assert now["a.jpg"] != first["a.jpg"] and now["b.png"] == first["b.png"] and now["c.webp"] == first["c.webp"]
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert image.size == (50, 40)


def test_what_this_program_did_not_write_is_kept(run, scans, tmp_path, capsys) -> None:
    """A file that was there before, and a result that somebody has retouched."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").write_bytes(b"of another origin")
    assert run("scans", "-o", "out") == 1
    assert "failed: scans/a.jpg: out/a.jpg already exists" in capsys.readouterr().err
    (tmp_path / "out" / "b.png").write_bytes(b"retouched")
    assert run("scans", "-o", "out") == 1
    assert len([s for s in capsys.readouterr().err.splitlines() if "already exists" in s]) == 2
    kept = results(tmp_path / "out")
    assert kept["a.jpg"] == b"of another origin" and kept["b.png"] == b"retouched"
    assert run("scans", "-o", "out", "--overwrite") == 0
    run("scans", "-o", "fresh")
    assert results(tmp_path / "out") == results(tmp_path / "fresh")


def test_other_settings_are_refused_or_overwrite_all(run, scans, tmp_path, weights, capsys) -> None:
    assert run("scans", "-o", "out") == 0
    first = results(tmp_path / "out")
    for arguments, words in (
        (["--strength", "0.5"], "settings.strength was 1.0, is 0.5"),
        (["--type", "png"], "output.type was same, is png"),
        (["--no-disclosure"], "disclose was true, is false"),
        (["--weights", str(save(tmp_path / "other.safetensors", (0.3, 0.1)))], "weights was "),
    ):
        assert run("scans", "-o", "out", *arguments) == 2
        said = capsys.readouterr().err
        assert words in said and "--overwrite" in said
    assert results(tmp_path / "out") == first
    assert run("scans", "-o", "out", "--strength", "0.5", "--overwrite") == 0
    assert capsys.readouterr().out.startswith("done 12, ")
    run("scans", "-o", "fresh", "--strength", "0.5")
    capsys.readouterr()
    assert results(tmp_path / "out") == results(tmp_path / "fresh") != first
    assert run("scans", "-o", "out", "--strength", "0.5", "--overwrite") == 0  # it has been done
    assert capsys.readouterr().out.startswith("done 0 (12 more")


def test_going_on_keeps_the_backend(run, scans, tmp_path) -> None:
    """``auto`` may mean another one by then, whose colours differ in the last bit."""
    assert run("scans", "-o", "out", "--limit", 3, "--backend", "torch", "--device", "cpu") == 0
    assert run("scans", "-o", "out") == 0
    recipes = [row["recipe"] for row in lines(tmp_path / "out")]
    assert len(recipes) == 12 and all((r["backend"], r["device"]) == (["torch"], ["cpu"]) for r in recipes)
    assert run("scans", "-o", "whole", "--backend", "torch", "--device", "cpu") == 0
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_torn_line_is_dealt_with_and_a_damaged_one_told(run, scans, tmp_path, capsys) -> None:
    assert run("scans", "-o", "out") == 0
    manifest = tmp_path / "out" / folder.MANIFEST
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-100])
    before = whole.count(b"\n")
    assert run("scans", "-o", "out") == 1  # a result without its line: kept, and told
    said = capsys.readouterr().err
    assert said.count("already exists") == 1
    rows = [json.loads(line) for line in manifest.read_bytes().splitlines()]
    assert len(rows) == before + 1  # a line less, a run's first line and a failure more
    cut = whole.splitlines(keepends=True)
    manifest.write_bytes(b"".join([*cut[:3], cut[3][:40], b"\n", *cut[4:]]))
    assert run("scans", "-o", "out") == 2
    assert "line 4 is damaged" in capsys.readouterr().err
    manifest.write_bytes(cut[0][:20])
    assert run("scans", "-o", "out", "--overwrite") == 0


# Real processes. The network is a formula here, so that a process starts fast.

FORMULA = """
import sys, time
import numpy as np
from colorization.colorize import cli, colorizer

class Formula:
    name, digest = "formula", "0" * 64
    description = {"stage": "formula", "network": {"_target_": "Formula"}, "training_data": {"image_size": 32}}
    def __call__(self, L, vividness=None):
        time.sleep(float(sys.argv[1]))
        return np.concatenate((0.5 * L, 0.3 - 0.3 * L), 1)[None]

assert "torch" not in sys.modules
colorizer.Colorizer.load = classmethod(lambda cls, *a, **k: cls([Formula()]))
"""
SCRIPT = FORMULA + "sys.exit(cli.colorize(sys.argv[2:]))"


def start(scans: Path, out: Path, *more: str, pause: float = 0.02, **kwargs: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(pause), scans, "-o", out, "--recursive", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)


def wait_for_lines(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the manifest has so many lines, or the process ends."""
    manifest = out / folder.MANIFEST
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if manifest.exists() and manifest.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.002)


def test_killed_at_random_moments_it_goes_on_and_ends_the_same(scans, tmp_path) -> None:
    for i in range(24):
        Image.fromarray(sample_photo("skimage/astronaut")[i * 9 : i * 9 + 60, :70]).save(scans / f"{i}.jpg")
    whole = start(scans, tmp_path / "whole", "--strip", pause=0)
    assert "done 36, " in whole.communicate()[0] and whole.returncode == 0
    expected = results(tmp_path / "whole")
    assert len(expected) == 72

    out, chance = tmp_path / "killed", random.Random(4)
    finished: dict[str, int] = {}
    kills, lines_seen = 0, 0
    while True:
        process = start(scans, out, "--strip")
        wait_for_lines(out, lines_seen + chance.randint(1, 8), process)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        said, _ = process.communicate()
        kills += process.returncode == -signal.SIGKILL
        lines_seen = (out / folder.MANIFEST).read_bytes().count(b"\n")
        now = results(out)
        assert all(expected[name] == content for name, content in now.items())  # nothing half-written, nothing else
        times = {name: (out / name).stat().st_mtime_ns for name in now}
        assert {name: times[name] for name in finished} == finished  # nothing was done twice
        finished = {row["target"]: times[row["target"]] for row in complete(out)}
        if process.returncode == 0:
            break
    assert kills >= 4
    assert "failed 0" in said
    assert results(out) == expected
    assert canonical(out) == canonical(tmp_path / "whole")
    assert [f.name for f in (out / folder.WORK).iterdir()] == ["lock"]


def complete(out: Path) -> list[dict[str, Any]]:
    """The lines of photos all of whose results are in their place."""
    whole = (out / folder.MANIFEST).read_bytes().rpartition(b"\n")[0].splitlines()
    rows = [row for row in map(json.loads, whole) if row.get("state") == "done"]
    return [row for row in rows if all((out / o["name"]).exists() for o in row["outputs"])]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_the_photos_in_hand(number, code, scans, tmp_path) -> None:
    out = tmp_path / "out"
    process = start(scans, out, "--workers", "2", pause=0.2)
    wait_for_lines(out, 2, process)
    process.send_signal(number)
    said, error = process.communicate()
    assert process.returncode == code, error
    done = [row["target"] for row in lines(out)]
    assert 0 < len(done) < 12 and sorted(results(out)) == sorted(done)
    assert f"{12 - len(done)} photos are left: run the same command to resume" in said
    assert signal.Signals(number).name in said
    assert "Traceback" not in error
    process = start(scans, out, pause=0)
    assert f"done {12 - len(done)} ({len(done)} more" in process.communicate()[0]


def test_a_second_process_is_refused_and_a_killed_one_locks_nothing(scans, tmp_path) -> None:
    out = tmp_path / "out"
    first = start(scans, out, pause=0.5)
    wait_for_lines(out, 1, first)
    second = start(scans, out)
    _, error = second.communicate()
    assert second.returncode == 2 and "another process is colorizing into this folder" in error
    first.kill()
    first.communicate()
    assert start(scans, out, pause=0).wait() == 0
    assert sorted(results(out)) == names(scans)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_no_room_for_the_manifest_stops_the_run_which_goes_on_later(scans, tmp_path) -> None:
    """The largest file that the process may write is smaller than the manifest, as on a disk that fills up."""
    import resource

    out = tmp_path / "out"
    process = start(scans, out, pause=0, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)))
    said, error = process.communicate()
    assert process.returncode == 1, error
    assert "stopped: " in said and "run the same command to resume" in said
    assert (out / folder.MANIFEST).read_bytes().endswith(b"\n")
    before = len(results(out))
    assert 0 < before < 12
    assert start(scans, out, pause=0).wait() == 0
    assert sorted(results(out)) == names(scans)


def test_a_disk_that_fills_up(scans, tmp_path) -> None:
    """A real file system, where one can be mounted."""
    out = tmp_path / "out"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", out], capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    try:
        process = start(scans, out, "--workers", "2", pause=0)
        said, error = process.communicate()
        assert process.returncode == 1, error
        assert "No space left on device" in said and "photos are left" in said and "failed 0" in said, error
        left = results(out)
        subprocess.run(["mount", "-o", "remount,size=4m", out], check=True)
        assert start(scans, out, pause=0).wait() == 0
        assert sorted(results(out)) == names(scans)
        assert all(results(out)[name] == content for name, content in left.items())
    finally:
        subprocess.run(["umount", out], check=True)


def test_the_console_script_in_a_real_process(scans, weights, tmp_path) -> None:
    script = Path(sys.executable).parent / "colorize"
    done = subprocess.run(
        [script, scans, "-o", "out", "-r", "--weights", weights, "--report", "report.txt"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.txt").read_text() == done.stdout
    assert sorted(results(tmp_path / "out")) == names(scans)


# Files that never end


HANGING = (
    FORMULA
    + """
import os, re, signal
import imagecodecs, tifffile
from colorization.colorize import bounded
from colorization.files import pictures

imagecodecs.jpeg8_decode, imagecodecs.jpeg8_encode, imagecodecs.png_encode  # loaded now: no photo's time
whole, bounded.memory_limit = pictures.Picture._open, lambda: 5 * 10**8

def hangs(self):
    name, kept = os.path.basename(self._path), []
    if name == "hangs.jpg":  # in C, and with the interpreter's lock
        re.match("(a*)*b", "a" * 99)
    while name == "grows.jpg":
        kept.append(b"x" * 10**7 if len(kept) < 100 else b"")
        time.sleep(0.001)
    if name == "dies.jpg":
        os.kill(os.getpid(), signal.SIGSEGV)
    whole(self)

pictures.Picture._open = hangs
if __name__ == "__main__":
    sys.exit(cli.colorize(sys.argv[2:]))
"""
)


@pytest.mark.parametrize(
    ("why", "more"),
    [
        ({"hangs.jpg": "took more than 4 s; --file-timeout allows more"}, ("--file-timeout", "4")),
        ({"grows.jpg": "needs more than 0.5 GB of memory", "dies.jpg": "its process was ended by SIGSEGV"}, ()),
    ],
)
def test_no_file_stops_a_run(why, more, scans, tmp_path) -> None:
    """Neither one whose reading never ends, nor one that takes all memory, nor one that takes the process with it."""
    (tmp_path / "hanging.py").write_text(HANGING)
    everything = names(scans)
    for name in why:
        (scans / name).write_bytes((scans / "a.jpg").read_bytes())
    command = [sys.executable, tmp_path / "hanging.py", "0", scans, "-o", tmp_path / "out", "--recursive"]
    process = subprocess.run([*command, "--workers", "3", *more], capture_output=True, text=True)
    assert process.returncode == 1, process.stderr
    assert f"done 12, skipped 0, failed {len(why)}; " in process.stdout
    assert sorted(results(tmp_path / "out")) == everything
    assert why == {row["target"]: row["error"] for row in lines(tmp_path / "out") if row["state"] == "failed"}
    assert [f.name for f in (tmp_path / "out" / folder.WORK).iterdir()] == ["lock"]


# Odd files


def test_every_odd_file_is_a_line_with_its_reason_and_the_rest_is_done(run, scans, tmp_path, capsys) -> None:
    everything = names(scans)
    (scans / "truncated.jpg").write_bytes((scans / "a.jpg").read_bytes()[:400])
    (scans / "zero.png").touch()
    (scans / "text\n.jpg").write_text("no photo\n")
    (scans / "folder.jpg").mkdir()
    (scans / "nowhere.jpg").symlink_to("gone.jpg")
    os.mkfifo(scans / "pipe.jpg")
    os.close(os.open(os.fsencode(scans) + b"/latin-\xe9.jpg", os.O_CREAT))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "box 2").write_text("a file where a folder should be")
    assert run("scans", "-o", "out", "--report", "report.txt") == 1
    said = capsys.readouterr()
    reasons = {}
    for line in said.err.splitlines():
        state, name, reason = line.split(": ", 2)
        assert reason and "traceback" not in reason.lower()
        reasons[name.removeprefix("scans/")] = state
    assert reasons == {
        "truncated.jpg": "warning",
        "zero.png": "failed",
        "text\\n.jpg": "failed",
        "folder.jpg": "skipped",
        "nowhere.jpg": "failed",
        "pipe.jpg": "failed",
        "latin-\\udce9.jpg": "failed",
        "box 2/a.jpg": "failed",
    }
    assert "done 12 (1 with a warning), skipped 1, failed 6" in said.out
    assert sorted(results(tmp_path / "out")) == sorted({*everything, "truncated.jpg", "box 2"} - {"box 2/a.jpg"})
    report = (tmp_path / "report.txt").read_text().splitlines()
    assert sorted(report[:8]) == sorted(said.err.splitlines())
    told = {row["target"]: row["error"] for row in lines(tmp_path / "out") if row["state"] == "failed"}
    assert len(told) == 6 and all(told.values())


def test_damage_of_a_jpeg_is_told_or_fails(run, scans, tmp_path, capsys) -> None:
    """The same rule whether a part is missing, zeroed, or only the end marker."""
    whole = (scans / "a.jpg").read_bytes()
    scan = whole.index(b"\xff\xda") + 20
    half = (scan + len(whole)) // 2
    damaged = {"half": whole[:half] + b"\xff\xd9", "zero": whole[:half] + bytes(len(whole) - half - 2) + b"\xff\xd9"}
    damaged["end"] = whole[:-2]
    for name, content in damaged.items():
        (scans / f"{name}.jpg").write_bytes(content)
    assert run("scans", "-o", "out") == 0
    said = capsys.readouterr()
    assert "done 15 (3 with a warning), skipped 0, failed 0" in said.out
    warnings = {row["target"]: row["warning"] for row in lines(tmp_path / "out") if row["warning"]}
    assert sorted(warnings) == ["end.jpg", "half.jpg", "zero.jpg"]
    assert sorted(said.err.splitlines()) == [f"warning: scans/{n}: {w}" for n, w in sorted(warnings.items())]
    assert all(w.startswith("damaged or cut short (") for w in warnings.values())
    assert run("scans", "-o", "out") == 0  # a warning is no reason to do it again
    assert "done 0 (15 more" in capsys.readouterr().out
    assert run("scans", "-o", "out", "--strict") == 1
    failed = [row for row in lines(tmp_path / "out") if row["state"] == "failed"]
    assert {row["target"]: row["error"] for row in failed} == warnings
    assert colorize([str(scans / "half.jpg"), "-o", str(tmp_path / "half.png"), "--strict"]) == 1
    assert not (tmp_path / "half.png").exists()
    capsys.readouterr()
    assert colorize([str(scans / "half.jpg"), "-o", str(tmp_path / "half.png")]) == 0
    assert capsys.readouterr().err == f"warning: {scans}/half.jpg: {warnings['half.jpg']}\n"


def test_a_photo_that_cannot_be_read_keeps_an_older_result(run, scans, tmp_path) -> None:
    run("scans", "-o", "out")
    before = results(tmp_path / "out")
    good = (scans / "a.jpg").read_bytes()
    (scans / "a.jpg").write_bytes(good[:100])
    assert run("scans", "-o", "out") == 1
    assert results(tmp_path / "out") == before
    (scans / "a.jpg").write_bytes(good[:-2] + b"\xff\xd9")
    assert run("scans", "-o", "out") == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "not enough memory"),
        (FileNotFoundError(2, "No such file or directory"), "No such file"),
        (RuntimeError("a bug\nof two lines"), "RuntimeError: a bug\\nof two lines"),
    ],
)
def test_one_photo_never_costs_the_others(error, reason, run, scans, tmp_path, monkeypatch, capsys) -> None:
    whole = Colorizer.predict

    def fails_once(self: Colorizer, pixels: np.ndarray, *rest: Any) -> Any:
        if pixels.shape[1] == 66:  # box 1/b.JPG
            raise error
        return whole(self, pixels, *rest)

    monkeypatch.setattr(Colorizer, "predict", fails_once)
    assert run("scans", "-o", "out", "--strip") == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("failed: scans/box 1/b.JPG: ") and reason in line
    assert "done 11, skipped 0, failed 1" in said.out
    assert len(results(tmp_path / "out")) == 22
    assert [f.name for f in (tmp_path / "out" / folder.WORK).iterdir()] == ["lock"]
    monkeypatch.setattr(Colorizer, "predict", whole)
    assert run("scans", "-o", "out", "--strip") == 0  # a failure is tried again


def test_a_photo_that_changes_meanwhile(run, scans, tmp_path, monkeypatch, capsys) -> None:
    whole = Colorizer.colorize_file

    def meanwhile(self: Colorizer, source: Path, *rest: Any, **more: Any) -> Any:
        facts = whole(self, source, *rest, **more)
        if source.name == "b.png":
            source.write_bytes(b"something else")
        elif source.name == "c.webp":
            source.unlink()
        return facts

    monkeypatch.setattr(Colorizer, "colorize_file", meanwhile)
    assert run("scans", "-o", "out") == 1
    said = capsys.readouterr().err
    assert "failed: scans/b.png: changed while it was read" in said and "failed: scans/c.webp: No such file" in said
    assert {"b.png", "c.webp"}.isdisjoint(results(tmp_path / "out"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(run, scans, tmp_path, capsys) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    assert run("scans", "-o", "out") == 2
    assert "Permission denied" in capsys.readouterr().err


# Photos in colour


def toned(grey: np.ndarray, shadow: tuple[int, int, int], light: tuple[int, int, int]) -> np.ndarray:
    """(H, W) in [0, 1] printed in a tone: (H, W, 3) uint8."""
    return (np.array(shadow) + (np.array(light) - np.array(shadow)) * grey[..., None]).astype(np.uint8)


def test_toned_prints_are_not_in_colour() -> None:
    """Hasler and Süsstrunk's figure cannot tell a strong sepia from a photo in colour; this one does."""
    for photo in map(sample_photo, ("skimage/coffee", "skimage/astronaut", "sklearn/china", "sklearn/flower")):
        assert color.own_colors(photo) > color.OWN_COLORS
        wide = photo.astype(np.uint16) * 257
        assert color.own_colors(wide) == pytest.approx(color.own_colors(photo), rel=0.02)
        grey = rgb2gray(photo)
        assert color.own_colors((grey * 255).astype(np.uint8)) == 0
        sepia = toned(grey, (40, 15, 0), (255, 235, 180))
        assert color.colorfulness(sepia.transpose(2, 0, 1)) > color.NEAR_GREY
        for print_ in (sepia, toned(grey, (0, 25, 60), (240, 250, 255))):
            _, jpeg = cv2.imencode(".jpg", print_, [cv2.IMWRITE_JPEG_QUALITY, 70])
            assert color.own_colors(cv2.imdecode(jpeg, cv2.IMREAD_COLOR)) < color.OWN_COLORS / 2


def test_own_colors_is_what_is_left_when_each_luma_has_its_tone() -> None:
    """One luma, two opponent colours of equal weight: the deviation from their mean, by hand."""
    red, cyan = (130, 90, 100), (70, 115, 123)  # luma of both between 100 and 104: one bin
    photo = np.array([[red, cyan] * 8] * 8, np.uint8)
    rg, yb = (40 + 45) / 2, abs((110 - 100) - (92.5 - 123)) / 2
    assert color.own_colors(photo) == pytest.approx((rg**2 + yb**2) ** 0.5, rel=1e-3)


def test_skip_colored_leaves_photos_in_colour_alone(run, scans, tmp_path, capsys) -> None:
    photo = sample_photo("skimage/astronaut")[:200, :200]
    Image.fromarray(photo).save(scans / "colour.jpg")
    Image.fromarray(toned(rgb2gray(photo), (40, 15, 0), (255, 235, 180))).save(scans / "sepia.jpg")
    assert run("scans", "-o", "out", "--skip-colored") == 0
    said = capsys.readouterr()
    assert "skipped: scans/colour.jpg: in colour already" in said.err and "done 13, skipped 1, failed 0" in said.out
    assert sorted(results(tmp_path / "out")) == sorted(set(names(scans)) - {"colour.jpg"})
    assert run("scans", "-o", "out", "--skip-colored") == 0
    assert capsys.readouterr().out.startswith("done 0 (14 more")
    assert run("scans", "-o", "out") == 0
    assert capsys.readouterr().out.startswith("done 1 (13 more")
    assert colorize(["scans/colour.jpg", "-o", "single.jpg", "--skip-colored"]) == 0
    assert not (tmp_path / "single.jpg").exists()
