"""From a folder to the Hub and back, against a Hub on this machine."""

import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM

from optimum_sleb import ConfigError, PushError, SLEBConfig, SLEBPruner
from optimum_sleb.hub.card_update import add_to_report_and_card
from optimum_sleb.hub.model_files import check_model_folder
from optimum_sleb.hub.push import push_folder
from optimum_sleb.report.records import EvaluationRecord

from .. import mishaps
from ..conftest import make_text, make_tokenizer
from ..families import random_ids, tiny_model
from .local_hub import TOKEN, Commit, Fault, LocalHub, Repository

REPO = "me/small"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned model, as it was saved."""
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, window_length=20), calibration=[make_text(400)])
    return pruner.save_pretrained(tmp_path_factory.mktemp("pushed") / "pruned")


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def logits_of(place: str | Path, **kwargs: str) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(place, **kwargs).eval()
    with torch.no_grad():
        return model(random_ids(1, 12)).logits


@pytest.mark.long
def test_what_is_pushed_is_the_folder_and_loads(hub: LocalHub, folder: Path) -> None:
    address = push_folder(folder, REPO)
    commits = hub.repositories[REPO].branches["main"]
    assert len(commits) == 2, "one commit, after the Hub's own first one"
    assert address == f"{hub.url}/{REPO}/commit/{commits[-1].oid}"
    assert commits[-1].message == "SLEB: 2 decoder blocks removed"
    pushed, local = dict(hub.files(REPO)), content_of(folder)
    assert pushed.pop(".gitattributes") == b""
    card, local_card = pushed.pop("README.md").decode(), local.pop("README.md").decode()
    assert pushed == local
    assert {"model.safetensors", "sleb_config.json", "sleb_report.json", "sleb_loss.png"} <= set(pushed)
    # The card names the repository where the local one names the folder, and is the same otherwise.
    assert 'AutoModelForCausalLM.from_pretrained("me/small")' in card
    assert 'AutoTokenizer.from_pretrained("me/small")' in card
    assert card.replace('"me/small"', '"pruned"').replace("# small", "# pruned") == local_card.replace(
        "- name: pruned", "- name: small"
    )
    assert hub.tokens - {None} == {f"Bearer {TOKEN}"}
    assert logits_of(REPO).equal(logits_of(folder))


@pytest.mark.long
def test_the_users_name_is_added(hub: LocalHub, folder: Path) -> None:
    push_folder(folder, "small")
    assert b'from_pretrained("me/small")' in hub.files("me/small")["README.md"]


@pytest.mark.long
def test_nothing_of_an_earlier_model_is_left(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    older = SLEBPruner(tiny_model(seed=5))
    older.remove([3])
    sharded = older.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    assert len(list(sharded.glob("*-of-*.safetensors"))) > 1
    push_folder(sharded, REPO)
    assert logits_of(REPO).equal(logits_of(sharded))
    hub.files(REPO)["notes/diary.txt"] = b"kept"

    push_folder(folder, REPO)  # one file of weights over many
    assert {name for name in hub.files(REPO) if "safetensors" in name} == {"model.safetensors"}
    assert hub.files(REPO)["notes/diary.txt"] == b"kept"
    assert logits_of(REPO).equal(logits_of(folder))

    push_folder(sharded, REPO)  # and many over one
    assert "model.safetensors" not in hub.files(REPO)
    # The older model was not found by a search: it must not keep the other one's recipe and picture.
    assert not {"sleb_config.json", "sleb_loss.png"} & set(hub.files(REPO))
    assert logits_of(REPO).equal(logits_of(sharded))
    assert len(hub.repositories[REPO].branches["main"]) == 4


@pytest.mark.long
def test_private(hub: LocalHub, folder: Path) -> None:
    push_folder(folder, REPO, private=True)
    assert hub.repositories[REPO].private
    push_folder(folder, REPO)
    assert hub.repositories[REPO].private
    with pytest.raises(PushError, match="me/small exists and is private, against private=False"):
        push_folder(folder, REPO, private=False)


def test_a_private_push_never_lands_in_a_public_repository(hub: LocalHub, folder: Path) -> None:
    push_folder(folder, REPO)
    before = hub.files(REPO)
    with pytest.raises(PushError, match="me/small exists and is public, against private=True; change that"):
        push_folder(folder, REPO, private=True)
    assert hub.files(REPO) is before


def test_revision(hub: LocalHub, folder: Path) -> None:
    push_folder(folder, REPO, revision="twenty percent/v1")
    assert set(hub.files(REPO)) == {".gitattributes"}
    assert "model.safetensors" in hub.files(REPO, "twenty percent/v1")
    push_folder(folder, REPO, revision="v2", commit_message="second")
    assert hub.repositories[REPO].branches["v2"][-1].message == "second"
    assert logits_of(REPO, revision="v2").equal(logits_of(folder))


def test_create_pr(hub: LocalHub, folder: Path) -> None:
    address = push_folder(folder, REPO, create_pr=True)
    assert address == f"{hub.url}/{REPO}/discussions/1"
    assert set(hub.files(REPO)) == {".gitattributes"}
    assert logits_of(REPO, revision="refs/pr/1").equal(logits_of(folder))


def test_what_was_written_into_the_card_by_hand_stays(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "moved elsewhere"
    copy.mkdir()
    for name, content in content_of(folder).items():
        (copy / name).write_bytes(content)
    with (copy / "README.md").open("a") as card:
        card.write("\n## Thanks\n\nTo everyone.\n")
    push_folder(copy, REPO)
    pushed = ModelCard(hub.files(REPO)["README.md"].decode())
    assert pushed.text.endswith("## Thanks\n\nTo everyone.\n")
    assert 'from_pretrained("me/small")' in pushed.text


FAULTS = [
    # where it strikes, what the Hub answers (None: the connection drops), what a person reads
    ("/api/repos/create", 401, "the Hub answered 401 .*; log in with `hf auth login`, or pass a valid token"),
    ("/api/repos/create", 403, "the Hub answered 403 .*; use a token that may write there"),
    ("/api/repos/create", 500, "the Hub answered 500 .*; try again later"),
    ("/api/repos/create", None, "the connection was lost .*; try again"),
    ("/api/validate-yaml", 500, "the Hub answered 500"),
    ("/preupload/", 429, "the Hub answered 429 .*; wait a few minutes and try again"),
    ("/preupload/", None, "the connection was lost .*; try again"),
    ("/commit/", 401, "the Hub answered 401"),
    ("/commit/", 403, "the Hub answered 403"),
    ("/commit/", 409, "the Hub answered 409 .*; someone else may be writing there; try again"),
    ("/commit/", 412, "the Hub answered 412 .*; someone else pushed in the meantime"),
    ("/commit/", 429, "the Hub answered 429"),
    ("/commit/", 500, "the Hub answered 500"),
    ("/commit/", None, "the connection was lost"),
]


@pytest.mark.long
@pytest.mark.reliability(
    "the Hub answers 401, 403, 409, 412, 429 or 500, or the connection drops, at every stage of a push",
    lost="nothing: the folder is as it was, the second try succeeds",
)
@pytest.mark.parametrize(("where", "status", "message"), FAULTS)
def test_faults(
    where: str,
    status: int | None,
    message: str,
    hub: LocalHub,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    before = content_of(folder)
    # A server that repeats the token, as a proxy's error page may.
    hub.faults.append(Fault(where, status, message=f"no luck with Bearer {TOKEN}"))
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(PushError, match=f"^me/small was not pushed: {message}") as error,
    ):
        push_folder(folder, REPO, token=TOKEN)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("Nothing changed on this machine; the push can be repeated.")
    assert content_of(folder) == before
    hub.faults.clear()
    push_folder(folder, REPO, token=TOKEN)  # the second try
    assert logits_of(REPO).equal(logits_of(folder))
    everything = "".join(traceback.format_exception(error.value)) + caplog.text + "".join(capfd.readouterr())
    assert TOKEN not in everything
    assert error.value.__context__ is None
    assert all(TOKEN.encode() not in content for content in hub.files(REPO).values())


def test_a_moment_of_trouble_is_waited_out(hub: LocalHub, folder: Path) -> None:
    hub.faults.append(Fault("/preupload/", 500, times=2))
    push_folder(folder, REPO)
    assert "model.safetensors" in hub.files(REPO)


@mishaps.token_at_hand
def test_a_token_that_cannot_be_sent_is_not_told(hub: LocalHub, folder: Path) -> None:
    with pytest.raises(PushError, match="was not pushed") as error:
        push_folder(folder, REPO, token=f"{TOKEN}\n")
    assert TOKEN not in str(error.value)


def test_offline(folder: Path) -> None:
    with pytest.raises(PushError, match="told to stay offline; unset HF_HUB_OFFLINE"):
        push_folder(folder, REPO, token=TOKEN)


@pytest.mark.parametrize("name", ["a/b/c", "me/..", "me/with space", ""])
def test_a_bad_name(name: str, hub: LocalHub, folder: Path) -> None:
    with pytest.raises(PushError, match="was not pushed: "):
        push_folder(folder, name)
    assert hub.repositories == {}


class TestPruner:
    @pytest.fixture
    def pruner(self) -> SLEBPruner:
        pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
        pruner.remove([2, 3])
        return pruner

    @pytest.mark.filterwarnings("ignore:An earlier process")
    def test_the_saved_folder_is_pushed(self, pruner: SLEBPruner, hub: LocalHub, tmp_path: Path) -> None:
        saved = pruner.save_pretrained(tmp_path / "saved")
        mine = {
            "training.log",
            ".sleb_update.new/x",
            "checkpoint-5/adapter_config.json",
            ".cache/x",
            "train.py",
            "notes.txt",
        }
        for name in {*mine, "LICENSE", "additional_chat_templates/tools.jinja"}:
            (saved / name).parent.mkdir(exist_ok=True)
            (saved / name).write_text("mine")
        assert pruner.push_to_hub(REPO).startswith(hub.url)
        assert hub.files(REPO).keys().isdisjoint(mine)
        assert {"LICENSE", "additional_chat_templates/tools.jinja", "tokenizer.json"} <= hub.files(REPO).keys()
        assert pruner.model.name_or_path == REPO

    def test_without_a_saved_folder(self, pruner: SLEBPruner, hub: LocalHub) -> None:
        pruner.push_to_hub(REPO, revision="v1")
        assert pruner.model.name_or_path == "", "the repository's main branch is another model"
        files = hub.files(REPO, "v1")
        assert b'from_pretrained("me/small")' in files["README.md"]
        assert files["sleb_report.json"]

    @pytest.mark.long
    def test_after_another_cut_the_old_folder_is_not_pushed(
        self, pruner: SLEBPruner, hub: LocalHub, tmp_path: Path
    ) -> None:
        pruner.save_pretrained(tmp_path / "saved")
        pruner.remove([1])
        pruner.push_to_hub(REPO)
        assert AutoModelForCausalLM.from_pretrained(REPO).config.num_hidden_layers == 3

    def test_a_model_that_was_changed_since_is_refused(
        self, pruner: SLEBPruner, hub: LocalHub, tmp_path: Path
    ) -> None:
        pruner.save_pretrained(tmp_path / "saved")
        with torch.no_grad():
            pruner.model.model.layers[0].mlp.up_proj.weight.add_(0.1)
        with pytest.raises(PushError, match="saved no longer holds the model in memory"):
            pruner.push_to_hub(REPO)
        assert hub.repositories == {}


@pytest.mark.long
def test_from_the_hub_to_the_hub(hub: LocalHub, model_folder: Path) -> None:
    dense = {path.name: path.read_bytes() for path in model_folder.iterdir()}
    commit = Commit({**dense, "README.md": b"---\nlicense: mit\nlanguage: en\n---\n"})
    hub.repositories["you/dense"] = Repository(False, {"main": [commit]})
    pruner = SLEBPruner.from_pretrained("you/dense", revision=commit.oid)
    pruner.remove([2, 4])
    pruner.push_to_hub(REPO)
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert card.data.to_dict() == {
        "base_model": "you/dense",
        "base_model_relation": "finetune",
        "language": "en",
        "library_name": "transformers",
        "license": "mit",
        "pipeline_tag": "text-generation",
        "tags": ["sleb", "pruned", "depth-pruning"],
    }
    command = f"optimum-cli sleb remove --model you/dense --revision {commit.oid} --blocks 2 4 --output small"
    assert command in card.text
    again = SLEBPruner.from_pretrained(REPO)
    assert again.report.removed_blocks == (2, 4)
    assert again.tokenizer is not None
    assert again.model.config.sleb["base_model"] == "you/dense"


@pytest.mark.long
def test_the_card_of_a_local_dense_model_says_what_is_given(
    hub: LocalHub, model_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pruner = SLEBPruner.from_pretrained(model_folder)
    pruner.remove([2])
    pruner.save_pretrained(tmp_path / "pruned", license="mit")
    with pytest.raises(ConfigError, match="is no identifier of the Hub"):
        pruner.push_to_hub(REPO, license="the MIT one")
    assert REPO not in hub.repositories
    pruner.push_to_hub(REPO)
    assert "the card names no base_model and no language; give them when" in caplog.text
    assert "(base_model=, language=; --base-model, --language)" in caplog.text
    caplog.clear()
    pruner.push_to_hub(REPO, base_model="you/dense", language="en")
    assert "names no" not in caplog.text
    card = ModelCard(hub.files(REPO)["README.md"].decode())
    assert (card.data.license, card.data.base_model, card.data.language) == ("mit", "you/dense", ["en"])
    assert "[you/dense](https://huggingface.co/you/dense) with 1 of its 6 decoder blocks removed" in card.text

    # What was said once is kept: by a later run, and where measurements are added.
    again = SLEBPruner.from_pretrained(tmp_path / "pruned")
    again.remove([3])
    again.save_pretrained(tmp_path / "again", base_model="you/dense")
    add_to_report_and_card(tmp_path / "again", [EvaluationRecord("perplexity", "wikitext2", "8 windows", 33.25)])
    kept = ModelCard.load(tmp_path / "again" / "README.md").data
    assert (kept.license, kept.base_model) == ("mit", "you/dense")


class TestCompleteness:
    @pytest.fixture
    def copy(self, folder: Path, tmp_path: Path) -> Path:
        copy = tmp_path / "copy"
        copy.mkdir()
        for name, content in content_of(folder).items():
            (copy / name).write_bytes(content)
        return copy

    def test_a_whole_folder(self, copy: Path) -> None:
        assert check_model_folder(copy).removed_blocks

    @pytest.mark.parametrize("name", ["config.json", "sleb_report.json", "sleb_loss.png", "README.md"])
    def test_a_missing_file(self, name: str, copy: Path) -> None:
        (copy / name).unlink()
        with pytest.raises(PushError, match=f"holds no {name}, so it is not a complete folder of optimum_sleb"):
            push_folder(copy, REPO)

    def test_weights_that_are_cut_short(self, copy: Path) -> None:
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(PushError, match="are not those that its report tells of"):
            push_folder(copy, REPO)

    def test_weights_that_were_trained_since(self, copy: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(copy)
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.add_(0.1)
        model.save_pretrained(copy)
        with pytest.raises(PushError, match=r"push a fine-tuned one with its own push_to_hub\(\)"):
            push_folder(copy, REPO)

    def test_the_config_of_another_model(self, copy: Path) -> None:
        text = (copy / "config.json").read_text()
        (copy / "config.json").write_text(text.replace('"sleb"', '"other"'))
        with pytest.raises(PushError, match="tells of no removed blocks"):
            push_folder(copy, REPO)
        (copy / "config.json").write_text("[]")
        with pytest.raises(Exception, match="is not a JSON object"):
            push_folder(copy, REPO)


@pytest.mark.long
def test_tags_and_description(hub: LocalHub, folder: Path) -> None:
    before = (folder / "README.md").read_bytes()
    push_folder(folder, REPO, tags=["mine", "sleb", "mine"], commit_message="short", commit_description="long\nstory")
    commit = hub.repositories[REPO].branches["main"][-1]
    assert (commit.message, commit.description) == ("short", "long\nstory")
    card = ModelCard(commit.files["README.md"].decode())
    assert card.data.tags == ["sleb", "pruned", "depth-pruning", "mine"]
    assert (folder / "README.md").read_bytes() == before
    assert ModelCard.load(folder / "README.md").text.replace('"pruned"', f'"{REPO}"') == card.text.replace(
        "# small", "# pruned"
    )


@pytest.mark.parametrize("tags", ["mine", [1], [""], ["a" * 200], [None]])
def test_tags_that_are_none(hub: LocalHub, folder: Path, tags: Any) -> None:
    with pytest.raises(PushError, match=r"tags must be a list of short texts, such as \['my-model'\]; got"):
        push_folder(folder, REPO, tags=tags)
    assert hub.requests == []


@pytest.mark.long
def test_save_and_push_in_one(hub: LocalHub, tmp_path: Path) -> None:
    pruner = SLEBPruner(tiny_model(), make_tokenizer(add_bos=False))
    pruner.remove([2])
    pruner.save_pretrained(tmp_path / "named", push_to_hub=True, private=True, tags=["mine"])
    assert hub.repositories["me/named"].private
    assert b"- mine" in hub.files("me/named")["README.md"]
    pruner.save_pretrained(tmp_path / "other", push_to_hub=True, repo_id=REPO, commit_message="said")
    assert hub.repositories[REPO].branches["main"][-1].message == "said"
    assert logits_of(REPO).equal(logits_of(tmp_path / "other"))


WRONG_PUSHES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"repo_id": REPO}, ConfigError, "repo_id belongs to a push; set push_to_hub=True"),
    ({"tags": ["a"]}, ConfigError, "tags belongs to a push"),
    ({"push_to_hub": True, "tag": ["a"]}, ConfigError, "no argument 'tag'; known ones of a push: repo_id, private"),
    ({"push_to_hub": True, "tags": "a"}, PushError, "tags must be a list"),
    ({"push_to_hub": True, "repo_id": "a b"}, PushError, "'a b' cannot be the name of a repository"),
    ({"push_to_hub": True, "repo_id": "you/a"}, PushError, "me cannot push to you/a"),
]


@pytest.mark.parametrize(("arguments", "kind", "sentence"), WRONG_PUSHES)
def test_a_push_that_cannot_be_is_refused_before_anything_is_written(
    hub: LocalHub, tmp_path: Path, arguments: dict[str, Any], kind: type[Exception], sentence: str
) -> None:
    pruner = SLEBPruner(tiny_model())
    pruner.remove([2])
    with pytest.raises(kind, match=sentence):
        pruner.save_pretrained(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
    assert hub.repositories == {}
