"""Folder in, folder out: what a runtime or a licence needs travels with the weights, byte for byte."""

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from optimum_sleb import HealingRecord, SLEBPruner, save_healed
from optimum_sleb.hub.companions import is_companion
from optimum_sleb.hub.push import push_folder

from ..conftest import make_tokenizer
from ..families import tiny_model
from .local_hub import Commit, Fault, LocalHub, Repository

# The allow-list, tried from both sides. What transformers itself writes is overwritten by that.
TRAVELS = (
    *(
        "LICENSE",
        "LICENSE.txt",
        "LICENSE-APACHE-2.0.md",
        "LICENCE",
        "license.pdf",
        "LLAMA_LICENSE",
        "NOTICE",
        "Notice.txt",
    ),
    *("COPYING", "USE_POLICY.md", "Acceptable_Use_Policy.html", "tokenizer.model", "tokenizer.model.v3"),
    *(
        "tokenizer.model.v11m1",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tekken.json",
        "qwen.tiktoken",
        "vocab.json",
    ),
    *("vocab.txt", "merges.txt", "added_tokens.json", "special_tokens_map.json", "tool_use.jinja"),
    *("additional_chat_templates/rag.jinja", "video_preprocessor_config.json", "processor_config.json"),
)
STAYS = (
    *("LICENSE.py", "LICENSE.bin", "LICENSE.safetensors", "LICENSE.pth", "license.exe", "NOTICE.so", "LICENSE\n.txt"),
    *("pytorch_model.bin", "consolidated.00.pth", "original.gguf", "model-00001-of-00002.safetensors", "model.onnx"),
    *("params.json", "modeling_mine.py", "tokenization_mine.py", "training_args.bin", "optimizer.pt", "README.md"),
    *("notes.txt", ".env", ".gitattributes", "eval_results.json", "vocab.pkl", "evil.model", "tokenizer.model.py"),
    *("original/tokenizer.model", "additional_chat_templates/x.py", "additional_chat_templates/deep/x.jinja"),
    *("sub/LICENSE", "adapter_config.json", "LICENSE ‮txt.exe", "vocab.jsonl", "..jinja"),
)
HOSTILE = (
    "../LICENSE",
    "/etc/LICENSE",
    "LICENSE/../../x",
    "..\\LICENSE",
    "C:\\LICENSE",
    "additional_chat_templates/../x.jinja",
)


def content_of(name: str) -> bytes:
    return f"the bytes of {name}\r\n\0\xff".encode("latin-1", "replace")


def fill(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_bytes(content_of(name))


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("companions") / "dense"
    tiny_model().save_pretrained(folder)
    make_tokenizer(add_bos=False).save_pretrained(folder)
    # vocab.json, merges.txt and the like are read, so that these would be damaged.
    fill(folder, tuple(name for name in (*TRAVELS, *STAYS) if name not in READ))
    return folder


READ = (
    "processor_config.json",
    "video_preprocessor_config.json",
    "added_tokens.json",
    "adapter_config.json",
    "vocab.json",
    "special_tokens_map.json",
    "vocab.txt",
    "merges.txt",
    "tool_use.jinja",
    "additional_chat_templates/rag.jinja",
    "pytorch_model.bin",
    "tekken.json",
)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_travelled(dense: dict[str, bytes], pruned: dict[str, bytes], but: tuple[str, ...] = ()) -> None:
    travelled = {name for name in TRAVELS if name in dense and name not in but}
    assert len(travelled) >= 11
    assert {name: pruned.get(name) for name in travelled} == {name: dense[name] for name in travelled}
    assert {name for name in (*STAYS, *but) if name in pruned} <= {"README.md", ".gitattributes"}


def test_the_list() -> None:
    assert [name for name in TRAVELS if not is_companion(name)] == []
    assert [name for name in (*STAYS, *HOSTILE) if is_companion(name)] == []
    assert not is_companion("LICENSE" + "-a" * 50_000 + ".py")


@pytest.mark.long
def test_remove_and_apply(dense: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(dense)
    pruner.remove([2, 3])
    pruner.save_pretrained(tmp_path / "pruned")
    assert_travelled(files_in(dense), files_in(tmp_path / "pruned"))
    again = SLEBPruner.from_pretrained(dense)
    again.apply(pruner.report, 1)
    again.save_pretrained(tmp_path / "shallower")
    assert_travelled(files_in(dense), files_in(tmp_path / "shallower"))
    # Further, from folder to folder, and onto itself.
    further = SLEBPruner.from_pretrained(tmp_path / "pruned")
    further.remove([1])
    further.save_pretrained(tmp_path / "pruned", overwrite=True)
    assert_travelled(files_in(dense), files_in(tmp_path / "pruned"))
    dense_tokenizer, tokenizer = (AutoTokenizer.from_pretrained(one) for one in (dense, tmp_path / "pruned"))
    assert tokenizer("w3 w9 w5").input_ids == dense_tokenizer("w3 w9 w5").input_ids


@pytest.mark.long
def test_healed(dense: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(dense)
    pruner.remove([2])
    pruner.save_pretrained(tmp_path / "pruned")
    healing = HealingRecord("full fine-tuning", "text.jsonl", steps=1, seconds=1.0)
    save_healed(pruner.model, tmp_path / "healed", parent=tmp_path / "pruned", healing=healing)
    assert_travelled(files_in(dense), files_in(tmp_path / "healed"))


OF_TOKENIZER = tuple(name for name in TRAVELS if re.match("tok|spi|sen|tek|qwen|vocab|mer|add|spec|tool", name))


@pytest.mark.long
def test_files_of_another_tokenizer_stay(dense: Path, tmp_path: Path) -> None:
    for number, change in enumerate(("other", "tokens", "template")):
        tokenizer = make_tokenizer(add_bos=False) if change == "other" else None
        pruner = SLEBPruner.from_pretrained(dense, tokenizer=tokenizer)
        if change == "tokens":
            pruner.tokenizer.add_tokens(["w99"])
        elif change == "template":
            pruner.tokenizer.chat_template = "{{ messages }}"
        pruner.remove([2])
        pruner.save_pretrained(tmp_path / str(number))
        assert_travelled(files_in(dense), files_in(tmp_path / str(number)), but=OF_TOKENIZER)


def test_from_memory(dense: Path, tmp_path: Path) -> None:
    loaded = SLEBPruner.from_pretrained(dense)
    pruner = SLEBPruner(loaded.model, loaded.tokenizer)
    pruner.remove([2])
    pruner.save_pretrained(tmp_path / "pruned")
    assert (tmp_path / "pruned" / "LICENSE").read_bytes() == content_of("LICENSE")
    nowhere = SLEBPruner(tiny_model())
    nowhere.remove([2])
    assert not (nowhere.save_pretrained(tmp_path / "nowhere") / "LICENSE").exists()


def test_chat_templates(dense: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dense, tmp_path / "chats"))
    templates = {"chat_template.jinja": "{{ messages }}\n", "additional_chat_templates/rag.jinja": "{# ü #}{{ rag }}"}
    shutil.rmtree(folder / "additional_chat_templates")
    (folder / "additional_chat_templates").mkdir()
    for name, template in templates.items():
        (folder / name).write_text(template)
    pruner = SLEBPruner.from_pretrained(folder)
    pruner.remove([2])
    saved = files_in(pruner.save_pretrained(tmp_path / "pruned"))
    assert {name: saved[name].decode() for name in templates} == templates


@pytest.mark.long
def test_links(dense: Path, tmp_path: Path) -> None:
    """Those that lead out of the folder are left, and told; but a snapshot of the Hub's cache is made of them."""
    secret = tmp_path / "secret"
    secret.write_text("key")
    folder = Path(shutil.copytree(dense, tmp_path / "linked"))
    (folder / "LICENSE").unlink()
    (folder / "LICENSE").symlink_to(secret)
    (folder / "NOTICE").unlink()
    (folder / "NOTICE").symlink_to("LICENSE.txt")
    (folder / "COPYING").unlink()
    (folder / "COPYING").symlink_to("nowhere")
    os.mkfifo(folder / "LICENSE-PIPE")
    pruner = SLEBPruner.from_pretrained(folder)
    pruner.remove([2])
    with pytest.warns(UserWarning, match=r"Not all files .*: LICENSE is a link that leads out of the folder\."):
        pruner.save_pretrained(tmp_path / "pruned")
    saved = files_in(tmp_path / "pruned")
    assert saved["NOTICE"] == content_of("LICENSE.txt")
    assert not (tmp_path / "pruned" / "NOTICE").is_symlink()
    assert not {"LICENSE", "COPYING", "LICENSE-PIPE"} & set(saved)

    snapshot = tmp_path / "models--me--dense" / "snapshots" / "abc"
    blobs = snapshot.parents[1] / "blobs"
    shutil.copytree(dense, snapshot)
    blobs.mkdir()
    (snapshot / "LICENSE").rename(blobs / "123")
    (snapshot / "LICENSE").symlink_to("../../blobs/123")
    pruner = SLEBPruner.from_pretrained(snapshot)
    pruner.remove([2])
    assert_travelled(files_in(dense), files_in(pruner.save_pretrained(tmp_path / "of-a-snapshot")))


def test_large_files_stay(dense: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dense, tmp_path / "large"))
    os.truncate(folder / "LICENSE", 100 * 10**9)
    pruner = SLEBPruner.from_pretrained(folder)
    pruner.remove([2])
    with pytest.warns(UserWarning, match="LICENSE is larger than 64 MB"):
        pruner.save_pretrained(tmp_path / "pruned")


def test_a_folder_that_went_away(dense: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(shutil.copytree(dense, tmp_path / "gone"))
    shutil.rmtree(tmp_path / "gone")
    pruner.remove([2])
    with pytest.warns(UserWarning, match="the folder is no longer there"):
        pruner.save_pretrained(tmp_path / "pruned")


@pytest.mark.long
def test_from_the_hub_and_to_it(hub: LocalHub, dense: Path, tmp_path: Path) -> None:
    files = files_in(dense)
    first = Commit(files)
    hub.repositories["me/dense"] = Repository(False, {"main": [first]})
    pruner = SLEBPruner.from_pretrained("me/dense")
    pruner.remove([2])
    hub.repositories["me/dense"].branches["main"].append(Commit(files | {"LICENSE": b"another one"}))
    pruned = pruner.save_pretrained(tmp_path / "pruned")
    assert_travelled(files, files_in(pruned))  # those of the commit that was loaded
    push_folder(pruned, "me/pruned")
    assert_travelled(files, hub.files("me/pruned"))
    asked = " ".join(hub.requests)
    assert "params.json" not in asked
    assert "consolidated" not in asked


@pytest.mark.long
def test_hostile_names_on_the_hub(hub: LocalHub, dense: Path, tmp_path: Path) -> None:
    files = files_in(dense) | dict.fromkeys(HOSTILE, b"gotcha")
    hub.repositories["me/dense"] = Repository(False, {"main": [Commit(files)]})
    pruner = SLEBPruner.from_pretrained("me/dense")
    pruner.remove([2])
    pruner.save_pretrained(tmp_path / "a" / "pruned")
    assert os.listdir(tmp_path / "a") == ["pruned"]
    assert b"gotcha" not in files_in(tmp_path / "a").values()


@pytest.mark.long
@pytest.mark.parametrize("fault", [503, 401, None])
def test_a_hub_that_cannot_be_asked(hub: LocalHub, dense: Path, tmp_path: Path, fault: int | None) -> None:
    hub.repositories["me/dense"] = Repository(False, {"main": [Commit(files_in(dense))]})
    pruner = SLEBPruner.from_pretrained("me/dense")
    pruner.remove([2])
    hub.faults.append(Fault("/api/models/me/dense", fault))
    with pytest.warns(UserWarning, match="of me/dense were saved .*: the Hub could not be asked") as told:
        pruner.save_pretrained(tmp_path / "pruned")
    assert "hf_" not in str(told[0].message)
    assert (tmp_path / "pruned" / "model.safetensors").is_file()
