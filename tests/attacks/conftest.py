"""What the attacks begin with: a sound model and a sound text, made once for a file of tests. Copy what you damage."""

from pathlib import Path

import pytest

from ..conftest import make_text, make_tokenizer
from ..families import tiny_model


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None:
    """Models this small are slower on several threads."""


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked") / "dense"
    tiny_model("llama").save_pretrained(folder)
    make_tokenizer(add_bos=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attacked") / "text.txt"
    path.write_text(make_text(400))
    return path
