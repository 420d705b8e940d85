"""Options under the names that they had in earlier versions: these still work, but --help does not show them."""

from typing import Any

from typer.core import TyperCommand

#: An option's current name, and its earlier ones.
EARLIER = {
    "--unit": ("--within", "--district"),
    "--operator": ("--by",),
    "--start-from": ("--start",),
    "--format": ("--to",),
    "--identities-per-batch": ("--people",),
    "--pictures-per-identity": ("--pictures",),
}


class Command(TyperCommand):
    """A command that takes its options under their earlier names too."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        for parameter in self.params:
            earlier = [old for name in parameter.opts for old in EARLIER.get(name, ())]
            if earlier:
                current, parameter.opts = parameter.opts, earlier
                parameter.add_to_parser(parser, ctx)
                parameter.opts = current
        return parser
