"""Models that bring their own code: it runs only when the caller said so, and travels with the pruned model."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from optimum_sleb import ModelNotFoundError, SLEBConfig, SLEBPruner, UnsupportedModelError

from ..families import random_ids

CONFIGURATION = """
from transformers import PreTrainedConfig

class HomemadeConfig(PreTrainedConfig):
    model_type = "homemade"

    def __init__(self, vocab_size=64, num_hidden_layers=5, widths=None, **kwargs):
        self.vocab_size = vocab_size
        self.num_hidden_layers = num_hidden_layers
        self.widths = widths or [8] * num_hidden_layers
        super().__init__(**kwargs)
"""

MODELING = """
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from .configuration_homemade import HomemadeConfig

class HomemadeBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up = nn.Linear(16, width)
        self.down = nn.Linear(width, 16)

    def forward(self, hidden):
        return hidden + self.down(torch.relu(self.up(hidden.cumsum(1))))

class HomemadeForCausalLM(PreTrainedModel):
    config_class = HomemadeConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, 16)
        self.blocks = nn.ModuleList(HomemadeBlock(width) for width in config.widths)
        self.head = nn.Linear(16, config.vocab_size)
        self.post_init()

    def forward(self, input_ids):
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = block(hidden)
        return CausalLMOutput(logits=self.head(hidden))
"""


@pytest.fixture
def folder(tmp_path: Path, tokenizer) -> Path:
    """A model folder with code in it; the classes were never imported here."""
    maker = tmp_path / "maker"
    maker.mkdir()
    (maker / "configuration_homemade.py").write_text(CONFIGURATION)
    (maker / "modeling_homemade.py").write_text(MODELING)
    (maker / "config.json").write_text(
        """{"model_type": "homemade", "architectures": ["HomemadeForCausalLM"], "widths": [8, 4, 12, 6, 10],
        "auto_map": {"AutoConfig": "configuration_homemade.HomemadeConfig",
         "AutoModelForCausalLM": "modeling_homemade.HomemadeForCausalLM"}}"""
    )
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(maker, trust_remote_code=True)
    AutoModelForCausalLM.from_config(config, trust_remote_code=True).save_pretrained(maker)
    tokenizer.save_pretrained(maker)
    return maker


@pytest.mark.reliability(
    "code that a model brings along, without `trust_remote_code=True`", lost="nothing; it is not run"
)
@pytest.mark.parametrize("arguments", [{}, {"trust_remote_code": False}])
def test_its_code_is_not_run_unasked(folder: Path, arguments: dict) -> None:
    (folder / "modeling_homemade.py").write_text("raise SystemExit('this code ran')")
    (folder / "configuration_homemade.py").write_text("raise SystemExit('this code ran')")
    with pytest.raises((UnsupportedModelError, ModelNotFoundError), match="trust_remote_code=True"):
        SLEBPruner.from_pretrained(folder, **arguments)


def test_pruned_with_its_code(folder: Path, tmp_path: Path) -> None:
    pruner = SLEBPruner.from_pretrained(folder, trust_remote_code=True)
    pruner.prune(SLEBConfig(num_blocks_to_remove=2), calibration=random_ids(2, 20))
    kept = pruner.report.blocks_after
    assert pruner.model.config.widths == [[8, 4, 12, 6, 10][block] for block in kept]

    out = pruner.save_pretrained(tmp_path / "pruned")
    assert (out / "modeling_homemade.py").is_file()
    assert (out / "configuration_homemade.py").is_file()
    again = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    ids = random_ids(1, 12)
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, pruner.model(ids).logits)

    pruned_twice = SLEBPruner.from_pretrained(out, trust_remote_code=True)
    pruned_twice.remove([kept[1]])
    assert pruned_twice.model.config.num_hidden_layers == 2
