"""Run `optimum-cli sleb prune ...` in several processes, started by torchrun or `accelerate launch`.

torchrun --nproc-per-node 8 -m optimum_sleb prune --model MODEL --sparsity 0.2 --output DIR
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
        # All work is done and on the disk. While the interpreter shuts down, a thread of torch.distributed can abort
        # the process ("terminate called without an active exception"), and the launcher would report a failure.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
