"""Wheels to test with, made in milliseconds; and packages as pip would have unpacked them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zipfile
from pathlib import Path


def write_wheel(
    folder: Path, name: str, number: str, module: str = "", needs: tuple[str, ...] = (), megabytes: int = 0, code: str = ""
) -> Path:
    """A wheel of one package; `needs` are its requirements, `megabytes` of noise make its installation last, `code` runs at its import."""
    plain = re.sub(r"[-_.]+", "_", name).lower()
    module, stem = module or plain, f"{plain}-{number}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n" + "".join(f"Requires-Dist: {n}\n" for n in needs)
    files = {
        f"{module}/__init__.py": f"__version__ = {number!r}\n{code}".encode(),
        f"{stem}.dist-info/METADATA": metadata.encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files |= {f"{module}_data/{n}.bin": os.urandom(1 << 20) for n in range(megabytes)}
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},{len(content)}\n"
        for path, content in files.items()
    )
    files[f"{stem}.dist-info/RECORD"] = (record + f"{stem}.dist-info/RECORD,,\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_in_archive, content in files.items():
            archive.writestr(name_in_archive, content)
    return path


def unpack(folder: Path, wheel: Path) -> None:
    """What pip leaves of a wheel in a folder of packages."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
