"""Short messages through our codec and other compressors, from the repository's root:

    python benchmarks/messages/compare.py models/wikitext2/model.rbk --corpus DIR

Cuts messages from the test split and prints the bits per byte of each compressor, and of the whole
split as one text. zstd has a dictionary of as many bytes as our blob, trained on the train split.
With `--smaz2 CLONE`, a clone of github.com/antirez/smaz2, that is compiled and measured, too.
"""

import argparse
import ctypes
import json
import lzma
import os
import pathlib
import subprocess
import tempfile
import zlib

import brotli
import unishox2
import zstandard

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Bytes of the messages that the dictionary is trained on.
SAMPLE = 256


def parameters():
    """Level 19 without what a stream between two that know each other can leave out."""
    return zstandard.ZstdCompressionParameters.from_level(
        19, format=zstandard.FORMAT_ZSTD1_MAGICLESS, write_content_size=False,
        write_checksum=False, write_dict_id=False,
    )


def dictionary(args):
    """zstd at level 19 with a dictionary of the blob's size."""
    train = (args.corpus / "train.txt").read_bytes()
    samples = [train[at : at + SAMPLE] for at in range(0, len(train), SAMPLE)]
    trained = zstandard.train_dictionary(args.blob.stat().st_size, samples)
    return zstandard.ZstdCompressor(dict_data=trained, compression_params=parameters()).compress


def smaz2(clone):
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "smaz2.so"
        source = clone / "smaz2.c"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        function = ctypes.CDLL(library).smaz2_compress
    function.restype = ctypes.c_ulong
    function.argtypes = [ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_ulong]

    def compress(message):
        out = ctypes.create_string_buffer(8 * len(message) + 64)
        return out.raw[: function(out, len(out), message, len(message))]

    return compress


def ours(args):
    """Our lines, and the bits per byte of the whole split with the state carried on."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    if not args.no_build:
        packages = ["-p", "resnet-bk-benchmarks", "-p", "resnet-bk-tools"]
        subprocess.run(["cargo", "build", "--release", *packages], cwd=ROOT, check=True)
    command = [target / "resnet-bk-benchmarks", "messages", args.blob, "--corpus", args.corpus]
    command += ["--count", str(args.count), "--seed", str(args.seed), "--json"]
    lines = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    with tempfile.TemporaryDirectory() as folder:
        command = [target / "resnet-bk", "compress", args.blob, args.corpus / "test.txt"]
        command += ["--chunk", str(16 << 20), "--out", f"{folder}/test.rbt", "--json"]
        whole = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return lines, whole["bits_per_byte"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("blob", type=pathlib.Path)
    add("--corpus", required=True, type=pathlib.Path, help="folder with train.txt and test.txt")
    add("--count", type=int, default=1500, help="messages of each length")
    add("--seed", type=int, default=1)
    add("--smaz2", type=pathlib.Path, metavar="CLONE")
    add("--no-build", action="store_true", help="use the programs that are there")
    args = parser.parse_args()
    lines, whole = ours(args)
    others = {
        "zlib": lambda message: zlib.compress(message, 9),
        "brotli": lambda message: brotli.compress(message, quality=11),
        "Unishox2": lambda message: unishox2.compress(message.decode("utf-8", "replace"))[0],
    }
    if args.smaz2:
        others["Smaz2"] = smaz2(args.smaz2)
    others["zstd, dictionary"] = dictionary(args)
    text = (args.corpus / "test.txt").read_bytes()
    print("| bytes of a message |", " | ".join(others), "| resnet-bk | its cross-entropy |")
    print("|---:|" + "---:|" * (len(others) + 2))
    for line in lines:
        length, offsets = line["length"], line["offsets"]
        messages = [text[at : at + length] for at in offsets]
        of = lambda compress: 8 * sum(len(compress(m)) for m in messages) / length / len(messages)
        cells = [f"{of(compress):.2f}" for compress in others.values()]
        cells += [f"**{line['bits_per_byte']:.2f}**", f"{line['cross_entropy']:.2f}"]
        print(f"| {length} |", " | ".join(cells), "|")
    rest = {"zlib", "brotli"}
    cells = [f"{8 * len(c(text)) / len(text):.2f}" if n in rest else "–" for n, c in others.items()]
    print("| whole split |", " | ".join([*cells, f"**{whole:.2f}**", "–"]), "|")
    packed = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    print(f"\nxz -9e, whole split: {8 * len(packed) / len(text):.2f}")


if __name__ == "__main__":
    main()
