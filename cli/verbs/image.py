"""Image verbs: build, import, list, rm. Images belong to a home and are shared by all its labs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cli.common import LabOption, fail, reported
from cli.options import App, Argument, Option
from cli.output.columns import table

app = App()
group = App(help="Build, import and list images; no registry is needed.")
app.add_group(group, "image")

TagOption = Annotated[
    list[str] | None, Option("-t", "--tag", metavar="NAME", help="Name of the image (repeatable).")
]


@group.command("build")
def build(
    context: Annotated[Path, Argument("DIR", help="The build context.")],
    tag: TagOption = None,
    file: Annotated[Path | None, Option("-f", "--file", help="Dockerfile; default: the one in DIR.")] = None,
    build_arg: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="Value of an ARG.")] = None,
    target: Annotated[str, Option(help="Stage to stop at.")] = "",
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print the image's id only.")] = False,
    lab: LabOption = "default",
) -> None:
    """Build an image from a Dockerfile. COPY --from=host takes programs of this machine with their libraries."""
    from lab import images

    arguments = {}
    for pair in build_arg or ():
        name, equals, value = pair.partition("=")
        if not equals:
            fail(f"--build-arg {pair}: say NAME=VALUE")
        arguments[name] = value
    if not tag:
        fail("name the image: navarch image build -t NAME DIR")
    steps = 0

    def log(line: str) -> None:
        nonlocal steps
        steps += 1
        if not quiet:
            print(f"  step {steps}: {line}", file=sys.stderr)

    with reported():
        record = images.build(context, list(tag or ()), file, arguments, target, log)
    if quiet:
        print(record.id)
        return
    for name in tag or ():
        print(f"built {name} ({record.id[:19]}, {megabytes(record.size)})")


@group.command("import")
def import_(
    path: Annotated[Path, Argument("FILE", help="OCI layout (directory or tar) or docker archive.")],
    tag: TagOption = None,
    lab: LabOption = "default",
) -> None:
    """Import an image archive, as docker save or skopeo copy write it."""
    from lab import images

    with reported():
        records = images.load(path, list(tag or ()))
        names = images.store().names()
    for record in records:
        print(f"imported {', '.join(names.get(record.id) or [record.id])}")


@group.command("list")
def list_(
    output: Annotated[str, Option("-o", "--output", help="name, or empty for a table.")] = "",
    lab: LabOption = "default",
) -> None:
    """List the images."""
    from lab import images

    if output not in ("", "name"):
        fail(f'-o {output}: only "name" is known here')
    with reported():
        listed_images = images.listed()
    if output == "name":
        print("\n".join(i.name for i in listed_images))
        return
    table(["IMAGE", "ID", "SIZE"], [[i.name, i.id.removeprefix("sha256:")[:12], megabytes(i.size)] for i in listed_images])


@group.command("rm")
def remove(
    name: Annotated[str, Argument("NAME", help="Name or id.")],
    lab: LabOption = "default",
) -> None:
    """Remove an image that no container uses."""
    from lab import images

    with reported():
        images.remove(name)
    print(f"removed {name}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
