"""One's own messages, a line each, through our codec and others, from the repository's root:

    python benchmarks/messages/own.py messages.rbk --corpus DIR

The messages are the lines of test.txt. zstd at level 19 has a dictionary of as many bytes as the
blob, trained on the lines of train.txt. Three ways to send them: each on its own; each on its own,
but after a text that both ends have (`--prime`, a line feed unless given); and each after those
before it, over a link that loses none, where zstd is one stream that is flushed after every message.
Bits per byte of the messages alone, without lengths or checks.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import zlib

import brotli
import zstandard

from compare import ROOT, parameters


def ours(args, lines, prime=None, carry=False):
    """Bits per byte."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "messages.txt").write_bytes(b"\n".join(lines) + b"\n")
        command = [target / "resnet-bk", "compress", args.blob, folder / "messages.txt", "--hex"]
        command += ["--out", folder / "messages.hex", "--json", "--quiet"]
        if prime is not None:
            (folder / "prime.txt").write_bytes(prime)
            command += ["--prime", folder / "prime.txt"]
        command += ["--carry"] if carry else []
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return report["bits_per_byte"]


def stream(compressor, lines):
    """Bytes of all messages as one stream that is flushed after each."""
    running = compressor.compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return sum(len(running.compress(line + b"\n")) + len(running.flush(flush)) for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("blob", type=pathlib.Path)
    add("--corpus", required=True, type=pathlib.Path, help="folder with train.txt and test.txt")
    add("--prime", type=pathlib.Path, metavar="FILE", help="text that both ends have")
    args = parser.parse_args()
    train, lines = (
        [line for line in (args.corpus / f"{split}.txt").read_bytes().split(b"\n") if line]
        for split in ("train", "test")
    )
    size = sum(map(len, lines))
    dictionary = zstandard.train_dictionary(args.blob.stat().st_size, train)
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters())
    bits = lambda count: f"{8 * count / size:.2f}"
    each = lambda compress: bits(sum(len(compress(line)) for line in lines))
    prime = args.prime.read_bytes() if args.prime else b"\n"
    print(f"{len(lines)} messages of {size / len(lines):.1f} bytes\n")
    print("| sent | zlib | brotli | zstd, dictionary | resnet-bk |")
    print("|---|---:|---:|---:|---:|")
    cells = [each(lambda line: zlib.compress(line, 9)), each(lambda m: brotli.compress(m, quality=11))]
    own = each(compressor.compress)
    print("| each on its own |", " | ".join([*cells, own, f"{ours(args, lines):.2f}"]), "|")
    print(f"| the same, primed | – | – | – | {ours(args, lines, prime):.2f} |")
    carried = bits(stream(compressor, lines))
    print(f"| each after those before it | – | – | {carried} | {ours(args, lines, carry=True):.2f} |")


if __name__ == "__main__":
    main()
