"""Where a matrix can be folded: checked by folding one and running the block."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig, MixtralConfig, Olmo2Config

from optimum_sleb.blocks.forward import evaluating
from optimum_sleb.blocks.runner import Stream, open_runner
from optimum_sleb.blocks.stack import find_decoder_stack, probe_ids
from optimum_sleb.blocks.standins import hidden_state_of
from optimum_sleb.compensation.finding import find_last_site, find_sites
from optimum_sleb.compensation.sites import Site

from ..architectures.tiny import tiny_model as tiny_of
from ..families import FAMILIES, randomise, tiny_model

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
SITES = {
    "llama": "mlp.down_proj",
    "mistral": "mlp.down_proj",
    "qwen2": "mlp.down_proj",
    "qwen3": "mlp.down_proj",
    "opt": "fc2",
    "gpt2": "mlp.c_proj",
    "gpt_neox": "mlp.dense_4h_to_h",
    "gemma2": "post_feedforward_layernorm",
    "gemma3": "post_feedforward_layernorm",
    "phi3": "mlp.down_proj",
    "falcon": "mlp.dense_4h_to_h",
    "bloom": "mlp.dense_4h_to_h",
}


BEFORE_THE_LAST = {
    "llama": ["self_attn.o_proj"],
    "mistral": ["self_attn.o_proj"],
    "qwen2": ["self_attn.o_proj"],
    "qwen3": ["self_attn.o_proj"],
    "opt": ["self_attn.out_proj"],
    "gpt2": ["attn.c_proj"],
    "gpt_neox": ["attention.dense"],
    "gemma2": ["post_attention_layernorm"],
    "gemma3": ["post_attention_layernorm"],
    "phi3": ["self_attn.o_proj"],
    "falcon": ["self_attention.dense"],
    "bloom": [],  # its attention adds the stream itself
}


def site_and_run(model, index: int = 2):
    """The site of a block, and a function that runs the block on the probe."""
    stack = find_decoder_stack(model)
    with open_runner(model, stack) as runner:
        stream = runner.run(runner.start(probe_ids(model)), range(index))
        block = runner.block(index)
        args, kwargs = stream.arguments_of(index)

    def run() -> torch.Tensor:
        with evaluating(model):
            return hidden_state_of(block(stream.hidden, *args, **kwargs))

    return find_last_site(block, stream, index), run


def all_sites(model, index: int = 2) -> list[Site]:
    stack = find_decoder_stack(model)
    with open_runner(model, stack) as runner:
        stream = runner.run(runner.start(probe_ids(model)), range(index))
        return find_sites(runner.block(index), stream, index)


def put(site: Site, matrix: torch.Tensor) -> None:
    with torch.no_grad():
        for name, value in site.parameters_for(matrix).items():
            site.module.get_parameter(name).copy_(value)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_module_that_writes_to_the_residual_stream(family: str) -> None:
    site, _ = site_and_run(tiny_model(family))
    assert site.path == SITES[family]
    assert site.scale == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_modules_that_write_to_the_residual_stream(family: str) -> None:
    sites = all_sites(tiny_model(family))
    assert [site.path for site in sites] == [*BEFORE_THE_LAST[family], SITES[family]]
    assert [site.scale for site in sites] == pytest.approx([1.0] * len(sites), abs=1e-4)


def test_experts_are_no_site_but_the_attention_beside_them_is() -> None:
    assert [site.path for site in all_sites(tiny_of("mixtral"))] == ["self_attn.o_proj"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folded_map_acts_on_what_the_module_writes(family: str) -> None:
    site, run = site_and_run(tiny_model(family))
    outputs: list[torch.Tensor] = []
    # Falcon adds the attention's output to it in place.
    site.module.register_forward_hook(lambda _module, _args, output: outputs.append(output.clone()))
    before = run()
    width = before.shape[-1]
    generator = torch.Generator().manual_seed(0)
    mapping = torch.diag(torch.rand(width, generator=generator, dtype=torch.float64) + 0.5)
    if site.is_linear:
        mapping += torch.randn(width, width, generator=generator, dtype=torch.float64) * 0.1
    put(site, site.matrix() @ mapping)
    written = outputs[0].view_as(before)
    torch.testing.assert_close(run(), before - written + written @ mapping.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_features_times_matrix_are_the_output(family: str) -> None:
    site, run = site_and_run(tiny_model(family))
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    site.module.register_forward_hook(lambda _module, args, output: calls.append((args[0], output.clone())))
    run()
    given, output = calls[0]
    features = site.features(given, output)
    torch.testing.assert_close(features.double() @ site.matrix(), output.flatten(0, -2).double(), rtol=1e-5, atol=1e-5)


def test_what_is_added_times_a_constant() -> None:
    config = GraniteConfig(**SMALL, num_key_value_heads=2, residual_multiplier=0.25)
    site, _ = site_and_run(randomise(AutoModelForCausalLM.from_config(config)))
    assert site.path == "mlp.down_proj"
    assert site.scale == pytest.approx(0.25, abs=1e-4)


def test_a_norm_that_multiplies_by_its_weight() -> None:
    config = Olmo2Config(**SMALL, pad_token_id=0)
    site, _ = site_and_run(randomise(AutoModelForCausalLM.from_config(config)))
    assert (site.path, site.offset, site.is_linear) == ("post_feedforward_layernorm", 0.0, False)
    assert site_and_run(tiny_model("gemma2"))[0].offset == 1.0


def test_experts_have_no_site() -> None:
    config = MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=4)
    site, _ = site_and_run(randomise(AutoModelForCausalLM.from_config(config)))
    assert site is None


def test_half_precision_finds_the_same(device: str) -> None:
    site, _ = site_and_run(tiny_model("llama", dtype=torch.bfloat16).to(device))
    assert site.path == "mlp.down_proj"
    assert isinstance(site.module, nn.Linear)


class MixedBlock(nn.Module):
    """A block in half precision on a residual stream in float32, as Zaya's."""

    def __init__(self, behind: nn.Module | None = None) -> None:
        super().__init__()
        self.up = nn.Linear(32, 48, dtype=torch.bfloat16)
        self.down = nn.Linear(48, 32, dtype=torch.bfloat16)
        self.behind = nn.Linear(32, 32, dtype=torch.bfloat16) if behind is None else behind

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        written = self.down(torch.relu(self.up(hidden.to(torch.bfloat16))))
        self.behind(written)  # another layer sees what the last one writes: it takes no float32
        return hidden + 0.5 * written.float()


def mixed_site(block: MixedBlock) -> Site | None:
    hidden = torch.randn(1, 16, 32, generator=torch.Generator().manual_seed(0))
    return find_last_site(block, Stream(hidden, {0: ((), {})}), 0)


def test_a_stream_in_float32_around_modules_in_half_precision() -> None:
    site = mixed_site(MixedBlock())
    assert site.path == "down"
    assert site.scale == pytest.approx(0.5, rel=1e-2)


class Picky(nn.Module):
    """Runs as long as its input is what it was before."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.error = error
        self.seen: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> None:
        self.seen = hidden if self.seen is None else self.seen
        if not hidden.equal(self.seen):
            raise self.error("not like this")


def test_a_block_that_does_not_run_disturbed_has_no_site() -> None:
    assert mixed_site(MixedBlock(Picky(RuntimeError))) is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_memory_that_runs_out_says_nothing_about_a_block(error: type[Exception]) -> None:
    with pytest.raises(error, match="not like this"):
        mixed_site(MixedBlock(Picky(error)))
