"""The page of examples/space as a visitor meets it: collected as for a Space, served, and opened in a Chromium."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ..conftest import ROOT, make_text, make_tokenizer
from ..families import tiny_model
from ..hub.local_hub import LocalHub

NAMES = (os.environ.get("CHROME", ""), "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
HELD_PAGE = Path(__file__).with_name("held_page.py")


def why_no_browser() -> str | None:
    """Why the page cannot be driven here, if so."""
    missing = [name for name in ("gradio", "playwright") if find_spec(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}; run `make space-test`"
    return None if CHROMIUM else "there is no Chromium: apt-get install chromium, or say where one is (CHROME)"


@dataclass
class Served:
    """A page that runs in a process of its own."""

    url: str
    log: Path
    folder: Path  # temporary files of the process


@contextmanager
def serving(folder: Path, **variables: str) -> Iterator[Served]:
    """Collect the page into a folder, and serve it from there; long searches wait for their visitor."""
    subprocess.run([sys.executable, ROOT / "examples" / "space" / "collect.py", folder / "space"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    temporary, log = folder / "tmp", folder / "log.txt"
    temporary.mkdir()
    # Nothing of this checkout is on the path: the page brings the package along.
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
    environment = {**inherited, "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(temporary), **variables}
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, HELD_PAGE], cwd=folder / "space", env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{port}/", process, log)
            yield Served(f"http://127.0.0.1:{port}/", log, temporary)
        finally:
            process.terminate()


def _wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def local_hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, local_hub: LocalHub) -> Iterator[Served]:
    if reason := why_no_browser():
        pytest.skip(reason)
    hub = {"HF_ENDPOINT": local_hub.url, "HF_HUB_OFFLINE": "0"}
    limits = {"SLEB_SPACE_GIGABYTES": "0.002", "SLEB_SPACE_LETTERS": "50000"}
    with serving(
        tmp_path_factory.mktemp("page"), **hub, **limits, OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""
    ) as one:
        yield one


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if reason := why_no_browser():
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def zip_of(folder: Path, num_blocks: int) -> Path:
    """A tiny model, packed as a person would pack its folder."""
    tiny_model(num_hidden_layers=num_blocks).save_pretrained(folder)
    make_tokenizer(add_bos=False).save_pretrained(folder)
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))


@pytest.fixture(scope="session")
def tiny_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zip_of(tmp_path_factory.mktemp("models") / "tiny", 8)


@pytest.fixture(scope="session")
def deep_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So many blocks that a search can be a long one."""
    return zip_of(tmp_path_factory.mktemp("models") / "deep", 40)


@pytest.fixture
def words() -> str:
    return make_text(600)
