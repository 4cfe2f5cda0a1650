"""The story from load to save, and what is refused on the way, with the words that a person reads."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    LlamaForSequenceClassification,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from optimum_sleb import (
    ConfigError,
    ModelNotFoundError,
    NonFiniteLossError,
    OutputFolderError,
    PruningReport,
    ReportError,
    SearchCallback,
    SLEBConfig,
    SLEBError,
    SLEBPruner,
    UnsupportedModelError,
    __version__,
)
from optimum_sleb.report.folder import JOURNAL_FILE_NAME

from . import mishaps
from .conftest import make_text
from .families import NUM_BLOCKS, random_ids, randomise, tiny_model
from .hub.local_hub import LocalHub

TWO_BLOCKS = SLEBConfig(num_blocks_to_remove=2, window_length=20)


@pytest.fixture
def pruner(llama: PreTrainedModel, tokenizer) -> SLEBPruner:
    return SLEBPruner(llama, tokenizer)


@pytest.mark.long
def test_keywords_make_the_recipe(model_folder: Path, text: str) -> None:
    pruners = [SLEBPruner.from_pretrained(model_folder) for _ in range(3)]
    pruners[0].prune(TWO_BLOCKS, calibration=[text])
    pruners[1].prune(num_blocks_to_remove=2, window_length=20, calibration=[text])
    pruners[2].prune(
        SLEBConfig(sparsity=0.5, window_length=20, seed=4), num_blocks_to_remove=2, seed=0, calibration=[text]
    )
    assert len({pruner.report.removed_blocks for pruner in pruners}) == 1
    assert len({pruner.report.recipe for pruner in pruners}) == 1
    assert pruners[0].report.steps[0].candidate_losses == pruners[2].report.steps[0].candidate_losses


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "exactly one of sparsity, num_blocks_to_remove"),
        ({"num_blocks": 2}, "no argument 'num_blocks', .*; did you mean num_blocks_to_remove"),
        ({"sparsity": 0.2, "calibraton": ["a"]}, "no argument 'calibraton', .*; did you mean calibration"),
        ({"sparsity": 2.0}, "sparsity must lie strictly between 0 and 1"),
        ({"config": {"sparsity": 0.2}}, "must be a SLEBConfig, or keywords"),
    ],
)
def test_keywords_that_make_none(pruner: SLEBPruner, arguments: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        pruner.prune(**arguments)
    assert len(pruner.blocks) == NUM_BLOCKS


def test_one_line(pruner: SLEBPruner, model_folder: Path) -> None:
    assert repr(pruner) == "SLEBPruner(LlamaForCausalLM, 6 of 6 blocks)"
    pruner = SLEBPruner.from_pretrained(model_folder)
    pruner.remove([2, 3])
    assert repr(pruner) == f"SLEBPruner(LlamaForCausalLM of {model_folder}, 4 of 6 blocks)"


@pytest.mark.long
def test_prune_save_reload(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(model_folder)
    model = pruner.prune(SLEBConfig(sparsity=0.3, dataset=str(text_file), window_length=20))
    assert model is pruner.model
    assert model.config.num_hidden_layers == 4
    folder = pruner.save_pretrained(tmp_path / "pruned")

    assert {path.name for path in folder.iterdir()} >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "sleb_config.json",
        "sleb_report.json",
        "README.md",
    }
    reloaded = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("w3 w4 w5 w6", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(reloaded(ids).logits, model(ids).logits)
    assert SLEBConfig.from_pretrained(folder) == SLEBConfig(sparsity=0.3, dataset=str(text_file), window_length=20)
    assert PruningReport.load(folder) == pruner.report


def test_report_holds_what_happened(pruner: SLEBPruner) -> None:
    pruner.prune(TWO_BLOCKS, calibration=[make_text(100)])
    report = pruner.report
    assert len(report.steps) == 2
    for step in report.steps:
        assert step.loss == min(step.candidate_losses.values())
    assert set(report.steps[0].candidate_losses) == {1, 2, 3, 4}
    assert set(report.steps[1].candidate_losses) == {1, 2, 3, 4} - {report.steps[0].block}
    assert report.recipe.dataset == report.calibration.source == "a list of 1 texts"
    assert report.calibration.num_windows == 5
    assert report.calibration.num_tokens == 100
    assert report.parameters_after < report.parameters_before
    assert report.perplexity_after == pytest.approx(math.exp(report.steps[1].loss / 100))
    assert f"removed, in order: {report.steps[0].block} {report.steps[1].block}" in report.summary()


@pytest.mark.long
def test_reference_and_exact_search_decide_alike(text: str, tokenizer) -> None:
    reports = []
    for search in ("exact", "reference"):
        pruner = SLEBPruner(tiny_model(), tokenizer)
        pruner.prune(SLEBConfig(num_blocks_to_remove=3, window_length=20, search=search), calibration=[text])
        reports.append(pruner.report)
    exact, reference = reports
    assert exact.removed_blocks == reference.removed_blocks
    for fast, slow in zip(exact.steps, reference.steps, strict=True):
        assert fast.candidate_losses == pytest.approx(slow.candidate_losses, rel=1e-5)


@pytest.mark.long
def test_pruning_goes_on_from_a_saved_folder(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    recipe = SLEBConfig(num_blocks_to_remove=1, dataset=str(text_file), window_length=20)
    first = SLEBPruner.from_pretrained(model_folder)
    first.prune(recipe)
    first.save_pretrained(tmp_path / "once")
    second = SLEBPruner.from_pretrained(tmp_path / "once")
    assert second.report == first.report
    second.prune(recipe)
    second.save_pretrained(tmp_path / "twice")

    at_once = SLEBPruner.from_pretrained(model_folder)
    at_once.prune(SLEBConfig(num_blocks_to_remove=2, dataset=str(text_file), window_length=20))
    report = PruningReport.load(tmp_path / "twice")
    # Two runs, one numbering: that of the dense model.
    assert report.removed_blocks == at_once.report.removed_blocks
    assert report.blocks_after == at_once.report.blocks_after
    assert report.original_num_blocks == NUM_BLOCKS
    assert report.base_model == str(model_folder)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "twice").config.sleb["removed_blocks"] == list(
        report.removed_blocks
    )


def test_original_numbers_survive_without_the_report(pruner: SLEBPruner, tmp_path: Path) -> None:
    pruner.remove([1, 3])
    pruner.model.save_pretrained(tmp_path / "by a Trainer")
    again = SLEBPruner.from_pretrained(tmp_path / "by a Trainer", tokenizer=pruner.tokenizer)
    assert again.blocks == (0, 2, 4, 5)


def own_tokens(model: PreTrainedModel) -> torch.Tensor:
    """Tokens that the model made up itself, so that it loses by every removal."""
    torch.manual_seed(0)
    return model.generate(random_ids(4, 1), max_new_tokens=40, min_new_tokens=40, do_sample=True, top_k=0)


@pytest.mark.long
def test_budget_stops_before_it_is_broken() -> None:
    tokens = own_tokens(tiny_model())
    free = SLEBPruner(tiny_model())
    free.prune(SLEBConfig(num_blocks_to_remove=4), calibration=tokens)
    report = free.report
    curve = [report.steps[index].loss for index in range(4)]
    allowed = torch.tensor((curve[1] + curve[2]) / 2 - report.search.loss_before) / report.calibration.num_tokens
    assert sorted(curve) == curve
    budget = SLEBPruner(tiny_model())
    budget.prune(SLEBConfig(max_perplexity_increase=allowed.exp().item() - 1), calibration=tokens)
    assert budget.report.removed_blocks == report.removed_blocks[:2]


@pytest.mark.long
def test_budget_that_allows_nothing(pruner: SLEBPruner) -> None:
    tokens = own_tokens(pruner.model)
    with pytest.raises(ConfigError, match="No block can be removed within max_perplexity_increase=1e-09"):
        pruner.prune(SLEBConfig(max_perplexity_increase=1e-9), calibration=tokens)
    assert pruner.model.config.num_hidden_layers == NUM_BLOCKS


@pytest.mark.long
def test_one_search_serves_every_depth(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    deep = SLEBPruner.from_pretrained(model_folder)
    deep.prune(SLEBConfig(num_blocks_to_remove=3, dataset=str(text_file), window_length=20))
    deep.save_pretrained(tmp_path / "deep")
    shallow = SLEBPruner.from_pretrained(model_folder)
    shallow.prune(SLEBConfig(num_blocks_to_remove=2, dataset=str(text_file), window_length=20))

    cut = SLEBPruner.from_pretrained(model_folder)
    cut.apply(PruningReport.load(tmp_path / "deep"), num_removed=2)
    cut.save_pretrained(tmp_path / "cut")

    assert cut.report.removed_blocks == shallow.report.removed_blocks
    assert cut.report.parameters_after == shallow.report.parameters_after
    ids = random_ids(1, 10)
    with torch.no_grad():
        torch.testing.assert_close(cut.model(ids).logits, shallow.model(ids).logits)


@pytest.mark.long
def test_report_of_another_model_is_refused(pruner: SLEBPruner, text: str, tokenizer) -> None:
    pruner.prune(TWO_BLOCKS, calibration=[text])
    with pytest.raises(ReportError, match="The report is of a LlamaForCausalLM with 6 blocks and .* GPT2LMHeadModel"):
        SLEBPruner(tiny_model("gpt2"), tokenizer).apply(pruner.report)


@pytest.mark.long
def test_half_precision_on_a_cpu_is_searched_in_float32_and_comes_back_untouched(text: str, tokenizer) -> None:
    model = tiny_model(dtype=torch.bfloat16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruner = SLEBPruner(model, tokenizer)
    pruner.prune(TWO_BLOCKS, calibration=[text])
    assert pruner.report.search.dtype == "float32"
    assert model.dtype == torch.bfloat16
    kept = [block for block in range(NUM_BLOCKS) if block not in pruner.report.removed_blocks]
    for new, old in enumerate(kept):
        name = "mlp.down_proj.weight"
        assert model.state_dict()[f"model.layers.{new}.{name}"].equal(before[f"model.layers.{old}.{name}"])


@pytest.mark.long
def test_model_keeps_its_flags_and_forgets_its_dense_name(model_folder: Path, text_file: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(model_folder)
    pruner.model.train()
    pruner.model.config.use_cache = True
    model = pruner.prune(SLEBConfig(num_blocks_to_remove=1, dataset=str(text_file), window_length=20))
    assert model.training
    assert model.config.use_cache
    # An adapter trained on it now would otherwise name the dense model as its base.
    assert model.name_or_path == model.config._name_or_path == ""
    assert {"sleb", "pruned", "depth-pruning"} <= set(model.model_tags)
    pruner.save_pretrained(tmp_path / "pruned")
    assert model.name_or_path == str(tmp_path / "pruned")


@pytest.mark.long
def test_provenance_outlives_the_cards_of_others(hub: LocalHub, model_folder: Path, tmp_path: Path) -> None:
    """A Trainer and `push_to_hub` write cards of their own: what the model itself carries is what they keep."""
    pruner = SLEBPruner.from_pretrained(model_folder)
    pruner.remove([2, 4])
    saved = pruner.save_pretrained(tmp_path / "pruned")

    again = AutoModelForCausalLM.from_pretrained(saved)
    assert again.config.sleb == {
        "original_num_blocks": NUM_BLOCKS,
        "removed_blocks": [2, 4],
        "base_model": None,
        "version": __version__,
    }
    pruner.model.push_to_hub("me/by-transformers")
    card = ModelCard(hub.files("me/by-transformers")["README.md"].decode())
    assert {"sleb", "pruned", "depth-pruning"} <= set(card.data.tags)

    arguments = TrainingArguments(output_dir=str(tmp_path / "healed"), hub_model_id="me/healed", report_to="none")
    Trainer(pruner.model, arguments).push_to_hub()
    card = ModelCard(hub.files("me/healed")["README.md"].decode())
    assert {"sleb", "pruned", "depth-pruning"} <= set(card.data.tags)
    assert card.data.base_model is None, "neither the dense model nor a folder of this machine"
    assert AutoModelForCausalLM.from_pretrained("me/healed").config.sleb["removed_blocks"] == [2, 4]
    # A model that is loaded from the Hub carries on from there.
    assert SLEBPruner.from_pretrained("me/by-transformers", tokenizer=pruner.tokenizer).blocks == (0, 1, 3, 5)


def test_the_report_says_which_weights_they_were(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_folder.parent)
    pruner = SLEBPruner.from_pretrained(model_folder.name, dtype=torch.bfloat16, device_map="cpu")
    pruner.remove([2])
    report = pruner.report
    assert report.base_model == str(model_folder), "a relative path could be taken for a name on the Hub"
    assert report.loading == {"dtype": "bfloat16"}
    assert report.weight_bytes_before == 2 * report.parameters_before
    assert report.weight_bytes_after == 2 * report.parameters_after


@pytest.mark.long
def test_an_overwritten_folder_keeps_no_records_of_the_old_model(
    model_folder: Path, text_file: Path, tmp_path: Path
) -> None:
    pruner = SLEBPruner.from_pretrained(model_folder)
    pruner.prune(SLEBConfig(num_blocks_to_remove=1, dataset=str(text_file), window_length=20))
    out = pruner.save_pretrained(tmp_path / "out")
    assert {"sleb_config.json", "sleb_loss.png"} <= {path.name for path in out.iterdir()}
    assert pruner.report == PruningReport.load(out)
    assert pruner.report.size_on_disk == (out / "model.safetensors").stat().st_size
    assert 0 <= pruner.report.size_on_disk - pruner.report.weight_bytes_after < 10_000, "the header of the file"
    by_order = SLEBPruner.from_pretrained(model_folder)
    by_order.remove([2])
    by_order.save_pretrained(out, overwrite=True)
    assert not {"sleb_config.json", "sleb_loss.png"} & {path.name for path in out.iterdir()}


# Arguments, and what the sentence tells.
JUDGED = {
    "a class for a callback": (
        {"callbacks": [SearchCallback]},
        "A callback of a search must be a SearchCallback object",
    ),
    "one callback alone": ({"callbacks": SearchCallback()}, "callbacks must be a list of SearchCallback objects"),
    "a number for callbacks": ({"callbacks": 3}, "callbacks must be a list of SearchCallback objects"),
    "no criterion": ({"criterion": "nowhere:f"}, "cannot be imported"),
    "a number for a criterion": ({"criterion": 3}, "criterion must be a function"),
    "no service": ({"report_to": "mlflow"}, "A search cannot report_to 'mlflow'"),
    "no device": ({"device": "gpu"}, "There is no device 'gpu'"),
    "no way to offload": ({"offload": "disk"}, "offload must be one of auto, cpu, no"),
    "a reference block by block": ({"search": "reference", "device": "cpu", "offload": "cpu"}, "use search='exact'"),
    "no block of that number": ({"candidate_blocks": [2, 99]}, "99"),
    "too many blocks": ({"num_blocks_to_remove": 6}, "num_blocks_to_remove=6"),
    "a journal nowhere": ({"resume": True}, "say with progress_dir where it is"),
    "no journal": ({"resume": True, "progress_dir": "empty"}, "There is no journal in"),
    "a journal that is in the way": ({"progress_dir": "full"}, "holds the journal of an earlier run"),
    "a file for a folder": ({"progress_dir": "file"}, "The journal cannot be kept in"),
    "a folder that cannot be made": ({"progress_dir": "file/out"}, "The journal cannot be kept in"),
}


@pytest.mark.parametrize("what", JUDGED)
def test_what_needs_no_data_is_judged_before_any_are_read(
    what: str, llama: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, sentence = JUDGED[what]
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "full"):
        Path(folder).mkdir()
    Path("file").touch()
    Path("full", JOURNAL_FILE_NAME).touch()
    there = sorted(tmp_path.rglob("*"))
    amount = {} if "num_blocks_to_remove" in arguments else {"num_blocks_to_remove": 2}
    with pytest.raises(SLEBError, match=re.escape(sentence)):
        SLEBPruner(llama).prune(**amount, **arguments, calibration=lambda: pytest.fail("the data were read"))
    assert sorted(tmp_path.rglob("*")) == there


class TestRefusals:
    def test_no_such_model(self) -> None:
        with pytest.raises(ModelNotFoundError, match="There is no model at 'nobody/nothing'.*check the name"):
            SLEBPruner.from_pretrained("nobody/nothing")

    def test_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFoundError, match="holds no model: it has no config.json"):
            SLEBPruner.from_pretrained(tmp_path)

    def test_encoder_decoder_in_memory(self) -> None:
        config = T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=16, num_layers=2, num_heads=2)
        with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
            SLEBPruner(T5ForConditionalGeneration(config))

    def test_classifier_in_memory(self, llama: PreTrainedModel) -> None:
        with pytest.raises(UnsupportedModelError, match="no logits over its vocabulary"):
            SLEBPruner(LlamaForSequenceClassification(llama.config))

    def test_bert_classifier(self) -> None:
        config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
        with pytest.raises(UnsupportedModelError, match="not a causal language model"):
            SLEBPruner(BertForSequenceClassification(config))

    def test_bert_that_looks_ahead(self) -> None:
        config = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
        with pytest.raises(UnsupportedModelError, match="depend on later tokens.*is_decoder=True"):
            SLEBPruner(randomise(BertLMHeadModel(config)))

    @mishaps.model_that_is_refused
    def test_peft_wrapper(self, llama: PreTrainedModel) -> None:
        wrapped = get_peft_model(llama, LoraConfig(target_modules=["q_proj"]))
        with pytest.raises(UnsupportedModelError, match="PEFT adapters.*merge_and_unload"):
            SLEBPruner(wrapped)

    @mishaps.model_that_is_refused
    def test_model_with_an_adapter(self, llama: PreTrainedModel) -> None:
        llama.add_adapter(LoraConfig(target_modules=["q_proj"]))
        with pytest.raises(UnsupportedModelError, match="PEFT adapters.*merge_and_unload"):
            SLEBPruner(llama)

    @mishaps.model_that_is_refused
    def test_compiled_wrapper(self, llama: PreTrainedModel) -> None:
        with pytest.raises(UnsupportedModelError, match=r"wrapped by torch.compile.*_orig_mod"):
            SLEBPruner(torch.compile(llama))

    @mishaps.model_that_is_refused
    def test_data_parallel_wrapper(self, llama: PreTrainedModel) -> None:
        with pytest.raises(UnsupportedModelError, match=r"wrapped in DataParallel.*model\.module"):
            SLEBPruner(torch.nn.DataParallel(llama))

    def test_not_a_model(self) -> None:
        with pytest.raises(UnsupportedModelError, match="Linear is not a transformers.PreTrainedModel"):
            SLEBPruner(torch.nn.Linear(2, 2))

    def test_meta_weights(self, llama: PreTrainedModel) -> None:
        with pytest.raises(UnsupportedModelError, match="load it on one device"):
            SLEBPruner(llama.to("meta"))

    def test_too_sparse(self, pruner: SLEBPruner, text: str) -> None:
        with pytest.raises(ConfigError, match=r"sparsity=0.9 removes 6 of 6 blocks and leaves 0.*at most 4 blocks"):
            pruner.prune(SLEBConfig(sparsity=0.9), calibration=[text])

    def test_too_short(self, pruner: SLEBPruner) -> None:
        with pytest.raises(ValueError, match="The text has 3 tokens, but one window takes 20 tokens"):
            pruner.prune(TWO_BLOCKS, calibration=["w3 w4 w5"])

    def test_tokens_outside_the_vocabulary(self, pruner: SLEBPruner) -> None:
        with pytest.raises(ValueError, match="Token id 64 in window 1 lies outside the model's vocabulary of 64"):
            pruner.prune(TWO_BLOCKS, calibration=torch.tensor([[3, 4, 5], [3, 64, 5]]))

    @mishaps.loss_that_is_not_finite
    def test_loss_that_is_not_a_number(self, llama: PreTrainedModel, tokenizer) -> None:
        # Token 7 is poison, but only in the second window.
        llama.get_input_embeddings().weight.data[7] = float("nan")
        with pytest.raises(NonFiniteLossError, match="loss of window 1 is nan before any block is removed"):
            SLEBPruner(llama, tokenizer).prune(TWO_BLOCKS, calibration=torch.tensor([[3, 4, 5, 6], [3, 7, 5, 6]]))

    @mishaps.loss_that_is_not_finite
    def test_loss_that_is_not_a_number_without_a_block(
        self, llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Block 2, the only candidate, keeps the residual stream from overflowing. Hooks do that here, which the gates
        # would notice.
        monkeypatch.setattr("optimum_sleb.blocks.verify.removable_blocks", lambda model, stack, wanted: ([2], {}))
        for index, factor in {1: 1e30, 2: 1e-30, 3: 1e30}.items():
            llama.model.layers[index].register_forward_hook(lambda _, __, output, factor=factor: output * factor)
        with pytest.raises(NonFiniteLossError, match="whichever block is removed .without block 2 in window 0"):
            SLEBPruner(llama).prune(TWO_BLOCKS, calibration=random_ids(2, 20))

    def test_a_block_that_stays_because_the_loss_is_not_a_number_without_it_is_named(
        self, llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("optimum_sleb.blocks.verify.removable_blocks", lambda model, stack, wanted: ([2, 4], {}))
        for index, factor in {1: 1e30, 2: 1e-30, 3: 1e30, 5: 1e-30}.items():
            llama.model.layers[index].register_forward_hook(lambda _, __, output, factor=factor: output * factor)
        monkeypatch.setattr("optimum_sleb.blocks.verify.reason_not_removable", lambda *_, **__: "no")
        message = (
            r"No block of this LlamaForCausalLM can be removed \(block 4: no; block 2: without it the loss is NaN"
        )
        with pytest.raises(UnsupportedModelError, match=message):
            SLEBPruner(llama).prune(TWO_BLOCKS, calibration=random_ids(2, 20))

    def test_so_is_one_that_stays_when_others_went(
        self, llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "optimum_sleb.blocks.verify.removable_blocks", lambda model, stack, wanted: ([2, 3, 4], {})
        )
        for index, factor in {1: 1e30, 2: 1e-30, 3: 1e30, 5: 1e-30}.items():
            llama.model.layers[index].register_forward_hook(lambda _, __, output, factor=factor: output * factor)
        refusal = "optimum_sleb.blocks.verify.reason_not_removable"
        monkeypatch.setattr(refusal, lambda model, stack, gone, **_: None if gone == {4} else "no")
        message = "1 of the 2 blocks .*block 3: no; block 2: without it the loss is NaN or infinite"
        with pytest.warns(UserWarning, match=message):
            SLEBPruner(llama).prune(TWO_BLOCKS, calibration=random_ids(2, 20))

    def test_model_that_was_changed_in_memory(self, llama: PreTrainedModel) -> None:
        llama.model.layers[3].register_forward_hook(lambda _, __, output: output * 2)
        with pytest.raises(UnsupportedModelError, match="does not compute what it would after being saved"):
            SLEBPruner(llama).prune(TWO_BLOCKS, calibration=random_ids(2, 20))

    def test_folder_that_holds_a_model(self, pruner: SLEBPruner, model_folder: Path) -> None:
        pruner.remove([2])
        with pytest.raises(OutputFolderError, match=r"already holds a model \(model.safetensors\).*overwrite=True"):
            pruner.save_pretrained(model_folder)
        assert AutoModelForCausalLM.from_pretrained(model_folder).config.num_hidden_layers == NUM_BLOCKS

    @pytest.mark.parametrize("blocks", [[6], [2, 2], [-1], [], [0, 1, 2, 3, 4, 5]])
    def test_blocks_that_cannot_be_removed(self, pruner: SLEBPruner, blocks: list[int]) -> None:
        with pytest.raises(ConfigError, match="cannot be removed|can be removed; got"):
            pruner.remove(blocks)

    def test_saving_before_pruning(self, pruner: SLEBPruner, tmp_path: Path) -> None:
        with pytest.raises(ReportError, match="Nothing has been pruned yet"):
            pruner.save_pretrained(tmp_path / "out")

    def test_report_of_another_model_beside_the_model(self, pruner: SLEBPruner, tmp_path: Path) -> None:
        pruner.remove([2])
        folder = pruner.save_pretrained(tmp_path / "out")
        report = json.loads((folder / "sleb_report.json").read_text())
        report["steps"][0]["block"] = 3
        (folder / "sleb_report.json").write_text(json.dumps(report))
        with pytest.raises(ReportError, match=r"says \[3\] were removed, the config says \[2\]"):
            SLEBPruner.from_pretrained(folder)
