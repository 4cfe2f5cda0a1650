"""`optimum-cli sleb push`."""

import json
from argparse import ArgumentParser
from pathlib import Path

from optimum.commands.base import BaseOptimumCLICommand

from .common import exit_on_known_errors, keep_transformers_quiet
from .printing import add_printing_arguments, printing


class PushCommand(BaseOptimumCLICommand):
    """Command that uploads a saved folder; the token comes from `hf auth login` or `HF_TOKEN`."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--folder", required=True, help="Folder that prune or remove wrote.")
        parser.add_argument("--repo", required=True, help="Repository on the Hub, such as me/smollm2-sleb-20.")
        parser.add_argument("--private", action="store_true", help="Make a new repository private.")
        parser.add_argument("--revision", help="Branch to push to, made if it does not exist (default: main).")
        parser.add_argument("--create-pr", action="store_true", help="Open a pull request instead.")
        parser.add_argument("--commit-message", help="Message of the commit.")
        add_printing_arguments(parser)
        parser.add_argument("--commit-description", help="More about the commit, below its message.")
        parser.add_argument("--tags", nargs="+", help="Tags for the card on the Hub, beside those of the method.")

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("push"), printing(self.args):
            from ..hub.push import push_folder

            args = self.args
            keep_transformers_quiet()
            address = push_folder(
                Path(args.folder),
                args.repo,
                private=args.private or None,
                revision=args.revision,
                create_pr=args.create_pr,
                commit_message=args.commit_message,
                commit_description=args.commit_description,
                tags=args.tags,
            )
            print(json.dumps({"commit": address}) if args.json else f"pushed to {address}")
