"""Models that cannot be pruned are refused before the search, with what to do instead; see also test_pruner.py."""

import inspect
from enum import Enum
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from accelerate import cpu_offload, cpu_offload_with_hook, disk_offload
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    ProphetNetForCausalLM,
)

from optimum_sleb import SLEBPruner, UnsupportedModelError
from optimum_sleb.blocks.stack import probe_ids
from optimum_sleb.models.checks import check_causal_lm, check_model

from .. import mishaps
from ..architectures.tiny import tiny_model as tiny
from ..families import FAMILIES, NUM_BLOCKS, overflowing_model, randomise, tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_ordinary_models_pass(family: str) -> None:
    check_model(tiny_model(family))
    check_model(tiny_model(family, tie_word_embeddings=True))


@mishaps.model_that_is_refused
class TestCompiled:
    def test_in_place(self, llama: PreTrainedModel) -> None:
        llama.compile()
        with pytest.raises(UnsupportedModelError, match="The model is compiled.*compile the pruned one"):
            SLEBPruner(llama)

    def test_a_block_in_place(self, llama: PreTrainedModel) -> None:
        llama.model.layers[2].compile()
        with pytest.raises(UnsupportedModelError, match=r"model\.layers\.2 is compiled"):
            SLEBPruner(llama)

    def test_a_wrapped_block(self, llama: PreTrainedModel) -> None:
        llama.model.layers[2] = torch.compile(llama.model.layers[2])
        with pytest.raises(UnsupportedModelError, match=r"model\.layers\.2 is compiled"):
            SLEBPruner(llama)


class TestDevices:
    @mishaps.model_that_is_refused
    def test_offload_to_the_cpu(self, llama: PreTrainedModel) -> None:
        cpu_offload(llama, execution_device=torch.device("cpu"))
        with pytest.raises(UnsupportedModelError, match="Not all weights .* are in memory.*load it on one device"):
            SLEBPruner(llama)

    @mishaps.model_that_is_refused
    def test_offload_to_the_disk(self, llama: PreTrainedModel, tmp_path: Path) -> None:
        disk_offload(llama, tmp_path / "offload", execution_device=torch.device("cpu"))
        with pytest.raises(UnsupportedModelError, match="Not all weights .* are in memory.*load it on one device"):
            SLEBPruner(llama)

    @mishaps.model_that_is_refused
    def test_blocks_on_the_disk(self, model_folder: Path, tmp_path: Path) -> None:
        around = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
        blocks = {f"model.layers.{number}": "cpu" if number < 3 else "disk" for number in range(NUM_BLOCKS)}
        with pytest.raises(
            UnsupportedModelError, match=r"Not all weights .* are in memory.*prune\(\.\.\., device='cuda'\)"
        ):
            SLEBPruner.from_pretrained(
                model_folder, device_map=around | blocks, offload_folder=str(tmp_path / "offload")
            )

    @mishaps.model_that_is_refused
    def test_weights_that_come_when_the_model_runs(self, llama: PreTrainedModel) -> None:
        llama, _hook = cpu_offload_with_hook(llama, execution_device=torch.device("cpu"))
        with pytest.raises(UnsupportedModelError, match="brings them .*hook on the model.*load it on one device"):
            SLEBPruner(llama)

    @pytest.mark.parametrize("device_map", ["cpu", "auto"])
    def test_one_device_is_fine(self, model_folder: Path, device_map: str) -> None:
        if device_map == "auto" and torch.cuda.is_available():
            pytest.skip("auto would choose the GPU")
        SLEBPruner.from_pretrained(model_folder, device_map=device_map).remove([2])


@mishaps.model_that_is_refused
class TestSharing:
    """The same weights at two places: right in memory, but not after saving and loading."""

    def test_a_block_twice(self, llama: PreTrainedModel) -> None:
        llama.model.layers[3] = llama.model.layers[1]
        with pytest.raises(
            UnsupportedModelError, match=r"layers\.1\.\S+ and model\.layers\.3\.\S+ are the same tensor"
        ):
            SLEBPruner(llama)

    def test_a_part_of_a_block(self, llama: PreTrainedModel) -> None:
        llama.model.layers[3].mlp = llama.model.layers[1].mlp
        with pytest.raises(UnsupportedModelError, match=r"layers\.3\.mlp\.gate_proj\.weight are the same.*deepcopy"):
            SLEBPruner(llama)

    def test_one_weight(self, llama: PreTrainedModel) -> None:
        llama.model.layers[3].mlp.up_proj.weight = llama.model.layers[1].mlp.up_proj.weight
        with pytest.raises(UnsupportedModelError, match=r"layers\.3\.mlp\.up_proj\.weight are the same tensor"):
            SLEBPruner(llama)

    def test_embeddings_tied_behind_the_config(self, llama: PreTrainedModel) -> None:
        llama.lm_head.weight = llama.model.embed_tokens.weight
        with pytest.raises(UnsupportedModelError, match=r"lm_head\.weight are the same tensor"):
            SLEBPruner(llama)


class Method(Enum):
    """As transformers has them: the text of a member is not its value."""

    AWQ = "awq"


@mishaps.model_that_is_refused
class TestQuantised:
    @pytest.mark.parametrize(
        ("method", "pre_quantized"),
        [
            *((method, True) for method in ("bitsandbytes", "torchao", "gptq", Method.AWQ, "new one")),
            *((method, False) for method in ("gptq", Method.AWQ, "compressed-tensors", "new one")),
        ],
    )
    def test_by_transformers(self, llama: PreTrainedModel, method: str | Method, pre_quantized: bool) -> None:
        remedy = (
            "prune the checkpoint that it was made from, and quantise the result"
            if pre_quantized
            else "load it without quantization_config, prune it, and quantise the result"
        )
        config = SimpleNamespace(quant_method=method)
        llama.hf_quantizer = SimpleNamespace(quantization_config=config, pre_quantized=pre_quantized)
        name = method.value if isinstance(method, Enum) else method
        with pytest.raises(UnsupportedModelError, match=rf"quantised \({name}\), .*; {remedy}\."):
            SLEBPruner(llama)

    @pytest.mark.parametrize(
        ("method", "config"), [("gguf", "GgufConfig"), ("mxfp4", "Mxfp4Config"), ("fp8", "FineGrainedFP8Config")]
    )
    def test_what_can_be_undone(self, llama: PreTrainedModel, method: str, config: str) -> None:
        llama.hf_quantizer = SimpleNamespace(quantization_config=SimpleNamespace(quant_method=method))
        with pytest.raises(UnsupportedModelError, match=rf"quantization_config={config}\(dequantize=True\)"):
            SLEBPruner(llama)
        if hasattr(transformers, config):  # older releases of transformers lack some
            assert "dequantize" in inspect.signature(getattr(transformers, config)).parameters

    def test_modules_spared_by_the_number_of_their_block(self, llama: PreTrainedModel) -> None:
        config = SimpleNamespace(quant_method="bitsandbytes", llm_int8_skip_modules=["lm_head", "model.layers.5.mlp"])
        llama.hf_quantizer = SimpleNamespace(quantization_config=config, pre_quantized=False)
        with pytest.raises(UnsupportedModelError, match=r"number of their block \(model\.layers\.5\.mlp\)"):
            SLEBPruner(llama)

    def test_to_whole_numbers(self, llama: PreTrainedModel) -> None:
        weight = torch.zeros(48, 32, dtype=torch.int8)
        llama.model.layers[2].mlp.up_proj.weight = torch.nn.Parameter(weight, requires_grad=False)
        with pytest.raises(UnsupportedModelError, match=r"layers\.2\.mlp\.up_proj\.weight is no plain .*torch\.int8"):
            SLEBPruner(llama)

    def test_with_torchao_in_memory(self, llama: PreTrainedModel) -> None:
        torchao = pytest.importorskip("torchao.quantization")
        torchao.quantize_(llama, torchao.Int8WeightOnlyConfig())
        with pytest.raises(UnsupportedModelError, match=r"is no plain tensor .*\(Int8Tensor\)"):
            SLEBPruner(llama)


def test_causal_models_pass() -> None:
    check_causal_lm(tiny_model("llama"))


def test_a_model_that_looks_ahead() -> None:
    config = BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    with pytest.raises(UnsupportedModelError, match="depend on later tokens.*is_decoder=True"):
        check_causal_lm(randomise(BertLMHeadModel(config)))


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_looking_ahead_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    for family in ("prophetnet", "bert"):
        tiny(family).save_pretrained(tmp_path / family)
    # Its relative positions mix tokens a very little, also in float64; rounding makes more of it.
    check_causal_lm(ProphetNetForCausalLM.from_pretrained(tmp_path / "prophetnet", dtype=dtype))
    bert = BertLMHeadModel.from_pretrained(tmp_path / "bert", dtype=dtype, is_decoder=False)
    with pytest.raises(UnsupportedModelError, match="depend on later tokens"):
        check_causal_lm(bert)


def test_a_classifier() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, pad_token_id=0
    )
    with pytest.raises(UnsupportedModelError, match="LlamaForSequenceClassification gives no logits over its voc"):
        check_causal_lm(LlamaForSequenceClassification(config))


def test_weights_rescaled_by_block_number() -> None:
    model = tiny("rwkv")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(UnsupportedModelError, match="rescales the weights of its.*load it with rescale_every=0"):
        check_causal_lm(model)
    assert all(weight.equal(before[name]) for name, weight in model.named_parameters())
    model.config.rescale_every = 0
    check_causal_lm(model)


def test_weights_that_change_while_the_model_runs() -> None:
    model = tiny_model("llama")
    layer = model.model.layers[1]

    def rescale(*_: object) -> None:
        layer.mlp.up_proj.weight.mul_(1.5)

    layer.register_forward_pre_hook(rescale)
    with pytest.raises(UnsupportedModelError, match=r"changes its weights .*model.layers.1.mlp.up_proj.weight"):
        check_causal_lm(model)


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(torch.float16, "float16 does not hold.*dtype='bfloat16'"), (torch.float32, "check its weights")],
)
def test_a_model_that_gives_no_finite_logits(dtype: torch.dtype, remedy: str) -> None:
    model = overflowing_model(int(probe_ids(tiny_model())[0, 3]), dtype)
    if dtype == torch.float32:
        check_causal_lm(model)
        model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(UnsupportedModelError, match=f"NaN or infinite for a few tokens; .*{remedy}"):
        check_causal_lm(model)
