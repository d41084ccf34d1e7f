"""What the fuzz targets share."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris


def run(test: Callable[[bytes], None], seeds: Sequence[bytes], dictionary: str) -> None:
    """Fuzzes ``test`` with libFuzzer's options from the command line. A corpus folder that is missing is made, and an
    empty one begins with ``seeds``; ``dictionary`` is a file beside this one."""
    folders = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    for folder in folders[:1]:
        if not folder.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                for seed in seeds:
                    (folder / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    options = [f"-dict={Path(__file__).with_name(dictionary)}", "-max_len=2048", "-len_control=20", "-timeout=10"]
    atheris.Setup([sys.argv[0], *options, *sys.argv[1:]], test)
    atheris.Fuzz()


def cut(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes; 0: whole."""
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]
