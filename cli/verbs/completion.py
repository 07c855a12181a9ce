"""Shell completion: ``navarch completion bash`` prints the script; types and names of objects come from the server.

What is asked for at every press of a key must be quick and must never print an error: whatever goes wrong, there is
nothing to complete.
"""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Annotated, Any

from cli.options import App, Argument
from cli.session import Session
from cli.target import Target
from navarch.client.transport import JSON

app = App()

SHELLS = ("bash", "zsh", "fish")
PATIENCE = 2.0  # seconds
PAGE = 500
METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io," + JSON


SCRIPTS = {
    "bash": r"""_navarch() {
    local IFS=$'\n'
    COMPREPLY=($(_NAVARCH_COMPLETE=bash "$1" -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _navarch navarch""",
    "zsh": r"""#compdef navarch
_navarch() {
    local -a found
    found=("${(@f)$(_NAVARCH_COMPLETE=zsh navarch -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n "$found" ]] && compadd -- $found || _files
}
compdef _navarch navarch""",
    "fish": r"""complete -c navarch -f -a '(_NAVARCH_COMPLETE=fish navarch -- (commandline -opc)[2..-1] (commandline -ct))'""",
}


@app.command("completion")
def completion(shell: Annotated[str, Argument("|".join(SHELLS))]) -> None:
    """Print the script for a shell: source <(navarch completion bash)."""
    if shell not in SCRIPTS:
        raise SystemExit(f'error: Unsupported shell type "{shell}".')
    print(SCRIPTS[shell])


def resources(arguments: dict[str, Any], incomplete: str) -> list[str]:
    """Types, or names of objects of the type that comes before; ``arguments`` are the command's parameters so far."""
    from navarch.world import RealWorld

    where = Target(**{field.name: arguments.get(field.name) or "" for field in fields(Target)})
    before = [word for word in arguments.get("resources") or arguments.get("words") or () if word]
    world = RealWorld(brief=True)

    async def body() -> list[str]:
        async with asyncio.timeout(PATIENCE), Session(where, world) as session:
            return await _candidates(session, before, incomplete)

    try:
        return world.run(body)
    except Exception:
        return []


async def _candidates(session: Session, before: list[str], incomplete: str) -> list[str]:
    word, slash, prefix = incomplete.partition("/")
    if slash:
        return [f"{word}/{name}" for name in await _names(session, word) if name.startswith(prefix)]
    if before and "/" not in before[0]:
        return [name for name in await _names(session, before[0]) if name.startswith(incomplete) and name not in before]
    listed = (await session.resources()).listed
    return sorted({r.kind.resource for r in listed if "list" in r.verbs and r.kind.resource.startswith(incomplete)})


async def _names(session: Session, word: str) -> list[str]:
    """The names of a type's objects; only their metadata is asked for."""
    resource = await session.resource(word)
    path = resource.kind.path(session.scope(resource))
    page = await session.client.get_json(path, [("limit", str(PAGE))], METADATA)
    return [item["metadata"]["name"] for item in page.get("items") or ()]
