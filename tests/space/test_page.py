"""The page in a real browser: check, search, every depth, download, push, refusals, stop and cancel."""

import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from optimum_sleb import PruningReport, SLEBConfig, SLEBPruner

from ..conftest import make_text
from ..families import random_ids
from ..hub.local_hub import TOKEN, LocalHub
from .conftest import Served, serving
from .held_page import HELD_AFTER, LONG
from .visitor import Visitor

pytestmark = [pytest.mark.browser, pytest.mark.long]

RECIPE: dict[str, Any] = {"num_blocks_to_remove": 3, "window_length": 40, "max_windows": 8}


@pytest.fixture
def visitor(browser: Any, served: Served) -> Iterator[Visitor]:
    visitor = Visitor(browser, served.url)
    yield visitor
    visitor.close()


@pytest.fixture
def dense(tiny_zip: Path) -> Path:
    return tiny_zip.with_suffix("")


def by_hand(dense: Path, text: str, **more: Any) -> SLEBPruner:
    pruner = SLEBPruner.from_pretrained(str(dense))
    pruner.prune(SLEBConfig(**RECIPE, **more), calibration=[text])
    return pruner


def test_check(visitor: Visitor, tiny_zip: Path) -> None:
    visitor.upload(tiny_zip)
    visitor.press("check")
    assert visitor.message() == "LlamaForCausalLM: 8 of 8 blocks can be removed."
    assert visitor.page.locator("#strip .sleb-strip .sleb-kept").count() == 8


def test_every_depth_is_that_of_a_search_by_hand(
    visitor: Visitor, tiny_zip: Path, dense: Path, words: str, tmp_path: Path
) -> None:
    visitor.upload(tiny_zip)
    visitor.remove(3)
    visitor.write("text", words)
    visitor.press("prune")
    visitor.wait_for_result()
    pruner = by_hand(dense, words)
    report = pruner.report
    assert visitor.number("Parameters") == f"{report.parameters_after:,}"
    assert visitor.page.locator("#chart .sleb-plot .sleb-dot").count() == 4
    for depth in (1, 2, 3):
        visitor.go_to_depth(depth)
        assert visitor.gone() == set(report.removed_blocks[:depth])
        assert visitor.number("Perplexity") == f"{report.value_of(report.steps[depth - 1].loss):,.2f}"
        assert visitor.number("Blocks") == str(8 - depth)

    visitor.go_to_depth(2)
    visitor.press("make")
    with visitor.page.expect_download() as download:
        visitor.page.click("#download")
    packed = tmp_path / download.value.suggested_filename
    assert packed.name == "tiny-sleb-2.zip"
    download.value.save_as(packed)
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "tiny-sleb-2"
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "sleb_report.json"} <= {
        file.name for file in folder.iterdir()
    }
    taken, ids = AutoModelForCausalLM.from_pretrained(folder), random_ids(1, 20)
    two = SLEBPruner.from_pretrained(str(dense))
    two.apply(report, 2)
    with torch.no_grad():
        assert torch.equal(taken(ids).logits, two.model(ids).logits)
    assert PruningReport.load(folder).removed_blocks == report.removed_blocks[:2]


def test_best_preset(visitor: Visitor, tiny_zip: Path, words: str) -> None:
    visitor.upload(tiny_zip)
    visitor.remove(2)
    visitor.choose("Best quality")
    visitor.write("text", words)
    visitor.press("prune")
    visitor.wait_for_result()
    assert visitor.page.locator("#chart .sleb-title").inner_text().startswith("Kl divergence from the dense model")
    assert float(visitor.number("Perplexity")) > 1
    visitor.go_to_depth(1)
    visitor.press("make")
    visitor.page.wait_for_selector("#download", state="visible")


def test_push_with_the_visitors_token(
    visitor: Visitor, tiny_zip: Path, words: str, local_hub: LocalHub, served: Served
) -> None:
    visitor.upload(tiny_zip)
    visitor.remove(1)
    visitor.write("text", words)
    visitor.press("prune")
    visitor.wait_for_result()
    visitor.open("Push to the Hub")
    visitor.press("push")
    assert visitor.message().startswith("There is no token")
    visitor.write("token", TOKEN)
    visitor.write("repository", "me/from-the-page")
    visitor.press("push")
    visitor.page.wait_for_selector(".sleb-good")
    assert f"{local_hub.url}/me/from-the-page/commit/" in visitor.message()
    assert "model.safetensors" in local_hub.files("me/from-the-page")
    assert visitor.page.locator("#token input").input_value() == ""
    assert TOKEN not in served.log.read_text()
    written = (file for file in served.folder.rglob("*") if file.is_file())
    assert not any(TOKEN.encode() in file.read_bytes() for file in written)


def test_on_a_space_the_visitor_signs_in(browser: Any, tiny_zip: Path, words: str, tmp_path: Path) -> None:
    """With the variables that Hugging Face sets; whom it signs in cannot be tried here."""
    space = {"SYSTEM": "spaces", "SPACE_ID": "me/shallower", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    oauth = {"CLIENT_ID": "id", "CLIENT_SECRET": "word", "SCOPES": "openid profile write-repos manage-repos"}
    oauth = {f"OAUTH_{name}": value for name, value in oauth.items()}
    with serving(tmp_path, **space, **oauth, OPENID_PROVIDER_URL="http://127.0.0.1:9") as served:
        visitor = Visitor(browser, served.url)
        visitor.upload(tiny_zip)
        visitor.remove(1)
        visitor.write("text", words)
        visitor.press("prune")
        visitor.wait_for_result()
        visitor.open("Push to the Hub")
        visitor.page.get_by_text("Sign in with Hugging Face").wait_for()
        assert visitor.page.locator("#token").is_hidden()
        visitor.write("repository", "me/a")
        visitor.press("push")
        assert visitor.message().startswith("There is no token; sign in")
        visitor.close()


def test_a_model_of_the_hub(
    visitor: Visitor, dense: Path, local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in dense.iterdir()}
    local_hub.add_dataset("me/dense", files)
    local_hub.repositories["me/dense"] = local_hub.repositories.pop("datasets/me/dense")
    local_hub.tokens.clear()
    visitor.write("model", "me/dense")
    visitor.press("check")
    assert visitor.message() == "LlamaForCausalLM: 8 of 8 blocks can be removed."
    assert local_hub.tokens == {None}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("", "There is no model yet"),
        ("/etc", "'/etc' is no name on the Hub"),
        ("../..", "'../..' is no name on the Hub"),
        ("<img src=x onerror=alert(1)>", "'<img src=x onerror=alert(1)>' is no name on the Hub"),
        ("me/nothing-here", "'me/nothing-here'"),
    ],
)
def test_names_that_are_refused(visitor: Visitor, served: Served, model: str, says: str) -> None:
    visitor.write("model", model)
    visitor.press("check")
    assert says in visitor.message()
    assert "Traceback" not in served.log.read_text()


def test_what_cannot_be_unpacked(visitor: Visitor, tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.zip", tmp_path / "empty.zip"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("notes.txt", "no model")
    for file, says in ((broken, "broken.zip cannot be unpacked"), (empty, "empty.zip holds no model")):
        again = Visitor(visitor.page.context.browser, visitor.page.url)
        again.upload(file)
        again.press("check")
        assert again.message().startswith(says)
        again.close()


def test_the_packages_own_sentences(visitor: Visitor, tiny_zip: Path, words: str) -> None:
    visitor.upload(tiny_zip)
    visitor.remove(7)
    visitor.write("text", words)
    visitor.press("prune")
    with pytest.raises(ValueError) as refused:
        SLEBConfig(num_blocks_to_remove=7).num_blocks_to_remove_of(8)
    assert visitor.message() == str(refused.value)
    visitor.remove(2)
    visitor.write("text", "w3 w4")
    visitor.press("prune")
    visitor.page.wait_for_selector("#message >> text=window")
    visitor.write("text", make_text(20_000))
    visitor.press("prune")
    visitor.page.wait_for_selector("#message >> text=this page takes at most")
    assert visitor.page.locator("#result").is_hidden()


def start_long_search(visitor: Visitor, deep_zip: Path) -> None:
    """Start a search that waits for its visitor after some steps, and see those."""
    visitor.upload(deep_zip)
    visitor.remove(LONG)
    visitor.write("text", make_text(600))
    visitor.press("prune")
    visitor.page.wait_for_selector(f"#chart .sleb-plot .sleb-dot >> nth={HELD_AFTER}")


def test_cancel_and_search_again(visitor: Visitor, deep_zip: Path, words: str) -> None:
    start_long_search(visitor, deep_zip)
    assert visitor.page.locator("#prune").is_disabled()
    visitor.press("cancel")
    assert visitor.message() == "Cancelled."
    assert visitor.page.locator("#result").is_hidden()
    visitor.remove(1)
    visitor.write("text", words)
    visitor.press("prune")
    visitor.wait_for_result()


def test_stop_keeps_what_is_found(visitor: Visitor, deep_zip: Path) -> None:
    start_long_search(visitor, deep_zip)
    visitor.press("stop")
    visitor.wait_for_result()
    assert len(visitor.gone()) == HELD_AFTER + 1  # the step that is being measured ends first


def test_one_visitor_after_the_other(visitor: Visitor, browser: Any, deep_zip: Path, tiny_zip: Path) -> None:
    start_long_search(visitor, deep_zip)
    second = Visitor(browser, visitor.page.url)
    second.upload(tiny_zip)
    second.press("check")
    second.page.wait_for_selector("#progress >> text=Waiting until another visitor is served")
    assert second.page.locator("#prune").is_disabled()
    assert second.page.locator("#cancel").is_hidden()
    visitor.press("cancel")
    assert second.message() == "LlamaForCausalLM: 8 of 8 blocks can be removed."
    assert visitor.message() == "Cancelled."
    second.close()


def test_who_leaves_is_forgotten(browser: Any, served: Served, deep_zip: Path) -> None:
    def folders() -> set[Path]:
        return set(served.folder.glob("sleb-space-*"))

    before = folders()
    visitor = Visitor(browser, served.url)
    start_long_search(visitor, deep_zip)
    assert len(folders() - before) == 1
    visitor.close()
    ends = time.monotonic() + 30
    while folders() - before and time.monotonic() < ends:
        time.sleep(0.2)
    assert folders() <= before


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_page(browser: Any, served: Served, tiny_zip: Path, words: str, width: int) -> None:
    visitor = Visitor(browser, served.url, width)
    visitor.upload(tiny_zip)
    visitor.remove(2)
    visitor.write("text", words)
    visitor.press("prune")
    visitor.wait_for_result()
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width
    visitor.close()
