"""Models in half precision, loaded as they usually are: a checkpoint read in bfloat16 or float16."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from optimum_sleb import SLEBConfig, SLEBPruner

from .architectures.tiny import tiny_model as tiny
from .families import random_ids, tiny_model

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])


def loaded_in(dtype: torch.dtype, model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


@pytest.mark.long
@HALVES
@pytest.mark.parametrize("search_dtype", ["auto", "float32", "model"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3"])
def test_prune(family: str, search_dtype: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Also Gemma, whose embeddings are scaled by a buffer that is rounded, and stays so while float32 is computed."""
    pruner = SLEBPruner(loaded_in(dtype, tiny_model(family), tmp_path))
    pruner.prune(SLEBConfig(num_blocks_to_remove=2, search_dtype=search_dtype), calibration=random_ids(2, 20))
    assert len(pruner.report.removed_blocks) == 2
    assert {parameter.dtype for parameter in pruner.model.parameters()} == {dtype}


@pytest.mark.long
@HALVES
@pytest.mark.parametrize("family", ["gptj", "codegen"])
def test_positions_are_computed_as_from_pretrained_computes_them(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    pruner = SLEBPruner(loaded_in(dtype, tiny(family), tmp_path / "dense"))
    assert pruner.check().barred == {}
    pruner.prune(SLEBConfig(num_blocks_to_remove=1), calibration=random_ids(2, 20))
    pruner.save_pretrained(tmp_path / "pruned")


@pytest.mark.long
def test_each_part_keeps_its_attention(tmp_path: Path) -> None:
    """Eager attention, which the image part needs, rounds otherwise than that of the text part."""
    model = loaded_in(torch.bfloat16, tiny("got_ocr2"), tmp_path / "dense")
    assert model.config._attn_implementation != model.config.text_config._attn_implementation
    pruner = SLEBPruner(model)
    assert pruner.check().barred == {}
    pruner.remove([1])
    pruner.save_pretrained(tmp_path / "pruned")


@pytest.mark.long
@pytest.mark.parametrize("family", ["gpt2", "diffllama"])
def test_constants_that_cannot_be_folded_without_loss_bar_blocks(family: str, tmp_path: Path) -> None:
    """As docs/architectures.md says."""
    assert SLEBPruner(loaded_in(torch.bfloat16, tiny(family), tmp_path)).check().removable == (7,)
