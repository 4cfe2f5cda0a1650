"""The real SmolLM2-135M-Instruct: the published decisions, and a run from checkpoint to checkpoint."""

import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from optimum_sleb import PruningReport, SLEBConfig, SLEBPruner, UnsupportedModelError, perplexity

from .conftest import ROOT

sys.path.insert(0, str(ROOT / "examples"))
from fetch_smollm2 import GGUF_FILE

pytestmark = pytest.mark.slow

TEXT = ROOT / "examples" / "data" / "wikitext2-valid-excerpt.txt"

# The official code on this model in float32, first 16 x 2048 tokens of WikiText-2 raw validation, one H100.
PUBLISHED_ORDER = (5, 4, 26, 3, 25, 6)
PUBLISHED_SUMS = (101134.781, 106173.203, 110757.992, 116374.703, 121572.203, 126579.172)
PUBLISHED_FIRST_ROUND = {
    1: 199668.594,
    2: 114702.391,
    3: 101928.727,
    4: 102042.352,
    5: 101134.781,
    12: 101597.375,
    13: 102424.312,
    14: 101201.125,
}


@pytest.fixture(scope="module")
def dense_folder(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dense model as an ordinary checkpoint, its weights rounded to bfloat16."""
    folder = tmp_path_factory.mktemp("smollm2") / "dense"
    pruner = SLEBPruner.from_pretrained(smollm2_folder, gguf_file=GGUF_FILE, dtype=torch.bfloat16)
    pruner.model.save_pretrained(folder)
    pruner.tokenizer.save_pretrained(folder)
    return folder


def test_reference_and_exact_search_decide_alike(dense_folder: Path) -> None:
    reports = []
    for search in ("exact", "reference"):
        pruner = SLEBPruner.from_pretrained(dense_folder)
        config = SLEBConfig(num_blocks_to_remove=2, dataset=str(TEXT), window_length=64, max_windows=1, search=search)
        pruner.prune(config)
        assert pruner.report.search.method == search
        reports.append(pruner.report)
    exact, reference = reports
    assert exact.removed_blocks == reference.removed_blocks
    for fast, slow in zip(exact.steps, reference.steps, strict=True):
        assert fast.candidate_losses == pytest.approx(slow.candidate_losses, rel=1e-5)


def test_from_checkpoint_to_checkpoint(dense_folder: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(dense_folder)
    before = perplexity(pruner.model, pruner.tokenizer, str(TEXT), window_length=512, max_windows=1).perplexity
    pruner.prune(SLEBConfig(num_blocks_to_remove=1, dataset=str(TEXT), window_length=128, max_windows=1))
    folder = pruner.save_pretrained(tmp_path / "pruned")
    assert PruningReport.load(folder) == pruner.report

    reloaded = AutoModelForCausalLM.from_pretrained(folder)
    assert reloaded.dtype == torch.bfloat16
    assert reloaded.config.num_hidden_layers == 29
    assert reloaded.num_parameters() == 134_515_008 - 3_540_096
    after = perplexity(reloaded, pruner.tokenizer, str(TEXT), window_length=512, max_windows=1).perplexity
    assert before < after < 2 * before

    prompt = pruner.tokenizer("The capital of France is", return_tensors="pt")
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 2}
    with_cache = reloaded.generate(**prompt, **options)
    assert with_cache.equal(reloaded.generate(**prompt, **options, use_cache=False))
    assert "Paris" in pruner.tokenizer.decode(with_cache[0])


@pytest.mark.skipif(not hasattr(transformers, "GgufConfig"), reason="before 5.23 GGUF files are always dequantised")
def test_packed_gguf_is_refused_with_the_remedy(smollm2_folder: Path) -> None:
    packed = AutoModelForCausalLM.from_pretrained(smollm2_folder, gguf_file=GGUF_FILE)
    with pytest.raises(UnsupportedModelError, match=r"quantised \(gguf\).*GgufConfig\(dequantize=True\)"):
        SLEBPruner(packed)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("search", ["exact", "reference"])
def test_removes_the_published_blocks_with_the_published_losses(
    search: str, dense_folder: Path, shared_data: Path
) -> None:
    pruner = SLEBPruner.from_pretrained(dense_folder, dtype=torch.float32, device_map="cuda")
    config = SLEBConfig(
        num_blocks_to_remove=6,
        dataset=str(shared_data / "wikitext-2-raw" / "wiki.valid.raw"),
        max_windows=16,
        search=search,
    )
    pruner.prune(config)
    report = pruner.report
    print(search, f"{sum(step.seconds for step in report.steps):.1f} s", [(s.block, s.loss) for s in report.steps])
    assert report.search.method == search
    assert report.removed_blocks == PUBLISHED_ORDER
    assert [step.loss for step in report.steps] == pytest.approx(PUBLISHED_SUMS, rel=1e-4)
    first = report.steps[0].candidate_losses
    assert {block: first[block] for block in PUBLISHED_FIRST_ROUND} == pytest.approx(PUBLISHED_FIRST_ROUND, rel=1e-4)
