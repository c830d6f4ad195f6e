"""Colorizing over HTTP: what comes back, what is refused, what is kept, and what many at once get."""

from __future__ import annotations

import csv
import datetime
import errno
import io
import json
import statistics
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import psutil
import pytest
import requests
import tifffile
from conftest import PATIENCE, wait_for
from flask.testing import FlaskClient
from PIL import Image
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from sqlalchemy import update
from test_hinted import save_lively
from test_pictures import DEEP_XMP

from colorization import eval as evaluation
from colorization.api.colorizing.colorizers import Colorizers, Gathered, Turns, memory
from colorization.api.http.problems import Problem
from colorization.api.settings import load
from colorization.api.storage.database import Result
from colorization.api.storage.results import Results
from colorization.colorize.colorizer import Colorizer, Settings
from colorization.colorize.hints import Hint
from colorization.data.datamodules import sample_photo
from colorization.models import loading
from colorization.models.weights import resolve_weights


def form(content: bytes, name: str = "photo.jpg", **fields: Any) -> dict[str, Any]:
    return {"file": (io.BytesIO(content), name), **fields}


@pytest.fixture
def client(make_app: Callable[..., Any]) -> FlaskClient:
    return make_app().test_client()


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


# What comes back


def test_the_answer_is_what_the_colorizer_makes(client: FlaskClient, photo_bytes: Any, tmp_path: Path) -> None:
    (source := tmp_path / "p.png").write_bytes(photo_bytes(120, "PNG"))
    Colorizer.load().colorize_file(source, tmp_path / "c.png")
    answer = client.post("/api/colorize", data=form(source.read_bytes(), "p.png"))
    assert answer.status_code == 200 and answer.content_type == "application/json"
    assert (answer.json["width"], answer.json["height"], answer.json["pages"]) == (120, 120, 1)
    assert answer.json["seconds"] > 0
    assert [answer.json[k] for k in ("metrics", "truth", "uncertainty")] == [None] * 3
    (used,) = answer.json["weights"]
    assert used["id"] == "shipped-classes" and used["stage"] == "classes"
    got = opened(client.get(answer.json["result"]["url"]).data)
    difference = np.asarray(got, int) - np.asarray(Image.open(tmp_path / "c.png"), int)
    assert got.size == (120, 120) and abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("accept", "type"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json, image/jpeg;q=0.9", "application/json"),
        ("image/jpeg", "image/jpeg"),
        ("image/*, application/json;q=0.5", "image/jpeg"),
    ],
)
def test_the_picture_itself_where_accept_prefers_one(
    client: FlaskClient, photo_bytes: Any, accept: str | None, type: str
) -> None:
    headers = {"Accept": accept} if accept else {}
    answer = client.post("/api/colorize", data=form(photo_bytes()), headers=headers)
    assert answer.status_code == 200 and answer.content_type == type
    if type == "image/jpeg":
        assert opened(answer.data).size == (96, 96)
        assert client.get(answer.headers["Content-Location"]).data == answer.data


def test_options_do_what_they_say(client: FlaskClient, photo_bytes: Any) -> None:
    def colors(**fields: Any) -> np.ndarray:
        answer = client.post("/api/colorize", data=form(photo_bytes(96, "PNG"), "p.png", **fields))
        assert answer.status_code == 200, answer.json
        return np.asarray(opened(client.get(answer.json["result"]["url"]).data).convert("RGB"), int)

    plain, grey = colors(), colors(strength="0")
    assert np.ptp(grey, 2).max() <= 2 < np.ptp(plain, 2).max()
    assert np.ptp(colors(saturation="3"), 2).mean() > np.ptp(plain, 2).mean()
    for fields in ({"flips": "true"}, {"size": "64"}, {"vividness": "1"}):
        assert (colors(**fields) != plain).any()
    # Weights merged with themselves are themselves, by each way to name them.
    plain = colors(weights="shipped-unet")
    for fields in ({"weights": "unet,shipped-unet"}, {"weights": ["unet", "shipped-unet"]}, {"model": "unet"}):
        for how in ("mean", "median"):
            assert (colors(**fields, ensemble=how) == plain).all()


@pytest.mark.parametrize(
    ("format", "media", "pillow"),
    [("same", "image/png", "PNG"), ("jpeg", "image/jpeg", "JPEG"), ("webp", "image/webp", "WEBP")],
)
def test_formats(client: FlaskClient, photo_bytes: Any, format: str, media: str, pillow: str) -> None:
    answer = client.post("/api/colorize", data=form(photo_bytes(64, "PNG"), "p.png", format=format)).json["result"]
    got = client.get(answer["url"])
    assert got.content_type == answer["media_type"] == media and opened(got.data).format == pillow
    assert len(got.data) == answer["bytes"]
    if format == "jpeg":
        small = client.post("/api/colorize", data=form(photo_bytes(64, "PNG"), "p.png", format=format, quality="20"))
        assert small.json["result"]["bytes"] < answer["bytes"]


def test_uncertainty_is_a_heat_map_of_the_photos_size(client: FlaskClient, photo_bytes: Any) -> None:
    answer = client.post("/api/colorize", data=form(photo_bytes(), uncertainty="true")).json["uncertainty"]
    got = client.get(answer["url"])
    assert got.content_type == "image/png" and opened(got.data).size == (96, 96)


def test_the_metrics_of_a_colour_photo_are_those_of_the_evaluation(
    client: FlaskClient, run_main: Callable[..., int], tmp_path: Path
) -> None:
    (folder := tmp_path / "photos").mkdir()
    Image.fromarray(sample_photo("skimage/coffee")).save(folder / "coffee.png")
    command = ("weights=shipped-classes", f"datamodule.test_dir={folder}", "eval_dir=out", "accelerator=cpu")
    assert run_main(evaluation.main, *command, "datamodule.num_workers=0") == 0
    with (tmp_path / "out" / "per_image.csv").open(newline="") as file:
        (expected,) = [row for row in csv.DictReader(file) if row["model"].startswith("classes")]
    answer = client.post("/api/colorize", data=form((folder / "coffee.png").read_bytes(), "c.png", mode="color")).json
    for metric, digits in {"psnr": 2e-3, "ssim": 1e-4, "delta_e2000": 2e-3, "colorfulness": 1e-2}.items():
        assert answer["metrics"][metric] == pytest.approx(float(expected[metric]), abs=digits)
    assert answer["metrics"]["true_colorfulness"] == pytest.approx(float(expected["true_colorfulness"]), abs=1e-4)
    assert answer["metrics"]["lpips"] is None and "AlexNet" in answer["metrics"]["lpips_missing"]
    assert client.get(answer["truth"]["url"]).data == (folder / "coffee.png").read_bytes()


# Colours that a person gives


NAVY = {"x": 0.4, "y": 0.85, "colour": "navy"}  # of a coat
TAN = {"x": 0.8, "y": 0.1, "colour": "tan", "radius": 0.05}


@pytest.fixture
def hinted(tmp_path: Path, compose_train: Any) -> str:
    """The id of weights that take hints and a palette; whoever uses it makes its app in this folder."""
    (folder := tmp_path / "outputs").mkdir(exist_ok=True)
    save_lively(folder / "hinted.safetensors", compose_train)
    return "file-hinted"


def pixels_of(client: FlaskClient, answer: dict[str, Any]) -> np.ndarray:
    return np.asarray(opened(client.get(answer["result"]["url"]).data).convert("RGB"))


def test_a_hint_stands_at_its_place_and_is_told(client: FlaskClient, photo_bytes: Any) -> None:
    photo = photo_bytes(256, "PNG")
    plain = client.post("/api/colorize", data=form(photo, "p.png")).json
    assert (plain["hints"], plain["palette"]) == ([], [])
    told = [{**NAVY, "colour": "#000080", "radius": 0.02}, {**TAN, "colour": "#d2b48c"}]
    for fields in ({}, {"weights": "unet,shipped-classes", "uncertainty": "true", "flips": "true"}):
        answer = client.post("/api/colorize", data=form(photo, "p.png", hints=json.dumps([NAVY, TAN]), **fields)).json
        assert answer["hints"] == told and answer["palette"] == []
        pixels = pixels_of(client, answer)
        for hint in told:
            lab = rgb2lab(pixels[int(hint["y"] * 256), int(hint["x"] * 256)])
            colour = np.array([int(hint["colour"][i : i + 2], 16) for i in (1, 3, 5)], np.uint8)
            # As far as a screen has it at the photo's lightness.
            wanted = rgb2lab(lab2rgb(np.array([lab[0], *rgb2lab(colour / 255.0)[1:]])))
            assert deltaE_ciede2000(lab, wanted) <= 3, hint
    # The file says it, and what is kept of the result, too.
    software = opened(client.get(answer["result"]["url"]).data).getexif()[305]
    assert "a person gave colours at 2 places" in software and "#000080 at 0.400 0.850" in software
    assert "person" not in opened(client.get(plain["result"]["url"]).data).getexif()[305]
    kept = client.get(f"/api/colorize/results/{answer['result']['id']}").json
    assert kept["hints"] == told and kept["palette"] == [] and kept["name"] == "p-colorized.png"
    # Sent as it was told, it is the same picture.
    again = client.post("/api/colorize", data=form(photo, "p.png", hints=json.dumps(kept["hints"]), **fields)).json
    assert (pixels_of(client, again) == pixels).all()
    listed = client.get("/api/colorize/results").json["results"]
    assert [len(r["hints"]) for r in listed] == [2, 2, 2, 0]
    assert client.get(f"/api/colorize/results/{'0' * 32}").status_code == 404
    assert client.delete(answer["result"]["url"]).status_code == 204
    assert client.get(f"/api/colorize/results/{answer['result']['id']}").status_code == 404


def test_a_palette_is_for_weights_that_take_it_and_for_batches(make_app: Any, hinted: str, photo_bytes: Any) -> None:
    client = make_app().test_client()
    photo, fields = photo_bytes(64, "PNG"), {"weights": hinted, "palette": '["Navy", "rgb(210, 180, 140)"]'}
    plain, answer = (
        client.post("/api/colorize", data=form(photo, "p.png", **f)).json for f in ({"weights": hinted}, fields)
    )
    assert answer["palette"] == ["#000080", "#d2b48c"] and answer["hints"] == []
    assert (pixels_of(client, answer) != pixels_of(client, plain)).any()
    software = opened(client.get(answer["result"]["url"]).data).getexif()[305]
    assert "a person gave the palette #000080, #d2b48c" in software
    files = [(io.BytesIO(photo), f"{i}.png") for i in range(2)]
    job = client.post("/api/colorize/batch", data={"files": files, **fields}).json
    assert '"finished"' in client.get(job["stream"]).text
    for item in client.get(job["url"]).json["items"]:
        assert item["result"]["palette"] == answer["palette"]
        assert (pixels_of(client, item["result"]) == pixels_of(client, answer)).all()
        kept = client.get(f"/api/colorize/results/{item['result']['result']['id']}").json
        assert kept["palette"] == answer["palette"] and kept["job"] == job["id"]
    refused = client.post("/api/colorize", data=form(photo, "p.png", palette='["navy"]'))
    assert refused.status_code == 422 and refused.json["detail"] == "palette: weights of a classes have no such setting"
    files = [(io.BytesIO(photo), "p.png")]
    refused = client.post("/api/colorize/batch", data={"files": files, "hints": "[]"})
    assert refused.status_code == 422 and refused.json["detail"] == "hints: are for a single photo, not for a batch"


def test_colours_that_cannot_work_are_one_sentence(client: FlaskClient, photo_bytes: Any) -> None:
    array = "should be a JSON array, e.g. ["
    for fields, key, words in (
        ({"hints": ""}, "hints", array),
        ({"hints": "navy"}, "hints", array),
        ({"hints": json.dumps(NAVY)}, "hints", array),
        ({"hints": "[" * 40_000}, "hints", array),
        ({"hints": "[1" + "0" * 5000 + "]"}, "hints", array),
        ({"hints": "[" + " " * 50_000 + "]"}, "hints", "has 50002 characters; at most 50000 are taken"),
        ({"hints": json.dumps([NAVY] * 257)}, "hints", "has 257 values; at most 256 are taken"),
        ({"hints": "[3]"}, "hints.0", 'should be an object like {"x": '),
        ({"hints": json.dumps([NAVY, {**NAVY, "size": 3}])}, "hints.1", "should be an object like"),
        ({"hints": json.dumps([{"x": 0.4, "y": 0.85}])}, "hints.0", "should be an object like"),
        ({"hints": json.dumps([NAVY, {**NAVY, "x": 1.5}])}, "hints.1", "x=1.5: should be a number from 0 to 1"),
        ({"hints": json.dumps([{**NAVY, "y": "0.4"}])}, "hints.0", "y=0.4: should be a number from 0 to 1"),
        ({"hints": json.dumps([{**NAVY, "x": True}])}, "hints.0", "x=True: should be a number"),
        ({"hints": json.dumps([{**NAVY, "x": float("nan")}])}, "hints.0", "x=nan: should be a number"),
        ({"hints": json.dumps([{**NAVY, "radius": 0.6}])}, "hints.0", "radius=0.6: should be a number from 0 to 0.5"),
        ({"hints": json.dumps([{**NAVY, "colour": "navyblu"}])}, "hints.0", "colour 'navyblu': should be like #3b5a8c"),
        ({"hints": json.dumps([{**NAVY, "colour": None}])}, "hints.0", "colour None: should be like #3b5a8c"),
        ({"hints": json.dumps([{**NAVY, "colour": "rgb(300, 0, 0)"}])}, "hints.0", "should be like #3b5a8c"),
        ({"hints": json.dumps([{**NAVY, "colour": "\ud800"}])}, "hints.0", "should be like #3b5a8c"),
        ({"palette": "navy, tan"}, "palette", array),
        ({"palette": '["navy", "\\u0000"]'}, "palette.1", "should be like #3b5a8c"),
        ({"palette": json.dumps(["navy"] * 17)}, "palette", "has 17 values; at most 16 are taken"),
    ):
        answer = client.post("/api/colorize", data=form(photo_bytes(), **fields))
        assert answer.status_code == 422 and list(answer.json["errors"]) == [key], (fields, answer.json)
        assert answer.content_type == "application/problem+json"
        assert answer.json["detail"].startswith(f"{key}: ") and words in answer.json["detail"], answer.json
    # None are none, and a number that is an integer in JSON is one, too.
    for hints in ("[]", '[{"x": 0, "y": 1, "colour": "#abc", "radius": 0}]'):
        assert client.post("/api/colorize", data=form(photo_bytes(), hints=hints, palette="[]")).status_code == 200


def test_metrics_are_measured_with_the_hints_at_their_places(client: FlaskClient, photo_bytes: Any) -> None:
    wide = np.zeros((64, 192, 3), np.uint8)
    wide[:, 64:128] = np.asarray(opened(photo_bytes(64, "PNG")).convert("RGB"))
    content = encoded(Image.fromarray(wide), "PNG")

    def measured(*hints: dict[str, Any]) -> dict[str, Any]:
        fields = {"mode": "color", "hints": json.dumps(hints)}
        return client.post("/api/colorize", data=form(content, "p.png", **fields)).json["metrics"]

    plain = measured()
    outside, middle = ({"x": x, "y": 0.5, "colour": "lime", "radius": 0.1} for x in (0.1, 0.5))
    assert measured(outside) == plain  # of the square in the middle, which this place is not in
    assert measured(middle)["delta_e2000"] > plain["delta_e2000"] + 3


def test_photos_with_different_hints_at_once_do_not_mix(make_app: Any, hinted: str, photo_bytes: Any) -> None:
    app = make_app(waiting=100)
    photo = photo_bytes(64, "PNG")
    asked = [{}, {"hints": json.dumps([NAVY])}, {"hints": json.dumps([TAN])}, {"palette": '["navy"]'}] * 3

    def colorized(fields: dict[str, str]) -> np.ndarray:
        client = app.test_client()
        return pixels_of(client, client.post("/api/colorize", data=form(photo, "p.png", weights=hinted, **fields)).json)

    alone = [colorized(fields) for fields in asked[:4]]
    assert all((a != b).any() for i, a in enumerate(alone) for b in alone[:i])
    with ThreadPoolExecutor(len(asked)) as pool:
        for number, pixels in enumerate(pool.map(colorized, asked)):
            assert np.abs(pixels.astype(int) - alone[number % 4]).max() <= 1, asked[number]


def counted(backend: Any, calls: list[int]) -> Any:
    """The backend, slowly; ``calls`` gets the size of each batch."""

    class Counted:
        name, description, digest = backend.name, backend.description, backend.digest

        def __call__(self, L: np.ndarray, **given: Any) -> np.ndarray:
            calls.append(len(L))
            time.sleep(0.05)  # the others come meanwhile
            return backend(L, **given)

    return Counted()


def test_gathered_calls_with_different_hints_answer_as_single_ones(tmp_path: Path, compose_train: Any) -> None:
    save_lively(tmp_path / "hinted.safetensors", compose_train)
    backend = loading.load(tmp_path / "hinted.safetensors", "cpu", "torch")
    calls: list[int] = []
    gathered = Colorizer([Gathered(counted(backend, calls))])
    L = np.random.default_rng(0).random((1, 1, 48, 64), np.float32)
    settings = [
        Settings(), Settings(hints=[Hint(**NAVY)]), Settings(hints=[Hint(**TAN)]), Settings(palette=["navy"]),
        Settings(hints=[Hint(**NAVY)], palette=["tan"], flips=True),
    ] * 3  # fmt: skip
    with ThreadPoolExecutor(len(settings)) as pool:
        answers = list(pool.map(lambda one: gathered.answer(L, one).ab, settings))
    alone = [Colorizer([backend]).answer(L, one).ab for one in settings]
    for one, answer in zip(alone, answers, strict=True):
        np.testing.assert_allclose(answer, one, atol=1e-4)
    assert len(calls) < sum(calls) == 18 and np.abs(alone[0] - alone[1]).max() > 0.01


# What is refused


def all_modes() -> dict[str, tuple[bytes, str]]:
    photo = Image.fromarray(sample_photo("skimage/astronaut")).resize((48, 40))
    deep = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    alpha = photo.convert("RGBA")
    alpha.putalpha(photo.convert("L"))
    return {
        "1": (encoded(photo.convert("1"), "PNG"), "image/png"),
        "L": (encoded(photo.convert("L"), "JPEG"), "image/jpeg"),
        "LA": (encoded(alpha.convert("LA"), "PNG"), "image/png"),
        "P": (encoded(photo.convert("P"), "GIF"), "image/png"),
        "P, transparent": (encoded(photo.convert("P"), "PNG", transparency=3), "image/png"),
        "RGB": (encoded(photo, "BMP"), "image/png"),
        "RGBA": (encoded(alpha, "WEBP", lossless=True), "image/webp"),
        "RGBX": (encoded(photo.convert("RGBX"), "TIFF"), "image/tiff"),
        "CMYK": (encoded(photo.convert("CMYK"), "JPEG"), "image/jpeg"),
        "YCbCr": (encoded(photo.convert("YCbCr"), "TIFF"), "image/tiff"),
        "LAB": (encoded(photo.convert("LAB"), "TIFF"), "image/tiff"),
        "I;16": (encoded(Image.fromarray(deep), "PNG"), "image/png"),
        "I;16B": (encoded(Image.fromarray(deep.astype(">u2")), "TIFF"), "image/tiff"),
        "I": (encoded(Image.fromarray(deep.astype(np.int32)), "TIFF"), "image/tiff"),
        "F": (encoded(Image.fromarray(deep.astype(np.float32) / 65535), "TIFF"), "image/tiff"),
    }


def test_every_mode_of_pillow_is_colorized(client: FlaskClient) -> None:
    for mode, (content, media) in all_modes().items():
        answer = client.post("/api/colorize", data=form(content, f"{mode}.bin"))
        assert answer.status_code == 200, (mode, answer.json)
        result = answer.json["result"]
        got = client.get(result["url"])
        assert got.content_type == result["media_type"] == media, mode
        assert opened(got.data).size == (48, 40)


def png_of_nothing(side: int) -> bytes:
    """A PNG whose header claims ``side`` x ``side``, with hardly any data."""
    content = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


def tiff_pages(pages: int, side: int) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(pages):
            writer.write(np.zeros((side, side), np.uint8), compression="zlib", metadata=None)
    return buffer.getvalue()


def attacks(photo: bytes, png: bytes) -> dict[str, tuple[bytes, int]]:
    return {
        "empty.jpg": (b"", 422),
        "wide.png": (encoded(Image.new("1", (1_000_001, 1)), "PNG"), 422),
        "cut.png": (png[: len(png) // 2], 422),
        "bomb.png": (png_of_nothing(50_000), 413),
        "over-the-limit.png": (png_of_nothing(1500), 413),
        "pages.tif": (tiff_pages(20, 350), 413),
        "heavy.png": (png + bytes(1_000_001), 413),
        "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 415),
        "text.jpg": (b"a text that is no picture\n" * 50, 415),
        "page.html": (b"<!doctype html><script>alert(1)</script>", 415),
        "archive.png": (b"PK\x03\x04" + bytes(100), 415),
        "postscript.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
    }


def test_bad_files_get_one_sentence_and_leave_nothing(make_app: Any, photo_bytes: Any, tmp_path: Path) -> None:
    client = make_app(upload_mb=1, pixels_mp=2).test_client()
    for name, (content, status) in attacks(photo_bytes(), photo_bytes(96, "PNG")).items():
        answer = client.post("/api/colorize", data=form(content, name))
        assert answer.status_code == status, (name, answer.json)
        assert answer.content_type == "application/problem+json" and answer.json["status"] == status
        assert name in answer.json["detail"] and "\n" not in answer.json["detail"]
        assert str(tmp_path) not in answer.text and "/server/" not in answer.text
    left = [p for p in (tmp_path / "outputs" / "server").rglob("*") if p.parent.name in ("uploads", "results")]
    assert left == []
    assert client.post("/api/colorize", data=form(photo_bytes())).status_code == 200


def test_what_of_a_photo_is_damaged_or_left_out_is_told(client: FlaskClient, photo_bytes: Any) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    photo = Image.fromarray(sample_photo("skimage/astronaut")).resize((48, 40))
    for content, words in (
        (photo_bytes(), None),
        (photo_bytes()[:-2], "damaged or cut short (Premature end of JPEG file)"),
        (encoded(photo, "JPEG", xmp=DEEP_XMP), "XMP is damaged and left out"),
        (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), "first of 2 frames"),
    ):
        answer = client.post("/api/colorize", data=form(content, "a.jpg"))
        assert answer.status_code == 200, answer.json
        told = answer.json["warning"]
        assert told is None if words is None else words in told


def test_polyglots_are_served_as_what_they_are(client: FlaskClient, photo_bytes: Any) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.html", "<script>alert(1)</script>")
    script = b"<script>alert(1)</script>"
    for content, media in (
        (photo_bytes() + archive.getvalue(), "image/jpeg"),
        (photo_bytes(64, "GIF") + script, "image/gif"),
    ):
        answer = client.post("/api/colorize", data=form(content, "evil.html", mode="color")).json
        assert script not in client.get(answer["result"]["url"]).data
        truth = client.get(answer["truth"]["url"])  # the photo as it was sent
        assert truth.content_type == media and truth.headers["X-Content-Type-Options"] == "nosniff"
        assert answer["truth"]["name"].endswith((".jpg", ".gif"))


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd.jpg",
        "/etc/cron.d/evil.jpg",
        "C:\\windows\\evil.jpg",
        "nul\0byte.jpg",
        "line\r\nSet-Cookie: a=b.jpg",
        'quote";filename="x.exe.jpg',
        "📷 Ünïcode\u202egpj.exe",
        "日本.jpg",
        "Zürich – 1950.jpg",
        "..",
        "a" * 400 + ".jpg",
    ],
)
def test_names_reach_no_file_and_no_header(make_app: Any, photo_bytes: Any, tmp_path: Path, name: str) -> None:
    app = make_app()
    storage = (io.BytesIO(photo_bytes()), "replaced")
    from werkzeug.datastructures import FileStorage

    services = app.extensions["colorization"]
    options = {"ensemble": "mean", "size": None, "saturation": 1.0, "strength": 1.0, "flips": False}
    options |= {"format": "same", "quality": 95, "uncertainty": False, "mode": "grey", "vividness": None}
    answer = services.colorize.upload(FileStorage(storage[0], name), options)["result"]
    shown = answer["name"]
    assert shown.isprintable() and not set(shown) & set('/\\<>:"|?*\0\r\n\u202e') and len(shown) < 130
    assert shown.endswith("-colorized.jpg") and not shown.startswith(".")
    for query, kind in (("", "inline"), ("?download=true", "attachment")):
        got = app.test_client().get(answer["url"] + query)
        assert got.status_code == 200 and "Set-Cookie" not in got.headers
        sent = got.headers["Content-Disposition"]
        assert sent.isascii() and sent.startswith(f"{kind}; filename=")
        # RFC 6266: the name as it is, in a parameter of its own where ASCII does not have it.
        _, extended, encoded = sent.partition("filename*=UTF-8''")
        assert bool(extended) == (not shown.isascii()) and (unquote(encoded) == shown or not extended)
    (stored,) = (tmp_path / "outputs" / "server" / "results").iterdir()
    assert stored.name == answer["id"] + ".jpg"


def test_wrong_fields_are_named(client: FlaskClient, photo_bytes: Any) -> None:
    for fields in (
        {"size": "31"},
        {"size": "many"},
        {"saturation": "11"},
        {"saturation": "nan"},
        {"strength": "-1"},
        {"flips": "perhaps"},
        {"format": "svg"},
        {"quality": "0"},
        {"ensemble": "best"},
        {"mode": "blue"},
        {"weights": "../../etc/passwd"},
        {"weights": "/etc/passwd"},
        {"weights": "no-such-run"},
        {"model": "no-such-stage"},
        {"surprise": "1"},
    ):
        answer = client.post("/api/colorize", data=form(photo_bytes(), **fields))
        assert answer.status_code == 422 and next(iter(fields)) in answer.json["detail"], (fields, answer.json)
        assert next(iter(answer.json["errors"])).startswith(next(iter(fields)))
    missing = client.post("/api/colorize", data={"size": "64"}, content_type="multipart/form-data")
    assert missing.status_code == 422 and "file" in missing.json["errors"]
    assert client.post("/api/colorize", json={"file": "x"}).status_code == 415
    assert client.post("/api/colorize", data=b"x", content_type="image/jpeg").status_code == 415


def test_weights_that_cannot_be_used_and_a_full_disk_say_so(
    make_app: Any, photo_bytes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_app().test_client()
    (run := tmp_path / "outputs" / "runs" / "unet-broken").mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"schema": 1, "state": "finished", "model": "unet"}))
    (run / "weights.safetensors").write_bytes(b"no weights")
    answer = client.post("/api/colorize", data=form(photo_bytes(), weights="unet-broken"))
    assert answer.status_code == 422 and "unet-broken" in answer.json["errors"]["weights"][0]
    assert str(tmp_path) not in answer.text

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(Results, "add", full)
    answer = client.post("/api/colorize", data=form(photo_bytes(), model="shipped-unet"))
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "60" and str(tmp_path) not in answer.text
    assert not list((tmp_path / "outputs" / "server" / "uploads").iterdir())


# What is kept


def test_results_are_served_whole_by_ranges_and_once(client: FlaskClient, photo_bytes: Any) -> None:
    url = client.post("/api/colorize", data=form(photo_bytes())).json["result"]["url"]
    whole = client.get(url)
    assert (
        whole.headers["Content-Disposition"].startswith("inline")
        and whole.headers["X-Content-Type-Options"] == "nosniff"
    )
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.data == whole.data[10:20]
    assert client.get(url, headers={"Range": "bytes=9999999-"}).status_code == 416
    assert client.get(url, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304
    # As HTML forms, Python, JavaScript and people write what is true and what is not.
    for kind, values in {"attachment": ("true", "True", "1", "on"), "inline": ("false", "False", "0", "off")}.items():
        for value in values:
            assert client.get(f"{url}?download={value}").headers["Content-Disposition"].startswith(kind), value
    assert client.get(url + "?download=perhaps").status_code == 422
    for id in ("0" * 32, "..", "%2e%2e%2fcolorization.db", "a/b"):
        assert client.get(f"/api/colorize/result/{id}").status_code == 404


def test_results_expire_by_age_and_by_size_the_oldest_first(make_app: Any, photo_bytes: Any, tmp_path: Path) -> None:
    app = make_app(results_days=1, results_mb=1)
    client, services = app.test_client(), app.extensions["colorization"]
    folder = tmp_path / "outputs" / "server" / "results"

    def add(kilobytes: int) -> str:
        return services.results.add(bytes(1000 * kilobytes), "a.png", "image/png").id

    def age(id: str, **by: float) -> None:
        then = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**by)
        with services.database() as session:
            session.execute(update(Result).where(Result.id == id).values(created=then.isoformat()))

    def there() -> set[str]:
        return {p.stem for p in folder.iterdir()}

    old, older = add(10), add(10)
    age(old, hours=23)
    age(older, hours=25)
    assert client.get(f"/api/colorize/result/{older}").status_code == 404  # at its time, whether it was swept or not
    services.results.sweep()
    assert there() == {old} and client.get(f"/api/colorize/result/{old}").status_code == 200
    big = [add(400) for _ in range(3)]
    services.results.sweep()
    assert there() == {*big}  # 1.2 MB: over the limit, but those of the last minute stay
    for minutes, id in zip((30, 20, 10), big, strict=True):
        age(id, minutes=minutes)
    services.results.sweep()
    assert there() == {*big[1:]}
    answer = client.post("/api/colorize", data=form(photo_bytes())).json["result"]
    left = datetime.datetime.fromisoformat(answer["expires"]) - datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(hours=23) < left <= datetime.timedelta(days=1)


def test_a_start_removes_what_a_killed_server_left(make_app: Any, tmp_path: Path) -> None:
    first = make_app().extensions["colorization"]
    lost, kept = (first.results.add(b"x", "a.png", "image/png") for _ in range(2))
    first.close()
    state = tmp_path / "outputs" / "server"
    (state / "results" / lost.file).unlink()
    for orphan in ("results/orphan.png", "uploads/1/photo.jpg", "jobs/nobodys/photo.jpg"):
        (state / orphan).parent.mkdir(parents=True, exist_ok=True)
        (state / orphan).write_bytes(b"x")
    second = make_app().extensions["colorization"]
    assert [p.name for p in (state / "results").iterdir()] == [kept.file]
    assert second.results.get(lost.id) is None and second.results.get(kept.id) is not None
    assert not (state / "uploads").exists() and not list((state / "jobs").iterdir())


# Models and turns


def test_weights_are_loaded_once_however_many_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    real = loading.load

    def slow(path: Path, *args: Any, **kwargs: Any) -> Any:
        loaded.append(kwargs["threads"])
        time.sleep(0.2)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(loading, "load", slow)
    colorizers = Colorizers(load(output_dir=tmp_path, waiting=100))
    colorizers.turns.slots = 8
    gate = threading.Barrier(8)

    def ask(_: int) -> str:
        gate.wait()
        return colorizers.run([resolve_weights("shipped-unet")], lambda colorizer: colorizer.backends[0].digest)

    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(ask, range(8)))
    assert len(set(digests)) == 1 and len(loaded) == len(set(loaded))  # once on one core and once, alone, on all


def test_models_are_kept_by_a_budget_and_the_least_used_go(tmp_path: Path) -> None:
    files = []
    for i in range(3):
        files.append(tmp_path / f"{i}.onnx")
        files[-1].write_bytes(resolve_weights("shipped-unet").with_suffix(".onnx").read_bytes())
    megabytes = memory(files[0].stat().st_size) / 1e6
    colorizers = Colorizers(load(output_dir=tmp_path, models_mb=int(megabytes * 2.5)))
    kept: dict[Path, Any] = {}

    def use(file: Path) -> bool:
        """Whether it was loaded already."""
        before, kept[file] = kept.get(file), colorizers.run([file], lambda c: c.backends[0])
        return before is kept[file]

    assert [use(files[i]) for i in (0, 1, 0, 2)] == [False, False, True, False]
    assert use(files[0]) and not use(files[1]) and colorizers.loaded_bytes <= megabytes * 2.5e6


def test_turns_are_bounded_and_in_order() -> None:
    turns, release, order = Turns(1, 2), threading.Event(), []

    def work(name: int, patient: bool) -> None:
        with turns.turn(patient):
            order.append(name)
            release.wait(30)

    threads: list[threading.Thread] = []
    for name, patient in ((0, False), (1, False), (2, True), (3, False)):
        threads.append(threading.Thread(target=work, args=(name, patient)))
        threads[-1].start()
        wait_for(lambda name=name: turns.waiting >= name)
    with pytest.raises(Problem) as refused, turns.turn(False):
        pass
    assert refused.value.status_code == 503 and int(refused.value.headers["Retry-After"]) >= 1
    release.set()
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2, 3] and turns.busy == 0


def test_gathered_calls_answer_as_single_ones() -> None:
    backend = loading.load(resolve_weights("shipped-classes"), "cpu", "torch")
    calls: list[int] = []
    gathered = Gathered(counted(backend, calls), most=4)
    rng = np.random.default_rng(0)
    inputs = [rng.random((1, 1, *size), np.float32) for size in [(48, 64)] * 10 + [(64, 48)] * 6]
    vividness = [None] * 5 + [1.0] * 5 + [None] * 6
    with ThreadPoolExecutor(len(inputs)) as pool:
        answers = list(pool.map(lambda L, v: gathered(L, vividness=v), inputs, vividness))
    for L, v, answer in zip(inputs, vividness, answers, strict=True):
        np.testing.assert_allclose(answer, backend(L, vividness=v), atol=1e-4)
    assert sum(calls) == len(inputs) > len(calls) and max(calls) <= 4


def test_a_failing_network_fails_all_that_were_gathered_and_no_more() -> None:
    class Broken:
        name, description, digest = "torch", {"network": {"_target_": "a.Network"}}, ""
        broken = True

        def __call__(self, L: np.ndarray, **given: Any) -> np.ndarray:
            if self.broken:
                raise RuntimeError("out of memory")
            return np.zeros((1, len(L), 2, *L.shape[2:]), np.float32)

    backend = Broken()
    gathered = Gathered(backend)
    L = np.zeros((1, 1, 32, 32), np.float32)
    with pytest.raises(RuntimeError):
        gathered(L)
    backend.broken = False
    assert gathered(L).shape == (1, 1, 2, 32, 32)


# Overload


@pytest.fixture
def flood(photo_bytes: Any) -> Iterator[Callable[..., list[requests.Response]]]:
    """``flood(url, clients, seconds, enough)``: so many clients colorize as fast as they can for that time, and until
    ``enough()``; all answers."""

    def run(
        url: str, clients: int, seconds: float, enough: Callable[[], Any] = lambda: True
    ) -> list[requests.Response]:
        photo, until = photo_bytes(), time.monotonic() + seconds

        def client(_: int) -> list[requests.Response]:
            answers = []
            with requests.Session() as session:
                while time.monotonic() < until or not enough():
                    answers.append(session.post(f"{url}/api/colorize", files={"file": ("p.jpg", photo)}))
                    if answers[-1].status_code != 200:
                        time.sleep(0.05)
            return answers

        with ThreadPoolExecutor(clients) as pool:
            return [answer for answers in pool.map(client, range(clients)) for answer in answers]

    yield run


def test_fifty_clients_at_once(server: Any, flood: Any, photo_bytes: Any) -> None:
    """Nothing but 200, 429 and 503 with Retry-After; health is not behind them; a stream flows; memory bounded."""
    server.start()
    process = psutil.Process(server.process.pid)
    memory: list[int] = []
    health: list[tuple[int, float]] = []
    items: list[bytes] = []  # of a batch's stream
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            start = time.monotonic()
            status = requests.get(f"{server.url}/api/health").status_code
            health.append((status, time.monotonic() - start))
            memory.append(sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]))

    def listen(url: str) -> None:
        with requests.get(url, stream=True) as stream:
            for line in stream.iter_lines():
                if line == b"event: item":
                    items.append(line)
                if stop.is_set():
                    return

    flood(server.url, 4, 1)  # what is loaded once is loaded
    files = [("files", (f"{i}.jpg", photo_bytes(64))) for i in range(200)]
    job = requests.post(f"{server.url}/api/colorize/batch", files=files, timeout=PATIENCE).json()
    threads = [threading.Thread(target=watch), threading.Thread(target=listen, args=(server.url + job["stream"],))]
    for thread in threads:
        thread.start()
    before = len(items)
    answers = flood(server.url, 50, 5, lambda: len(health) >= 5 and len(items) >= min(before + 2, 200))
    requests.delete(server.url + job["url"])
    stop.set()
    for thread in threads:
        thread.join()
    statuses = {a.status_code for a in answers}
    assert 200 in statuses and statuses <= {200, 429, 503}
    assert all(int(a.headers["Retry-After"]) >= 1 for a in answers if a.status_code != 200)
    waited = statistics.median(a.elapsed.total_seconds() for a in answers if a.status_code == 200)
    assert {status for status, _ in health} == {200} and statistics.median(s for _, s in health) < waited
    assert max(memory) - memory[0] < 300e6


# Previews, lists


def test_a_preview_is_what_a_browser_shows(client: FlaskClient, photo_bytes: Any) -> None:
    pixels = np.asarray(opened(photo_bytes(120, "PNG")).convert("RGB"))
    deep = io.BytesIO()
    tifffile.imwrite(deep, pixels.astype(np.uint16) * 257, photometric="rgb")
    answer = client.post("/api/colorize/preview", data=form(deep.getvalue(), "scan.tif"))
    assert answer.status_code == 200 and answer.content_type == "image/jpeg"
    shown = np.asarray(opened(answer.data), int)
    assert shown.shape == (120, 120, 3) and abs(shown - pixels).mean() < 4
    result = client.post("/api/colorize", data=form(deep.getvalue(), "scan.tif")).json["result"]
    small = client.get(f"{result['url']}?side=60")
    assert small.content_type == "image/jpeg" and opened(small.data).size == (60, 60)
    again = client.get(f"{result['url']}?side=60", headers={"If-None-Match": small.headers["ETag"]})
    assert again.status_code == 304 and not again.data
    assert client.post("/api/colorize/preview", data=form(b"no picture", "a.jpg")).status_code == 415
    assert client.get(f"/api/colorize/result/{'0' * 32}?side=60").status_code == 404


def test_the_list_has_colorized_photos_alone_and_one_can_be_deleted(client: FlaskClient, photo_bytes: Any) -> None:
    first, second = (
        client.post("/api/colorize", data=form(photo_bytes(), name, uncertainty="true", mode="color")).json
        for name in ("a.jpg", "b.jpg")
    )
    answer = client.get("/api/colorize/results?per_page=1").json
    assert answer["total"] == 2 and [r["id"] for r in answer["results"]] == [second["result"]["id"]]
    assert client.delete(second["result"]["url"]).status_code == 204
    assert client.delete(second["result"]["url"]).status_code == client.get(second["result"]["url"]).status_code == 404
    assert [r["id"] for r in client.get("/api/colorize/results").json["results"]] == [first["result"]["id"]]


def test_the_sample_is_a_photo(client: FlaskClient) -> None:
    answer = client.get("/api/sample")
    assert answer.content_type == "image/jpeg" and opened(answer.data).size == (640, 427)
