"""Local data of every format and compression, against the same texts in memory."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from optimum_sleb import CalibrationError, ConfigError, SLEBConfig
from optimum_sleb.calibration.check import check_data
from optimum_sleb.calibration.sources import load_calibration, load_evaluation

from ..conftest import make_text

TEXTS = [make_text(length, seed=length) for length in (9, 14, 30, 4, 21)]


def as_jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"id": number, "text": text}) + "\n" for number, text in enumerate(texts)).encode()


def as_json(texts: list[str]) -> bytes:
    return json.dumps([{"text": text} for text in texts], indent=1).encode()


def as_csv(texts: list[str], delimiter: str = ",") -> bytes:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([["id", "text"], *enumerate(texts)])
    return file.getvalue().encode()


def as_tsv(texts: list[str]) -> bytes:
    return as_csv(texts, "\t")


def as_parquet(texts: list[str]) -> bytes:
    file = io.BytesIO()
    datasets.Dataset.from_dict({"text": texts}).to_parquet(file)
    return file.getvalue()


def as_arrow(texts: list[str], opened: Callable = pa.ipc.new_stream) -> bytes:
    table, file = pa.table({"text": texts}), io.BytesIO()
    with opened(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def as_arrow_file(texts: list[str]) -> bytes:
    return as_arrow(texts, pa.ipc.new_file)


def as_text(texts: list[str]) -> bytes:
    return "\n\n".join(texts).encode()


def zstandard(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


MAKERS = {
    ".txt": as_text,
    ".text": as_text,
    ".raw": as_text,
    ".md": as_text,
    ".jsonl": as_jsonl,
    ".ndjson": as_jsonl,
    ".json": as_json,
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".parquet": as_parquet,
    ".arrow": as_arrow,
    "-file.arrow": as_arrow_file,
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}
CELLS = [
    (suffix, packed)
    for suffix in MAKERS
    for packed in PACKERS
    if not packed or not suffix.endswith((".parquet", ".arrow"))  # these compress themselves
]


def recipe_of(dataset: object, **recipe) -> SLEBConfig:
    return SLEBConfig(sparsity=0.2, window_length=10, dataset=str(dataset), **recipe)


def ids_of(dataset: object, tokenizer, **recipe) -> list[list[int]]:
    loaded = load_calibration(None, tokenizer, recipe_of(dataset, **recipe))
    return [window.tolist() for window in loaded.windows.windows]


def in_memory(texts: list[str], tokenizer) -> list[list[int]]:
    loaded = load_calibration(texts, tokenizer, SLEBConfig(sparsity=0.2, window_length=10))
    return [window.tolist() for window in loaded.windows.windows]


@pytest.mark.parametrize(("suffix", "packed"), CELLS)
def test_every_format(suffix: str, packed: str, tmp_path: Path, tokenizer) -> None:
    name = f"data{suffix}{packed}"
    for path in (tmp_path / name, tmp_path / "upper" / name.upper()):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PACKERS[packed](MAKERS[suffix](TEXTS)))
        check_data(recipe_of(path))
        assert ids_of(path, tokenizer) == in_memory(TEXTS, tokenizer), path
        evaluated = load_evaluation(str(path), tokenizer, window_length=10)
        assert [window.tolist() for window in evaluated.windows.windows] == in_memory(TEXTS, tokenizer)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv.gz", ".parquet"])
def test_folders_and_patterns(suffix: str, tmp_path: Path, tokenizer) -> None:
    maker, packer = MAKERS[suffix.removesuffix(".gz")], PACKERS[".gz" if suffix.endswith(".gz") else ""]
    folder = tmp_path / "deep" / "folder"
    (folder / "below").mkdir(parents=True)
    for name, texts in {"b": TEXTS[2:], "a": TEXTS[:2]}.items():
        (folder / f"{name}{suffix}").write_bytes(packer(maker(texts)))
    for left_out in ("README.md", ".gitattributes", "_SUCCESS", "LICENSE"):
        (folder / left_out).write_text("not data")
    expected = in_memory(TEXTS, tokenizer)
    for dataset in (folder, f"{folder}/", f"{folder}/*{suffix}", f"{folder}/[ab]*", f"{tmp_path}/**/?{suffix}"):
        assert ids_of(dataset, tokenizer) == expected, dataset
    assert load_calibration(folder, tokenizer, recipe_of("c4", max_windows=1)).source == f"{folder}/"


def test_a_folder_of_save_to_disk(tmp_path: Path, tokenizer) -> None:
    rows, others = (datasets.Dataset.from_dict({"text": texts}) for texts in (TEXTS, TEXTS[:3]))
    rows.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict(train=rows, dev=others).save_to_disk(tmp_path / "several")
    assert ids_of(tmp_path / "one", tokenizer) == in_memory(TEXTS, tokenizer)
    assert ids_of(tmp_path / "several", tokenizer) == in_memory(TEXTS, tokenizer)
    assert ids_of(tmp_path / "several", tokenizer, dataset_split="dev") == in_memory(TEXTS[:3], tokenizer)
    with pytest.raises(CalibrationError, match="several/ has no split 'test', only 'train', 'dev'; name one of them"):
        ids_of(tmp_path / "several", tokenizer, dataset_split="test")
    with pytest.raises(CalibrationError, match="one/ is one split, not several; leave dataset_split='dev' out"):
        ids_of(tmp_path / "one", tokenizer, dataset_split="dev")


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".tsv"])
def test_encodings(suffix: str, tmp_path: Path, tokenizer) -> None:
    texts = [f"{text} é ü w3" for text in TEXTS]
    content = MAKERS[suffix](texts).decode().replace("\\u00e9", "é").replace("\\u00fc", "ü")
    expected = in_memory(texts, tokenizer)
    for encoding in ("utf-8", "utf-8-sig", "latin-1", "cp1252"):
        path = tmp_path / f"{encoding}{suffix}"
        path.write_bytes(content.encode(encoding))
        recipe = {} if "utf-8" in encoding else {"encoding": encoding}
        assert ids_of(path, tokenizer, **recipe) == expected, encoding
        if recipe:
            with pytest.raises(CalibrationError, match=r"name its encoding \(encoding\), or convert it"):
                ids_of(path, tokenizer)


def test_a_list_of_json_is_utf_8(tmp_path: Path, tokenizer) -> None:
    (tmp_path / "data.json").write_bytes('[{"text": "é"}]'.encode("latin-1"))
    with pytest.raises(CalibrationError, match=r"name its encoding \(encoding\), or convert it"):
        ids_of(tmp_path / "data.json", tokenizer)
    with pytest.raises(CalibrationError, match="convert it to UTF-8"):
        ids_of(tmp_path / "data.json", tokenizer, encoding="latin-1")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    class Letters:
        bos_token_id = None

        def __call__(self, text: str, **_: object) -> object:
            return type("Encoding", (), {"input_ids": [ord(letter) for letter in text]})

    for suffix in (".txt", ".jsonl", ".csv"):
        (tmp_path / f"data{suffix}").write_bytes(b"\xef\xbb\xbf" + MAKERS[suffix](["abcdefghijk"]))
        assert ids_of(tmp_path / f"data{suffix}", Letters()) == [[*b"abcdefghij"]]


def test_utf_16_text(tmp_path: Path, tokenizer) -> None:
    for suffix in (".txt", ".csv"):
        path = tmp_path / f"data{suffix}"
        path.write_bytes(MAKERS[suffix](TEXTS).decode().encode("utf-16"))
        assert ids_of(path, tokenizer, encoding="utf-16") == in_memory(TEXTS, tokenizer)
        with pytest.raises(CalibrationError, match="UTF-8 text|utf-8"):
            ids_of(path, tokenizer)


@pytest.mark.parametrize("text", ["NA", "null", "None", "nan", ""])
def test_a_text_of_a_table_that_looks_like_nothing(text: str, tmp_path: Path, tokenizer) -> None:
    texts = [*TEXTS, text, TEXTS[0]]
    (tmp_path / "data.csv").write_bytes(as_csv(texts))
    assert ids_of(tmp_path / "data.csv", tokenizer) == in_memory(texts, tokenizer)


def test_local_rows_are_shuffled_where_asked(tmp_path: Path, tokenizer) -> None:
    (tmp_path / "data.jsonl").write_bytes(as_jsonl(TEXTS))
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "saved")
    stream = datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in TEXTS))
    for name in ("data.jsonl", "saved"):
        for seed in (0, 3):
            expected = [row["text"] for row in stream.shuffle(seed=seed, buffer_size=3)]
            assert expected != TEXTS
            assert ids_of(tmp_path / name, tokenizer, seed=seed, shuffle_buffer=3) == in_memory(expected, tokenizer)
        assert ids_of(tmp_path / name, tokenizer, shuffle_buffer=0) == in_memory(TEXTS, tokenizer)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("data.txt", "dataset_split", "test"),
        ("data.jsonl", "dataset_config", "en"),
        ("data.jsonl", "dataset_revision", "main"),
        ("data.parquet", "encoding", "latin-1"),
        ("data.txt", "shuffle_buffer", 10),
        ("wikitext2", "shuffle_buffer", 10),
        ("wikitext2+c4", "encoding", "latin-1"),
    ],
)
def test_an_option_without_a_use_is_refused(name: str, option: str, value: object, tmp_path: Path) -> None:
    if "." in name:
        (tmp_path / name).write_bytes(MAKERS[Path(name).suffix](TEXTS))
        name = str(tmp_path / name)
    for load in (check_data, lambda config: load_calibration(None, None, config)):
        with pytest.raises(ConfigError, match=f"{option}={value!r} is for .*, and there is none in .*; leave it out"):
            load(recipe_of(name, **{option: value}))


@pytest.mark.parametrize("encoding", ["", "utf-99", "base64", "a\0b", "undefined", "x" * 500])
def test_an_encoding_that_is_none(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_bytes(as_text(TEXTS))
    with pytest.raises(ConfigError, match="There is no encoding"):
        check_data(recipe_of(tmp_path / "data.txt", encoding=encoding))
