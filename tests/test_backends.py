"""Exported models and what runs them, against the networks themselves."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import SMALL_ENCODERS, SMALL_STAGES
from safetensors import safe_open
from torch import nn

from colorization import Colorizer, export
from colorization.colorize.colorizer import find_weights
from colorization.core import hydra_main
from colorization.core.errors import InputError
from colorization.models import backends, checkpoint, descriptions, loading, onnx_export
from colorization.networks import building
from colorization.networks.unet import UNet

ROOT = Path(__file__).parent.parent
FUSION = [*SMALL_STAGES["fusion"], "model.network.features=null"]  # the ResNet-18
ALL = {**SMALL_STAGES, "fusion": FUSION, **SMALL_ENCODERS}
SHAPES = [(1, 32, 32), (2, 47, 33), (1, 100, 131), (3, 64, 64)]


def lively(network: nn.Module) -> nn.Module:
    """Weights and running averages with which every layer matters, as after training."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def save(path: Path, network: nn.Module, spec: dict, stage: str = "unet", dtype: torch.dtype | None = None) -> Path:
    checkpoint.save_weights(path, network, descriptions.describe(stage, spec, {}, {"image_size": 64}), dtype)
    return path


SPEC = {"_target_": "colorization.networks.unet.UNet", "width": 4, "depth": 4, "dropout": 0, "upsampling": "nearest"}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save(tmp_path / "w.safetensors", lively(UNet(4, 4, 0, "nearest")), SPEC)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLORIZATION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def lightness(shape: tuple[int, int, int]) -> np.ndarray:
    batch, height, width = shape
    return np.random.default_rng(sum(shape)).random((batch, 1, height, width), np.float32)


def eager(path: Path, L: np.ndarray) -> np.ndarray:
    network, _ = checkpoint.load_weights(path)
    with torch.inference_mode():
        return network(torch.from_numpy(L)).numpy()


def process(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # importing it fails, as where it is not installed
from pathlib import Path
import numpy as np
from colorization.models import loading
backend = loading.load(Path(sys.argv[1]))
np.save(sys.argv[2], backend(np.load(sys.argv[3])))
"""


@pytest.mark.parametrize("stage", ALL)
def test_every_stage_answers_as_in_torch_at_any_size_and_batch(stage, compose_train, tmp_path) -> None:
    config = compose_train(*ALL[stage]).model
    network = lively(hydra_main.instantiate(config.network))
    spec = dict(config.network)
    source = save(tmp_path / "w.safetensors", network, spec, stage)
    for name in ("model.onnx", "model.xml"):
        onnx_export.export(source, tmp_path / name)
    sides = {
        "onnx": backends.OnnxBackend(tmp_path / "model.onnx"),
        "openvino": backends.OpenVINOBackend(tmp_path / "model.onnx"),
        "openvino's format": backends.OpenVINOBackend(tmp_path / "model.xml"),
        "torch": backends.TorchBackend(source),
    }
    for shape in SHAPES:
        L = lightness(shape)
        expected = eager(source, L)
        assert expected.std() > 0.05  # else the bound would say nothing
        for name, backend in sides.items():
            found = backend(L)
            assert (found.shape, found.dtype) == ((1, *expected.shape), np.float32), name
            assert np.abs(found[0] - expected).max() < 1e-4, (name, shape)


def test_an_exported_model_says_what_it_is(weights, tmp_path) -> None:
    onnx_export.export(weights, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    facts = {p.key: p.value for p in model.metadata_props}
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert json.loads(facts["colorization"]) == checkpoint.read_description(weights)
    assert facts["colorization_source_sha256"] == digest
    (dimensions,) = ([d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input)
    assert dimensions == ["batch", 1, "height", "width"]
    onnx_export.export(weights, tmp_path / "m.xml")
    for file in ("m.onnx", "m.xml"):
        colorizer = Colorizer.load(tmp_path / file)
        assert colorizer.backends[0].digest == digest
        assert colorizer.description == checkpoint.read_description(weights)
        assert colorizer.default_size == 64


def test_float16_weights_stay_float16_and_answer_the_same(tmp_path) -> None:
    network = lively(UNet(16, 4, 0, "nearest"))
    spec = {**SPEC, "width": 16}
    sizes = {}
    for dtype in (torch.float32, torch.float16):
        source = save(tmp_path / f"{dtype}.safetensors", network, spec, dtype=dtype)
        target = source.with_suffix(".onnx")
        onnx_export.export(source, target)
        sizes[dtype] = target.stat().st_size
        L = lightness((1, 64, 80))
        assert np.abs(backends.OnnxBackend(target)(L)[0] - eager(source, L)).max() < 1e-4
    assert sizes[torch.float16] < 0.6 * sizes[torch.float32]


def test_the_twin_that_ships_is_that_of_the_weights_that_ship() -> None:
    source = find_weights()
    backend = backends.OnnxBackend(source.with_suffix(".onnx"))
    assert backend.digest == hashlib.sha256(source.read_bytes()).hexdigest()
    for shape in SHAPES:
        L = lightness(shape)
        assert np.abs(backend(L)[0] - eager(source, L)).max() < 1e-4
    assert sum(source.with_suffix(s).stat().st_size for s in (".safetensors", ".onnx")) < 24e6


def test_colorizing_imports_no_torch(weights, tmp_path) -> None:
    onnx_export.export(weights, tmp_path / "m.onnx")
    code = """
import sys
import numpy as np
from PIL import Image
from colorization import Colorizer
picture = Colorizer.load(*sys.argv[1:]).colorize(Image.fromarray(np.full((50, 70), 128, "u1")))
assert picture.size == (70, 50)
print(sorted({"torch", "torchvision", "pytorch_lightning", "skimage", "matplotlib"} & set(sys.modules)))
"""
    for arguments in ([], [tmp_path / "m.onnx"]):
        done = process(code, *arguments)
        assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_other_weights_are_converted_once_into_the_cache(weights, cache, tmp_path) -> None:
    L = lightness((1, 40, 50))
    np.save(tmp_path / "L.npy", L)
    lacking = process(WITHOUT_TORCH, weights, tmp_path / "ab.npy", tmp_path / "L.npy")
    assert lacking.returncode == 1
    assert "InputError" in lacking.stderr.splitlines()[-1] or "Unexportable" in lacking.stderr.splitlines()[-1]
    assert "without PyTorch" in lacking.stderr.splitlines()[-1]
    assert "colorization.export weights=w.safetensors" in lacking.stderr.splitlines()[-1]

    backend = loading.load(weights, "cpu")
    assert backend.name == "onnx"
    assert [f.stem for f in (cache / "onnx").iterdir()] == [hashlib.sha256(weights.read_bytes()).hexdigest()]
    done = process(WITHOUT_TORCH, weights, tmp_path / "ab.npy", tmp_path / "L.npy")
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(tmp_path / "ab.npy")[0] - eager(weights, L)).max() < 1e-4


def test_several_threads_export_at_once(cache, tmp_path) -> None:
    """As a server's do, asked for several weights that it has not seen."""
    files = [
        save(tmp_path / f"{width}.safetensors", lively(UNet(width, 4, 0, "nearest")), {**SPEC, "width": width})
        for width in range(4, 10)
    ]
    with ThreadPoolExecutor(len(files)) as threads:
        twins = list(threads.map(loading.twin, files))
    L = lightness((1, 47, 33))
    for file, twin in zip(files, twins, strict=True):
        np.testing.assert_allclose(backends.OnnxBackend(twin)(L)[0], eager(file, L), atol=1e-4)


def test_a_twin_beside_the_weights_counts_only_while_it_is_theirs(weights, cache, tmp_path) -> None:
    np.save(tmp_path / "L.npy", lightness((1, 40, 50)))
    onnx_export.export(weights, weights.with_suffix(".onnx"))
    arguments = (weights, tmp_path / "ab.npy", tmp_path / "L.npy")
    assert process(WITHOUT_TORCH, *arguments).returncode == 0
    assert not cache.exists()
    save(weights, lively(UNet(4, 3, 0, "nearest")), {**SPEC, "depth": 3})
    assert "without PyTorch" in process(WITHOUT_TORCH, *arguments).stderr
    L = lightness((1, 40, 50))
    assert np.abs(loading.load(weights, "cpu")(L)[0] - eager(weights, L)).max() < 1e-4


def test_a_model_that_answers_otherwise_is_not_kept(weights, tmp_path, monkeypatch) -> None:
    other = lively(UNet(4, 4, 0, "nearest"))
    nn.init.constant_(other.head[1][1].bias, 0.5)
    original = onnx_export._onnx
    monkeypatch.setattr(onnx_export, "_onnx", lambda network, *rest: original(other, *rest))
    with pytest.raises(backends.Unexportable, match="does not answer like"):
        onnx_export.export(weights, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_weights_without_a_twin_run_in_torch_and_say_so(weights, cache, monkeypatch, caplog) -> None:
    cache.write_text("in the way")
    backend = loading.load(weights, "cpu")
    assert backend.name == "torch"
    assert backend.digest == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "PyTorch runs them" in caplog.text
    with pytest.raises(InputError, match="cannot be written"):
        loading.load(weights, "cpu", "onnx")
    assert loading.load(find_weights(), "cpu").name == "onnx"  # its twin ships


def test_the_fastest_is_measured_once_and_remembered(weights, cache, monkeypatch) -> None:
    assert loading.load(weights, "cpu", threads=1).name == "onnx"
    assert not (cache / "fastest").exists()
    monkeypatch.setattr(loading, "MEASURED_SECONDS", 0.05)
    measured = loading.load(weights, "cpu", threads=1, measure=True)
    (file,) = (cache / "fastest").iterdir()
    content = json.loads(file.read_text())
    assert set(content["seconds"]) >= {"onnx", "openvino", "torch"}
    assert measured.name == min(content["seconds"], key=content["seconds"].get)
    for name in ("openvino", "torch", "onnx"):
        file.write_text(json.dumps({**content, "seconds": {**content["seconds"], name: 1e-9}}))
        assert loading.load(weights, "cpu", threads=1, measure=True).name == name
        assert loading.load(weights, "cpu", threads=1).name == name
    assert loading.load(weights, "cpu", threads=2).name == "onnx"  # not measured for as many


@pytest.mark.parametrize("name", ["torch", "onnx", "openvino"])
def test_calls_from_several_threads_answer_as_one(name, weights) -> None:
    batches = [lightness((1, 40 + i, 60)) for i in range(6)] * 3
    backend = loading.load(weights, "cpu", name, threads=1)
    expected = [backend(L) for L in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(backend, batches))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_strangers_models_are_refused(weights, tmp_path) -> None:
    stranger = tmp_path / "stranger.onnx"
    value = onnx.helper.make_tensor_value_info
    axes = ["n", 1, "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["L"], ["ab"])],
        "g",
        [value("L", onnx.TensorProto.FLOAT, axes)],
        [value("ab", onnx.TensorProto.FLOAT, axes)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, stranger)
    for text in (None, "no JSON", "{}"):
        if text is not None:
            onnx.helper.set_model_props(model, {"colorization": text})
            onnx.save(model, stranger)
        for backend in ("onnx", "openvino"):
            with pytest.raises(InputError, match="do not say what they are"):
                loading.load(stranger, "cpu", backend)
    onnx.helper.set_model_props(model, {"colorization": json.dumps(checkpoint.read_description(weights))})
    onnx.save(model, stranger)
    with pytest.raises(InputError, match="which weights"):
        loading.load(stranger, "cpu")
    for file in (tmp_path / "bad.onnx", tmp_path / "bad.xml"):
        file.write_bytes(weights.read_bytes()[:500])
        with pytest.raises(InputError, match=rf"{file.name}: not a"):
            loading.load(file, "cpu")


@pytest.mark.parametrize(
    ("file", "device", "backend", "words"),
    [
        ("w.safetensors", "cpu", "tpu", ["backend=tpu", "onnx"]),
        ("w.safetensors", "tpu", "auto", ["device=tpu", "cuda"]),
        ("w.safetensors", "cuda", "onnx", ["device=cuda", "backend=torch"]),
        ("m.onnx", "cuda", "auto", ["device=cuda"]),
        ("m.onnx", "cpu", "torch", ["m.onnx", "backend=torch"]),
        ("m.xml", "cpu", "onnx", ["m.xml", "backend=onnx"]),
        ("nothing.onnx", "cpu", "auto", ["nothing.onnx", "no such file"]),
    ],
)
def test_what_cannot_run_is_one_sentence(file, device, backend, words, weights, tmp_path) -> None:
    if file.startswith("m."):
        onnx_export.export(weights, tmp_path / file)
    with pytest.raises(InputError) as caught:
        loading.load(tmp_path / file, device, backend)
    assert all(w in str(caught.value) for w in words)
    assert "\n" not in str(caught.value)


def test_bfloat16_is_offered_only_where_the_processor_has_it(weights) -> None:
    if "BF16" in backends.openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        L = lightness((1, 64, 64))
        found = loading.load(weights, "cpu", "openvino-bf16")(L)[0]
        assert np.abs(found - eager(weights, L)).max() * 110 < 5  # Lab units, on weights that amplify everything
    else:
        with pytest.raises(InputError, match="bfloat16"):
            loading.load(weights, "cpu", "openvino-bf16")


# The command


@pytest.fixture
def command(run_main: Callable[..., int]) -> Callable[..., int]:
    return lambda *arguments: run_main(lambda: hydra_main.run(export.command, "export"), *arguments)


def test_the_command_writes_beside_the_weights_or_where_it_is_told(command, weights, tmp_path) -> None:
    assert command(f"weights={weights}") == 0
    assert loading.load(weights.with_suffix(".onnx")).name == "onnx"
    assert command(f"weights={weights}", "format=openvino", f"output={tmp_path}/models/a.xml") == 0
    assert sorted(f.name for f in (tmp_path / "models").iterdir()) == ["a.bin", "a.xml"]
    assert loading.load(tmp_path / "models" / "a.xml").name == "openvino"


@pytest.mark.parametrize("stage", SMALL_STAGES)
def test_weights_to_pass_on_are_float16_and_as_pale_as_asked(stage, compose_train, tmp_path) -> None:
    spec = dict(compose_train(*SMALL_STAGES[stage]).model.network)
    network = lively(building.build_network(spec))
    *_, last = network.head.modules()
    with torch.no_grad():
        last.weight *= 0.01  # far from the bound, where the factor is one of the colours
    source = save(tmp_path / "w.safetensors", network, spec, stage)
    for name, chroma in (("half", 1.0), ("pale", 0.6)):
        export.write_float16(source, tmp_path / f"{name}.safetensors", chroma)
        made, description = checkpoint.load_weights(tmp_path / f"{name}.safetensors")
        L = torch.from_numpy(lightness((1, 64, 80)))
        with torch.inference_mode():
            expected = chroma * network.eval()(L)
            assert 0.01 < expected.abs().max() < 0.2
            assert (made(L) - expected).abs().max() < 0.02 * expected.abs().max()
        assert description.get("chroma", 1.0) == chroma
    with safe_open(str(tmp_path / "pale.safetensors"), "pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys() if k.endswith("weight")} == {torch.float16}  # noqa: SIM118


def test_an_ensemble_keeps_the_colours_of_its_members(command, tmp_path, capsys) -> None:
    spec = {"_target_": "colorization.networks.ensemble.Ensemble", "members": [SPEC, SPEC]}
    source = save(tmp_path / "e.safetensors", lively(building.build_network(spec)), spec, "ensemble")
    to = f"output={tmp_path}/half.safetensors"
    assert command(f"weights={source}", "format=float16", to, "chroma=0.5") == 2
    assert "a ensemble" not in (said := capsys.readouterr().err) and "an ensemble" in said
    assert command(f"weights={source}", "format=float16", to) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["weights=nothing"], ["weights=nothing"]),
        (["weights=w.safetensors", "format=tflite"], ["format=tflite", "onnx"]),
        (["weights=w.safetensors", "output=a.xml"], ["a.xml", ".onnx"]),
        (["weights=w.safetensors", "output=w.safetensors/a.onnx"], ["cannot be written"]),
        (["weights=w.safetensors", "chroma=0.5"], ["chroma=0.5", "format=float16"]),
        (["weights=w.safetensors", "vividness=0.5"], ["vividness=0.5", "format=float16"]),
        (["weights=w.safetensors", "format=float16", "output=h.safetensors", "size=8"], ["size=8", "32"]),
        (["weights=w.safetensors", "format=float16", "output=h.safetensors", "temperature=1"], ["temperature", "unet"]),
        (["weights=w.safetensors", "format=float16"], ["w.safetensors", "another file"]),
        (["weights=w.safetensors", "format=float16", "output=h.safetensors", "chroma=0"], ["chroma=0", "above 0"]),
    ],
)
def test_a_mistake_is_one_sentence(arguments, words, command, weights, capsys) -> None:
    assert command(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert all(w in error for w in words), error
    assert "\n" not in error


SIGNALLED = """
import faulthandler, gc, os, signal, sys
from pathlib import Path
from colorization.models import backends
faulthandler.enable()  # gives signals a stack of their own, as pytest does
signal.signal(signal.SIGCHLD, lambda *_: None)
first, second = (backends.OpenVINOBackend(Path(sys.argv[1])) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGCHLD)
print("alive")
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_openvino_leaves_a_process_that_takes_signals() -> None:
    twin = find_weights().with_suffix(".onnx")
    done = subprocess.run([sys.executable, "-c", SIGNALLED, twin], capture_output=True, text=True)
    assert done.stdout == "alive\n" and done.returncode == 0, done.stderr
