from transformers import BartConfig, Gemma3Config, LongcatFlashConfig, Qwen3Config

from optimum_sleb.blocks.shortening import count_field_of, num_blocks_of, shorten_config, text_config_of


def test_lists_with_an_entry_per_layer_are_sliced() -> None:
    types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    config = Qwen3Config(num_hidden_layers=4, layer_types=types, eos_token_id=[1, 2, 3, 4])
    shorten_config(config, [1, 3])
    assert config.num_hidden_layers == 2
    assert config.layer_types == ["sliding_attention", "full_attention"]
    assert config.eos_token_id == [1, 2, 3, 4]  # as many as layers, but not about them


def test_lists_in_nested_dicts_are_sliced() -> None:
    config = Qwen3Config(num_hidden_layers=4, speeds={"fast": [1, 2, 3, 4], "deep": {"slow": (5, 6, 7, 8)}})
    shorten_config(config, [0, 3])
    assert config.speeds == {"fast": [1, 4], "deep": {"slow": [5, 8]}}


def test_rope_parameters_are_no_list_per_layer() -> None:
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = Qwen3Config(num_hidden_layers=4, hidden_size=32, head_dim=8, rope_parameters=rope)
    shorten_config(config, [0, 3])
    assert config.rope_parameters["short_factor"] == [1.0] * 4


def test_the_text_config_of_a_composite_model_is_edited() -> None:
    config = Gemma3Config(text_config={"num_hidden_layers": 4})
    shorten_config(config, [0, 2, 3])
    assert config.text_config.num_hidden_layers == len(config.text_config.layer_types) == 3


def test_the_decoder_of_an_encoder_decoder_config_is_edited() -> None:
    config = BartConfig(decoder_layers=4, encoder_layers=6)
    assert text_config_of(config) is config  # get_text_config would give a copy
    assert num_blocks_of(config) == 4
    shorten_config(config, [0, 2])
    assert (config.decoder_layers, config.encoder_layers) == (2, 6)


def test_longcat_flash_counts_two_layers_per_block() -> None:
    config = LongcatFlashConfig(num_layers=4)
    assert count_field_of(config) == "num_layers"
    shorten_config(config, [0, 2, 3])
    assert config.num_layers == 3
    if "num_hidden_layers" not in vars(config):  # before transformers 5.18 it is a field, which nothing follows
        assert config.num_hidden_layers == 6
