"""`python -m optimum_sleb prune ...` is `optimum-cli sleb prune ...`, in a form that launchers can start.

torchrun --nproc-per-node 8 -m optimum_sleb prune --model MODEL --sparsity 0.2 --output DIR
accelerate launch -m optimum_sleb prune --model MODEL --sparsity 0.2 --output DIR
"""

import os
import sys

from optimum.commands.optimum_cli import main

if __name__ == "__main__":
    together = int(os.environ.get("WORLD_SIZE", "1")) > 1
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    if command != "prune" and together:
        sys.exit(f"optimum-cli sleb {command}: error: only prune is shared by several processes; start one.")
    sys.argv = ["optimum-cli", "sleb", *sys.argv[1:]]
    main()
    if together:
        # All is done and on the disk. A thread of torch.distributed that meets an interpreter which is shutting down
        # can abort the process ("terminate called without an active exception"), and the launcher would tell of a
        # failure.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
