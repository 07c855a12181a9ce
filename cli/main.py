"""The entry point of ``navarch``."""

from __future__ import annotations

import typer

from cli import images, labs

app = typer.Typer(
    name="navarch",
    help="A Kubernetes-compatible cluster on one machine: real containers, real nodes, in seconds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (labs.app,):
    app.registered_commands += part.registered_commands
    app.registered_groups += part.registered_groups

app.add_typer(images.app, name="image")


def main() -> None:
    app()


if __name__ == "__main__":
    main()
