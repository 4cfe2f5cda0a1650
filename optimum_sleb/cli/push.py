"""`optimum-cli sleb push`."""

import json
from argparse import ArgumentParser
from pathlib import Path

from optimum.commands.base import BaseOptimumCLICommand

from .common import add_card_arguments, exit_on_known_errors, keep_transformers_quiet
from .describe import describe
from .printing import add_printing_arguments, printing

_SENTENCE = """Upload the folder of a pruned model to the Hub, in one commit. The token is that
of `hf auth login`, or HF_TOKEN."""
_EXAMPLES = (
    ("To your own repository, which is made if need be.", "push --folder smaller --repo me/smollm2-sleb-20"),
    (
        "Of a model that was pruned from a local file: what the card should say of its origin.",
        "push --folder smaller --repo me/smaller --license apache-2.0 --base-model org/dense --language en",
    ),
    ("As a pull request.", "push --folder smaller --repo org/smaller --create-pr"),
)


class PushCommand(BaseOptimumCLICommand):
    """Command that uploads a saved folder; the token comes from `hf auth login` or `HF_TOKEN`."""

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        describe(parser, _SENTENCE, "push --folder DIR --repo REPO [options]", _EXAMPLES)
        what = parser.add_argument_group("what, and where to")
        what.add_argument("--folder", required=True, metavar="DIR", help="Folder that prune, remove or heal wrote.")
        what.add_argument("--repo", required=True, help="Repository on the Hub, such as me/smollm2-sleb-20.")
        what.add_argument("--private", action="store_true", help="Make a new repository private.")
        how = parser.add_argument_group("commit")
        how.add_argument(
            "--revision", metavar="BRANCH", help="Branch to push to, made if it does not exist (default: main)."
        )
        how.add_argument("--create-pr", action="store_true", help="Open a pull request instead.")
        how.add_argument("--commit-message", metavar="TEXT", help="Message of the commit.")
        how.add_argument("--commit-description", metavar="TEXT", help="More about the commit, below its message.")
        card = parser.add_argument_group("card on the Hub")
        card.add_argument("--tags", nargs="+", metavar="TAG", help="Tags beside those of the method.")
        add_card_arguments(card)
        add_printing_arguments(parser)

    def run(self) -> None:
        """Run the command."""
        with exit_on_known_errors("push"), printing(self.args):
            from ..card.base_card import given_fields

            args = self.args
            fields = given_fields(args.license, args.base_model, args.language)
            from ..hub.push import push_folder

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
                fields=fields,
            )
            print(json.dumps({"commit": address}) if args.json else f"pushed to {address}")
