"""Runs these tests where PyTorch is installed, and says so where it is not."""

import importlib.util
import pathlib
import subprocess
import sys

NEEDED = ["torch", "safetensors", "tokenizers", "pytest"]


def main():
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        print(f"pytorch: skipped, without {names}: pip install './pytorch[test]'")
        return 0
    folder = pathlib.Path(__file__).parents[1]
    return subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
