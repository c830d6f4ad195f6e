"""``colorization COMMAND``, as a person types it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colorization import __version__, commands, doctor
from colorization.colorize.colorizer import Colorizer
from colorization.core.errors import InputError
from colorization.models import loading

SCRIPT = str(Path(sys.executable).parent / "colorization")


def run(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *words], cwd=folder, capture_output=True, text=True, timeout=300)


def test_every_command_is_a_module_that_can_be_run() -> None:
    for module, *_ in commands.COMMANDS.values():
        assert find_spec(module) is not None, module
        assert '__name__ == "__main__"' in Path(str(find_spec(module).origin)).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "  doctor "),
        (["--version"], 0, __version__),
        ([], 2, "error: no command given"),
        (["trian"], 2, "error: no command trian; did you mean train?"),
        (["serve", "--help"], 0, "usage: colorization serve"),
        (["serve", "port=many"], 2, "error: port"),
        (["summarize", "--output-dir", "nowhere"], 2, "error: "),
    ],
)
def test_it_answers(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = run(*words, folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr


def test_a_photo_comes_out_as_from_the_command_colorize(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert run("colorize", "a.png", "-o", "b.png", folder=tmp_path).returncode == 0
    plain = [str(Path(SCRIPT).with_name("colorize")), "a.png", "-o", "c.png"]
    subprocess.run(plain, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert np.array_equal(Image.open(tmp_path / "b.png"), Image.open(tmp_path / "c.png"))


@pytest.mark.slow
def test_a_hydra_command_takes_its_overrides(tmp_path: Path) -> None:
    done = run("export", "weights=nothing", "format=onnx", folder=tmp_path)
    assert done.returncode == 2 and "error: weights=nothing" in done.stderr


def test_the_doctor_knows_every_extra() -> None:
    extras = set(metadata.metadata("lab-colorization").get_all("Provides-Extra") or [])
    assert extras - {"dev", "docs", "archive", "notebooks"} == doctor.EXTRAS.keys()


def test_a_command_whose_extra_is_missing_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # as where it is not installed
    monkeypatch.setattr(sys, "argv", ["colorization", "sweep"])
    with pytest.raises(SystemExit, match="2"):
        commands.main()
    said = 'error: colorization sweep needs optuna: pip install "lab-colorization[tune]"\n'
    assert capsys.readouterr().err == said


def test_the_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name in ("ray", "openvino") else find_spec(name))
    assert doctor.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("ok   backend    onnx: onnxruntime ") and line.endswith(" s") for line in lines)
    assert any(line.startswith("--") and 'pip install "lab-colorization[scale]"' in line for line in lines)
    assert "--   backend    openvino: openvino is not installed" in lines
    assert any("shipped-classes" in line and line.endswith("the default") for line in lines)


def test_the_doctor_fails_where_nothing_colorizes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, backend: str) -> Colorizer:
        raise InputError(f"backend={backend}: it is broken")

    monkeypatch.setattr(Colorizer, "load", broken)
    assert doctor.main() == 1
    said = capsys.readouterr()
    assert "FAIL backend    onnx: backend=onnx: it is broken" in said.out
    assert "error: something that is needed does not work" in said.err
    assert len([line for line in said.out.splitlines() if line[5:].startswith("backend")]) == len(loading.NAMES)


# Completion

BASH = """
source <(colorization completion bash)
complete -p colorization colorize >/dev/null || exit 1
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
_python_argcomplete ${1%% *}
printf '%s\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -Uz compinit && compinit -D
source <(colorization completion zsh)
[[ $_comps[colorization] = _python_argcomplete ]] || exit 1
_describe() { print -l -- $completions }
words=(${(z)1}) BUFFER=$1 CURSOR=${#1}
_python_argcomplete
"""
FISH = "colorization completion fish | source; complete -C $argv[1]"


@pytest.mark.parametrize(
    ("line", "first", "others"),
    [
        ("colorization tr", "train", set()),
        ("colorization ", "colorize", {"serve", "train", "doctor", "completion"}),
        ("colorization train model=enc", "encoder_unet", set()),
        ("colorization train model=unet trainer.max_e", "trainer.max_epochs=", set()),
        ("colorization train --multir", "--multirun", set()),
        ("colorization colorize --backend ", "auto", {"onnx"}),
        ("colorization serve --po", "--port", set()),
        ("colorization serve port=1 trainings", "trainings=", set()),
        ("colorization summarize --ou", "--output-dir", set()),
        ("colorization completion f", "fish", set()),
        ("colorize --str", "--strength", {"--strip", "--strict"}),
        ("colorize pho", "photo.jpg", set()),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell: str, line: str, first: str, others: set[str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = {
        "bash": ["bash", "--norc", "-c", BASH, "bash", line],
        "zsh": ["zsh", "-f", "-c", ZSH, "zsh", line],
        "fish": ["fish", "--no-config", "-c", FISH, line],
    }[shell]
    (tmp_path / "photo.jpg").touch()
    environment = os.environ | {"PATH": f"{Path(SCRIPT).parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    # bash replaces what follows the last "=" alone; the others show what an option is for.
    words = [word.partition("\t")[0].partition(":")[0].strip() for word in done.stdout.splitlines()]
    said = {word.rpartition("model=")[2] for word in words}
    assert {first, *others} <= said
    if not others:
        assert said == {first}


def test_completion_never_imports_torch(tmp_path: Path) -> None:
    for line in ("colorization train model=u", "colorization summarize --", "colorization serve --p", "colorize --str"):
        environment = os.environ | {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
        environment["_ARGCOMPLETE_STDOUT_FILENAME"] = str(tmp_path / "said")
        command = [sys.executable, "-X", "importtime", str(Path(SCRIPT).with_name(line.split()[0]))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert "argcomplete" in done.stderr and "torch._C" not in done.stderr
        assert (tmp_path / "said").read_text(), line
