"""Collect what a Space needs into one folder: this page, the package and the example text.

python examples/space/collect.py FOLDER
hf upload me/shallower FOLDER --repo-type space
"""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def collect(folder: Path) -> None:
    """Write the folder, which must not exist yet."""
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("collect.py", "__pycache__", ".gradio"))
    shutil.copytree(ROOT / "optimum_sleb", folder / "optimum_sleb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(HERE.parent / "data", folder / "data")
    for name in ("model_card_template.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)


if __name__ == "__main__":
    collect(Path(sys.argv[1]))
