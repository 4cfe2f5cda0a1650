"""Heal a pruned model with LoRA: PEFT's adapter is trained, merged, and saved with the model as one ordinary model.

    python examples/heal_with_lora.py FOLDER OUTPUT [--text FILE] [--test-text FILE] [--steps 150] [--rank 64]

FOLDER is what `SLEBPruner.save_pretrained` or `optimum-cli sleb prune` wrote. The adapter alone is left in
OUTPUT-adapter; it names FOLDER as its base, for it fits no other model: loaded onto the dense one it would attach its
layers to other blocks, without an error.
"""

from heal_with_trainer import heal_and_measure, parser_of

parser = parser_of(__doc__)
parser.add_argument("--rank", type=int, default=64)
arguments = parser.parse_args()
heal_and_measure(arguments, "lora", rank=arguments.rank, output_dir=f"{arguments.output}-adapter")
