"""Code of a repository: no call leaves open whether it runs. See also tests/attacks/test_loading.py."""

import ast
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlavaConfig

from optimum_sleb import ConfigError, UnsupportedModelError
from optimum_sleb.models.trust import check_foreign_code, check_kernels, is_trusted

from ..conftest import ROOT

# What these load is our own; their own calls of transformers are looked at where they stand.
OURS = ("SLEBPruner", "SLEBConfig")


def calls_without_the_flag(source: str) -> list[int]:
    """The lines of a source where something is loaded without saying whether code may run."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("from_pretrained", "from_config")
        and not (isinstance(node.func.value, ast.Name) and node.func.value.id in OURS)
        and "trust_remote_code" not in [keyword.arg for keyword in node.keywords]
    ]


@pytest.mark.parametrize("file", sorted((ROOT / "optimum_sleb").rglob("*.py")), ids=lambda file: file.stem)
def test_every_call_says_whether_code_may_run(file: Path) -> None:
    assert calls_without_the_flag(file.read_text(encoding="utf-8")) == []


def test_a_call_without_the_flag_is_found() -> None:
    source = "AutoModel.from_pretrained(name)\nAutoModel.from_config(c, trust_remote_code=t)\nf(m).from_config(c, **k)"
    assert calls_without_the_flag(source) == [1, 3]


def test_the_flag() -> None:
    assert [is_trusted(given) for given in ({}, {"trust_remote_code": None}, {"trust_remote_code": True})] == [0, 0, 1]
    with pytest.raises(ConfigError, match="must be True or False; got 'no'"):
        is_trusted({"trust_remote_code": "no"})


def test_classes_that_transformers_has_need_no_code(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(
        '{"auto_map": {"AutoTokenizer": ["theirs.T", null]}, "tokenizer_class": "GPT2Tokenizer"}'
    )
    check_foreign_code(str(tmp_path), {}, trusted=False)
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["theirs.T", null]}}')
    check_foreign_code(str(tmp_path), {}, trusted=True)
    with pytest.raises(
        UnsupportedModelError, match=r"wants to run code of its own \(auto_map: AutoTokenizer .*theirs"
    ):
        check_foreign_code(str(tmp_path), {}, trusted=False)


def test_kernels_of_the_hub() -> None:
    check_kernels("it", LlamaConfig(attn_implementation="sdpa"), trusted=False)
    config = LlavaConfig(text_config=LlamaConfig())
    config.text_config._attn_implementation_internal = "theirs/kernel"
    check_kernels("it", config, trusted=True)
    with pytest.raises(UnsupportedModelError, match="wants to run the kernel 'theirs/kernel'"):
        check_kernels("it", config, trusted=False)
