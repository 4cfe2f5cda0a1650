"""Choose the blocks by the answers to multiple-choice questions, instead of the loss on text.

    python examples/prune_for_multiple_choice.py MODEL ROWS OUTPUT [--num-blocks 3] [--letters A B C D]

ROWS is a .jsonl file of {"question": "...", "choices": ["...", "..."], "answer": 1}, where the answer counts from 0.
Test on other rows than those that the blocks were chosen on.
"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from optimum_sleb import SLEBConfig, SLEBPruner


class SoftErrors:
    """A criterion: about 0 for an answer that is clearly right, 1 for one that is clearly wrong.

    Counting wrong answers would be the same for many blocks; how far the right letter is ahead seldom is.
    """

    def __init__(self, letters: list[int]) -> None:
        self.letters = torch.tensor(letters)  # token ids

    def __call__(self, logits: Tensor, batch: Any) -> Tensor:
        """Return a loss of each row, (batch,)."""
        return torch.sigmoid(-self.leads(logits, batch.targets))

    def leads(self, logits: Tensor, targets: Tensor) -> Tensor:
        """By how much the logit of the right letter is above the best other one, (batch,)."""
        letters = self.letters.to(logits.device)
        rows, asked = torch.arange(len(targets)), (targets >= 0).int().argmax(dim=1)  # one position a row has a target
        scores = logits[rows, asked][:, letters].float()
        is_right = targets[rows, asked][:, None] == letters
        return scores[is_right] - scores.masked_fill(is_right, -torch.inf).amax(dim=1)


def rows_of(file: Path, tokenizer: Any, letters: list[str]) -> Dataset:
    """Questions with their answers as token ids, of which only the letter at the end is a label."""
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        choices = [f"{letter}. {choice}" for letter, choice in zip(letters, row["choices"], strict=False)]
        prompt = tokenizer("\n".join([row["question"], *choices, "Answer:"])).input_ids
        answer = tokenizer(f" {letters[row['answer']]}", add_special_tokens=False).input_ids[-1]
        rows.append({"input_ids": [*prompt, answer], "labels": [-100] * len(prompt) + [answer]})
    rows.sort(key=lambda row: len(row["input_ids"]))  # rows of one length go through the model together
    return Dataset.from_list(rows)


@torch.no_grad()
def accuracy(pruner: SLEBPruner, rows: Dataset, criterion: SoftErrors) -> float:
    """Share of the questions whose right letter is ahead."""
    right = 0
    for row in rows:
        logits = pruner.model(torch.tensor([row["input_ids"]]).to(pruner.model.device)).logits
        targets = torch.tensor([[*row["labels"][1:], -100]])
        right += int(criterion.leads(logits, targets.to(logits.device)) > 0)
    return right / len(rows)


def main() -> None:
    """Choose the blocks, remove them, and save the model."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("rows", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--num-blocks", type=int, default=3)
    parser.add_argument("--letters", nargs="+", default=["A", "B", "C", "D"])
    arguments = parser.parse_args()

    pruner = SLEBPruner.from_pretrained(arguments.model, dtype="auto", device_map="auto")
    rows = rows_of(arguments.rows, pruner.tokenizer, arguments.letters)
    letters = [pruner.tokenizer(f" {one}", add_special_tokens=False).input_ids[-1] for one in arguments.letters]
    criterion = SoftErrors(letters)
    before = accuracy(pruner, rows, criterion)
    config = SLEBConfig(num_blocks_to_remove=arguments.num_blocks, loss="labels")
    pruner.prune(config, calibration=rows, criterion=criterion)
    print(pruner.report.summary())
    print(f"accuracy: {before:.3f} before, {accuracy(pruner, rows, criterion):.3f} after, on {len(rows)} questions")
    pruner.save_pretrained(arguments.output)


if __name__ == "__main__":
    main()
