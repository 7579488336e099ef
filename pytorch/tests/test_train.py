"""The training script: what was cut goes on as if it had not been; several processes train one
model; `resnet-bk`, where it was built, reads the result."""

import os
import pathlib
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer

import train
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


def test_a_model_learns_from_another(folder):
    """A teacher that knows next to nothing is believed, against the text."""
    assert run(folder, "fresh", "--steps", "1").returncode == 0
    teacher, start = (folder / name / "model.safetensors" for name in ("fresh", "whole"))
    learning = ("--init", start, "--teacher", teacher, "--width", "24")
    taught = run(folder, "taught", *learning, "--cross-entropy", "0")
    assert taught.returncode == 0, taught.stderr
    models = [load(folder / name / "model.safetensors") for name in ("fresh", "whole", "taught")]
    assert models[2].config == models[1].config
    text = (folder / "valid.txt").read_text()
    tokens = torch.tensor([Tokenizer.from_file(str(TOKENIZER)).encode(text).ids[:64]])
    with torch.no_grad():
        fresh, whole, taught = (model.eval()(tokens).log_softmax(-1) for model in models)
    divergence = [(fresh.exp() * (fresh - other)).sum(-1).mean() for other in (whole, taught)]
    assert divergence[0] > 1 and divergence[1] < 0.5, divergence


def test_a_teacher_of_another_vocabulary_is_refused(folder):
    other = HERE / "tests" / "fixtures" / "gated" / "model.safetensors"
    refused = run(folder, "refused", "--teacher", other).stderr
    assert str(other) in refused and "--tokenizer" in refused


def test_soft_targets_are_the_most_probable_tokens(folder):
    model = load(folder / "whole" / "model.safetensors").eval()
    vocab = model.config.vocab
    tokens = torch.arange(1500) * 7 % vocab
    likely, probabilities = train.soft_targets([model, model], tokens, vocab, "cpu")
    for first, last in ((0, 1023), (1024, 1499)):
        with torch.no_grad():
            exact = model(tokens[None, first : last + 1])[0, -1].softmax(-1)
        assert torch.allclose(exact[likely[last].long()], probabilities[last].float(), atol=1e-3)
        assert exact.topk(64).values.sum() - probabilities[last].float().sum() < 1e-3


def test_the_loss_on_soft_targets():
    torch.manual_seed(3)
    logits = torch.randn(5, 11, dtype=torch.float64, requires_grad=True)
    likely = torch.stack([torch.randperm(11)[:3] for _ in range(5)])
    probabilities = torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64).expand(5, 3)
    exact = 0.0
    for row, tokens in zip(logits.softmax(-1), likely):
        others = 1 - row[tokens].sum()
        exact -= 0.5 * row[tokens[0]].log() + 0.25 * row[tokens[1]].log()
        exact -= 0.125 * row[tokens[2]].log() + 0.125 * others.log()
    loss = train.soft_loss(logits, likely, probabilities)
    assert torch.allclose(loss, exact / 5)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    (by_hand,) = torch.autograd.grad(exact / 5, logits)
    assert torch.allclose(gradient, by_hand)


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
