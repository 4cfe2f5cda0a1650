import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from optimum_sleb import SLEBConfig
from optimum_sleb.blocks.stack import find_decoder_stack
from optimum_sleb.calibration.windows import TokenWindows

from ..searching import run_search


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_7b_with_2048_token_windows_takes_at_most_4_gb_beyond_the_weights() -> None:
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(), dtype=torch.bfloat16).eval()
    stack = find_decoder_stack(model)
    windows = TokenWindows(tuple(torch.randint(32000, (2, 2048))))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    weights = torch.cuda.memory_allocated()
    result = run_search(model, stack, windows, range(1, 31), SLEBConfig(num_blocks_to_remove=1))
    beyond = (torch.cuda.max_memory_allocated() - weights) / 1e9
    print(f"{weights / 1e9:.2f} GB of weights, {beyond:.2f} GB beyond, {result.seconds[0]:.2f} s a step")
    assert result.record.method == "exact"
    assert beyond <= 4
