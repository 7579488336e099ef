"""The commands of docs/guide.md, in their order, from a checkout where the tools were built."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")).absolute()
TOOLS = TARGET / "release"
EMULATOR = shutil.which("qemu-system-arm") or (TARGET / "qemu").exists()
# Installed by what runs this test.
SKIPPED = "cargo install"


def commands():
    lines = (REPOSITORY / "docs" / "guide.md").read_text("utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith("    ") and SKIPPED not in line]


@pytest.mark.skipif(not (TOOLS / "resnet-bk").exists(), reason="cargo build --release first")
@pytest.mark.skipif(not EMULATOR, reason="cargo xtask setup first")
def test_every_command_works(tmp_path):
    guide = REPOSITORY / "target" / "guide"
    shutil.rmtree(guide, ignore_errors=True)
    # `python` is this one, with what is installed for it.
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    path = os.pathsep.join([str(TOOLS), str(tmp_path), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY / "pytorch")}
    environment.pop("WIKITEXT2_DIR", None)
    outputs = {}
    for command in commands():
        done = subprocess.run(command, shell=True, cwd=REPOSITORY, env=environment, text=True,
                              capture_output=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs[command.split(" --")[0]] = done.stdout
    found = {name: text for name, text in outputs.items() if "resnet-bk" in name}
    assert len(found) >= 7, outputs.keys()
    host = outputs["resnet-bk generate target/guide/tuned.rbk"].strip()
    device = next(text for name, text in outputs.items() if name.startswith("cd "))
    assert host in device, f"{host}\n{device}"
    assert (guide / "tuned.rbk").stat().st_size * 6 <= (guide / "model.safetensors").stat().st_size
