"""Heal a pruned model by letting it imitate its dense parent: the loss is the divergence of their predictions.

    python examples/distill_from_dense.py FOLDER OUTPUT --dense MODEL [--text FILE] [--test-text FILE] [--steps 150]

FOLDER is what `SLEBPruner.save_pretrained` or `optimum-cli sleb prune` wrote. Worth its time where the text to heal on
is little, or of another kind than the text that the dense model learned: what it says of every token teaches more than
the token alone.
"""

from heal_with_trainer import heal_and_measure, parser_of

parser = parser_of(__doc__)
parser.add_argument("--dense", required=True, help="The dense model, on the Hub or in a folder.")
arguments = parser.parse_args()
heal_and_measure(arguments, "distill", teacher=arguments.dense)
