"""Image verbs: build, pull, push, load, save, list, rm, prune. Images belong to a home and are shared by all its labs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli.common import LabOption, Progress, fail, reported
from cli.options import App, Argument, Option
from cli.output.columns import table

if TYPE_CHECKING:
    from nodeagent.images.pull import Progress as Transfer
    from nodeagent.images.store import Record

app = App()
group = App(help="Build, pull, push, load, save and list images.")
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
    """Import an image archive, as docker save, podman save or skopeo copy write it."""
    from lab import images

    with reported():
        _print_records(images.load(path, list(tag or ())), "imported")


@group.command("load")
def load(
    what: Annotated[str, Argument("FILE|NAME", help="An archive, - for standard input, or an image of docker or podman.")],
    tag: TagOption = None,
    lab: LabOption = "default",
) -> None:
    """Load an image from an archive, standard input, or docker or podman, for all nodes."""
    from lab import images

    with reported():
        _print_records(images.load_anything(what, list(tag or ()), sys.stdin.buffer), "loaded")


def _print_records(records: list[Record], verb: str) -> None:
    from lab import images

    names = images.store().names()
    for record in records:
        print(f"{verb} {', '.join(names.get(record.id) or [record.id])}")


@group.command("save")
def save(
    name: Annotated[list[str], Argument("NAME...", help="Names or ids.")],
    output: Annotated[Path | None, Option("-o", "--output", metavar="FILE", help="Default: standard output.")] = None,
    lab: LabOption = "default",
) -> None:
    """Save images to an archive that docker, podman and skopeo read, too."""
    from lab import images

    if output is None and sys.stdout.isatty():
        fail("an archive is nothing for a terminal; say where to: -o FILE")
    with reported():
        if output is None:
            images.save(name, sys.stdout.buffer)
            return
        if output.exists() and not output.is_file():  # a pipe or device, whose place no file may take
            with output.open("wb") as file:
                images.save(name, file)
            return
        temporary = output.with_name(output.name + ".new")
        try:
            with temporary.open("wb") as file:
                images.save(name, file)
            temporary.rename(output)
        finally:
            temporary.unlink(missing_ok=True)
    print(f"saved {', '.join(name)} to {output}", file=sys.stderr)


@group.command("pull")
def pull(
    name: Annotated[str, Argument("NAME", help="Such as nginx, quay.io/org/app:v1 or NAME@sha256:...")],
    lab: LabOption = "default",
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print the image's id only.")] = False,
) -> None:
    """Pull an image from its registry, for all nodes of all labs."""
    from lab import images

    progress = Progress(quiet)
    with reported(progress):
        progress(f"pulling {name}")
        record = images.pull(name, lab, lambda state: progress.detail(_far(state)))
    print(record.id if quiet else f"pulled {name} ({record.id[:19]}, {megabytes(record.size)})")


@group.command("push")
def push(
    name: Annotated[str, Argument("NAME", help="An image of this home, by name or id.")],
    target: Annotated[str, Argument("[TARGET]", help="Its name at the registry, such as localhost:5000/app:v1.")] = "",
    lab: LabOption = "default",
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print the digest only.")] = False,
) -> None:
    """Push an image to a registry; the lab's own is started by: navarch up --registry."""
    from lab import images

    place = target or name
    progress = Progress(quiet)
    with reported(progress):
        progress(f"pushing {place}")
        digest = images.push(name, place, lab, lambda state: progress.detail(_far(state)))
    print(digest if quiet else f"pushed {place} ({digest})")


def _far(state: Transfer) -> str:
    """How far a transfer is, such as ``12.5 of 70.1 MB, 2 of 7 layers``."""
    return f"{state.done / 1e6:.1f} of {megabytes(state.total)}, {state.ready} of {state.layers} layers"


@group.command("prune")
def prune(
    everything: Annotated[bool, Option("--all", "-a", help="Also images that have a name.")] = False,
    lab: LabOption = "default",
) -> None:
    """Remove images without a name that no container uses, and what broken pulls left."""
    from lab import images
    from navarch.world import RealWorld

    with reported():
        removed, freed = images.prune(everything, RealWorld(brief=True).now())
    for name in removed:
        print(f"removed {name}")
    print(f"{megabytes(freed)} freed" + ("" if everything else "; with --all, unused images that have a name go, too"))


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
    name: Annotated[list[str], Argument("NAME...", help="Names or ids.")],
    lab: LabOption = "default",
) -> None:
    """Remove images that no container uses, with all their names."""
    from lab import images

    for each in name:
        with reported():
            images.remove(each)
        print(f"removed {each}")


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
