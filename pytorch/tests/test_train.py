"""The training script: what was cut goes on as if it had not been; several processes train one
model; `resnet-bk`, where it was built, reads the result."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch

from resnet_bk import load

HERE = pathlib.Path(__file__).parents[1]
TOKENIZER = HERE.parent / "models" / "tiny" / "tokenizer.json"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target"))
TOOLS = TARGET / "release" / "resnet-bk"
SMALL = "--width 16 --layers 1 --channels 16 --potentials 4 --batch 4 --window 16 --steps 250"


def run(folder, out, *more, start=(sys.executable,)):
    command = [*start, HERE / "train.py", "--corpus", folder, "--tokenizer", TOKENIZER]
    command += ["--out", folder / out, *SMALL.split(), "--device", "cpu", *more]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, text=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for split, lines in (("train", 400), ("valid", 20)):
        text = "".join(f"the {i * i % 7} th line\n" for i in range(lines))
        (folder / f"{split}.txt").write_text(text)
    assert run(folder, "whole").returncode == 0
    return folder


def weights(folder):
    return load(folder / "model.safetensors").state_dict()


# Runs a script until the step after its first save.
KILLED = """
import runpy, sys, torch

saved = []
save, step = torch.save, torch.optim.AdamW.step
torch.save = lambda *values: (save(*values), saved.append(True))
torch.optim.AdamW.step = lambda *values: sys.exit("killed") if saved else step(*values)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_cut_run_goes_on(folder):
    killed = run(folder, "cut", start=(sys.executable, "-c", KILLED))
    assert "killed" in killed.stderr and (folder / "cut" / "state.pt").exists(), killed.stderr
    assert "other settings" in run(folder, "cut", "--lr", "1").stderr
    assert run(folder, "cut").returncode == 0
    whole, resumed = weights(folder / "whole"), weights(folder / "cut")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    files = sorted(path.name for path in (folder / "cut").iterdir())
    assert files == ["model.safetensors", "tokenizer.json"]


def test_several_processes_train_one_model(folder):
    start = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    done = run(folder, "two", start=start)
    assert done.returncode == 0, done.stderr
    assert weights(folder / "two").keys() == weights(folder / "whole").keys()


@pytest.mark.skipif(not TOOLS.exists(), reason="resnet-bk is not built: cargo build --release")
def test_the_tools_read_the_model(folder):
    model = folder / "whole" / "model.safetensors"
    inspected = subprocess.run([TOOLS, "inspect", model], text=True, capture_output=True)
    assert "gating 16 channels" in inspected.stdout, inspected.stderr
    blob = folder / "int8.rbk"
    quantize = [TOOLS, "quantize", model, "--policy", "uniform-int8", "--out", blob]
    quantize += ["--text", folder / "train.txt"]
    quantize += ["--calibration-tokens", "512", "--measure-tokens", "128"]
    made = subprocess.run(quantize, text=True, capture_output=True)
    assert made.returncode == 0 and blob.stat().st_size > 1000, made.stderr
