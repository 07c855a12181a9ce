"""Serves /openapi/v3 (an index and a document a group-version) and /openapi/v2 (one document, as JSON or protobuf).

kubectl learns from them how to apply, explain and validate, and trusts the patch tags: they must be complete. A document
is made when it is first asked for, and again when what it tells of has changed. Only its compressed bytes are kept.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from apiserver.crd.custom import CustomStrategy, definition_name, definitions_of
from apiserver.http.apis import APIs
from apiserver.http.openapi import documents
from apiserver.http.openapi.definitions import META, builtin, names_by_kind
from apiserver.http.openapi.operations import Path, pages, paths_of
from apiserver.offload import LARGE, Offload
from apiserver.registry.deletes import ANSWER_OBJECT
from apiserver.registry.patches import supported
from apiserver.wire.asgi import Headers, Request
from apiserver.wire.negotiation import JSON, clauses
from navarch.api.errors import MethodNotAllowed, NotAcceptable, NotFound
from navarch.api.kinds import Kind

if TYPE_CHECKING:
    from apiserver.http.discovery import Entry
    from apiserver.http.extension import Extension
    from apiserver.registry.strategy import Strategy

log = logging.getLogger(__name__)
Tree = dict[str, Any]
Documents = Mapping[str, Callable[[], Mapping[str, Any]]]  # path -> the JSON document that it answers with
Groups = dict[str, dict[str, list["Entry"]]]

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
V2_OLD_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_ANY = (JSON, "*/*", "application/*")


class Document(NamedTuple):
    """``packed`` is the body, compressed."""

    packed: bytes
    digest: str


@functools.cache
def _source() -> str:
    """A hash of the code and the data that make documents: clients keep a document for as long as its hash is the same."""
    import kubernetes_validate

    files = [f.read_bytes() for f in sorted(File(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join([*files, kubernetes_validate.__version__.encode()])).hexdigest()


@functools.cache
def _names() -> dict[tuple[str, str, str], str]:
    """The definition of each built-in kind. Small, unlike the definitions, which nobody keeps."""
    return names_by_kind(builtin())


class OpenAPI:
    """See the module."""

    def __init__(self, apis: APIs, documents: Documents) -> None:
        self.apis, self.documents = apis, documents
        self._documents: dict[str, Document] = {}  # by path and media type
        self._model: tuple[object, dict[str, Part]] = (None, {})  # made from this discovery
        self._making = asyncio.Lock()

    async def handle(self, request: Request) -> None:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        request.raw = True
        path = request.path.rstrip("/")
        if path == "/openapi/v2":
            return await self._v2(request)
        if path == "/openapi/v3":
            return await self._index(request)
        name = path.removeprefix("/openapi/v3/")
        if (other := self._others().get(name)) is not None:
            return await other.openapi(request)
        model = await self._modelled(request.offload)
        if name == path or name not in model:
            raise NotFound("the server could not find the requested resource")
        self._check_accept(request)
        digest = self.digest(model[name])

        def make() -> bytes:
            return _pack(orjson.dumps(documents.v3(model[name].paths, model[name].custom, builtin())))

        async with self._making:
            cached = self._documents.get(name)
            if cached is None or cached.digest != digest:
                cached = self._documents[name] = Document(await request.offload(LARGE, make), digest)
        headers: Headers = []
        if request.query.get("hash") == digest:
            headers.append((b"cache-control", b"public, immutable"))
        await self._reply(request, cached, JSON, headers)

    async def _index(self, request: Request) -> None:
        self._check_accept(request)
        model = await self._modelled(request.offload)
        paths = {}
        for name in sorted(model):
            # The hash of what goes in, not of what comes out: the index must not make every document.
            paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={self.digest(model[name])}"}
        for name, other in self._others().items():
            if url := other.openapi_url():
                paths[name] = {"serverRelativeURL": url}
        data = orjson.dumps({"paths": paths})
        digest = hashlib.sha256(data).hexdigest().upper()
        await self._reply(request, Document(_pack(data), digest), JSON, [])

    def _others(self) -> dict[str, Extension]:
        """The extensions that answer for a document of v3 in our place."""
        return {f"apis/{group}/{version}": e for (group, version), e in self.apis.extensions.items()}

    async def _v2(self, request: Request) -> None:
        for media_type, _ in clauses(request.header(b"accept") or JSON):
            if media_type in (V2_PROTOBUF, V2_OLD_PROTOBUF):
                # Asked for with an "@", answered without: Go cannot parse a Content-Type that has one.
                return await self._reply(request, await self._all(V2_PROTOBUF, request.offload), V2_PROTOBUF, [])
            if media_type in _ANY:
                return await self._reply(request, await self._all(JSON, request.offload), JSON, [])
        raise NotAcceptable(f"only the following media types are accepted: {JSON}, {V2_PROTOBUF}")

    async def _all(self, media_type: str, offload: Offload) -> Document:
        """The document of everything. It takes half a second to make."""
        model = await self._modelled(offload)
        others = [e.openapi_v2() for e in self._others().values()]
        inputs = [*(self.digest(m) for m in model.values()), *(digest_ for digest_, _ in others)]
        digest = hashlib.sha512("".join(inputs).encode()).hexdigest()[:64].upper()
        async with self._making:
            cached = self._documents.get(media_type)
            if cached is None or cached.digest != digest:
                make = functools.partial(_make_v2, list(model.values()), media_type, [tree for _, tree in others if tree])
                packed = await offload(LARGE, make)
                cached = self._documents[media_type] = Document(packed, digest)
        return cached

    def _check_accept(self, request: Request) -> None:
        header = request.header(b"accept")
        if header and not any(m in _ANY for m, _ in clauses(header)):
            raise NotAcceptable(f"only the following media types are accepted: {JSON}")

    async def _reply(self, request: Request, document: Document, media_type: str, headers: Headers) -> None:
        etag = f'"{document.digest}"'
        headers = [(b"etag", etag.encode()), (b"vary", b"Accept, Accept-Encoding"), *headers]
        etags = [tag.strip().removeprefix("W/") for tag in request.header(b"if-none-match").split(",")]
        if etag in etags or "*" in etags:
            return await request.reply(304, b"", media_type.encode(), headers)
        body = document.packed
        if "gzip" in request.header(b"accept-encoding"):
            headers.append((b"content-encoding", b"gzip"))
        else:
            body = gzip.decompress(body)
        await request.reply(200, body, media_type.encode(), headers)

    # What there is to tell

    async def _modelled(self, offload: Offload) -> dict[str, Part]:
        """The contents of each document of v3, by its path: ``api/v1``, ``apis/apps/v1``, ``version`` and so on.

        Made beside the loop, with the imports and hashes that the first one needs.
        """
        if self._model[0] is self.apis.discovery:
            return self._model[1]
        async with self._making:
            discovery = self.apis.discovery
            if self._model[0] is not discovery:
                self._model = discovery, await offload(LARGE, self._parts, discovery.groups)
                await offload(LARGE, _source)
            return self._model[1]

    def _parts(self, groups: Groups) -> dict[str, Part]:
        out: dict[str, Part] = {}
        for group, versions in groups.items():
            for version, entries in versions.items():
                part = out[f"apis/{group}/{version}" if group else f"api/{version}"] = Part([], {}, [])
                for entry in entries:
                    self._add(part, entry)
        own = {f"apis/{kind[0]}" for kind in _names()}  # a group of custom resources has no document of its own
        for name, paths in pages(groups, self.documents).items():
            if name in out or name in own or name.count("/") != 1 or not name.startswith("apis/"):
                out.setdefault(name, Part([], {}, [])).paths.extend(paths)
        return out

    def _add(self, part: Part, entry: Entry) -> None:
        kind = entry.kind
        strategy = self._strategy(entry)
        listed = _names().get((kind.group, kind.version, kind.list_kind), META + "Status")
        own = ""
        if isinstance(strategy, CustomStrategy):
            part.custom.update(definitions_of(strategy))
            part.inputs.append(strategy.fingerprint)
            own, listed = definition_name(kind, kind.kind), definition_name(kind, kind.list_kind)

        def definition(of: Kind) -> str:
            return own if own and of == kind else _names().get((of.group, of.version, of.kind), "")

        patches = supported(strategy.strategic_patch) if strategy else ()
        returned = (kind.group, kind.resource) in ANSWER_OBJECT
        part.paths.extend(paths_of(entry, definition, listed, patches, returned))
        part.inputs.append([kind.resource, entry.verbs, [(s.name, s.kind.kind, s.verbs) for s in entry.subs], patches])

    def _strategy(self, entry: Entry) -> Strategy | None:
        kind = entry.kind
        resource = self.apis.resources.served.get((kind.group, kind.version, kind.resource))
        return resource.strategy if resource else None

    def digest(self, part: Part) -> str:
        """Changes whenever the document would."""
        paths = [p.path for p in part.paths]
        return hashlib.sha512(orjson.dumps([_source(), paths, part.inputs])).hexdigest()[:64].upper()


class Part(NamedTuple):
    """The contents of one document of v3. ``custom``: definitions; ``inputs``: what changes when the document does."""

    paths: list[Path]
    custom: dict[str, Tree]
    inputs: list[Any]


def _pack(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def _make_v2(parts: list[Part], media_type: str, others: list[Tree]) -> bytes:
    """``others``: the parts of other servers. They are left out if protobuf cannot carry what they say."""
    custom: dict[str, Tree] = {}
    for part in parts:
        custom |= part.custom
    own = documents.v2([path for part in parts for path in part.paths], custom, builtin())
    tree = own
    for other in others:
        # Definitions of Kubernetes' own types are everywhere the same.
        definitions = other["definitions"] | own["definitions"]
        tree = tree | {"paths": tree["paths"] | other["paths"], "definitions": definitions | tree["definitions"]}
    if media_type == JSON:
        return _pack(orjson.dumps(tree))
    from apiserver.http.openapi import gnostic

    try:
        return _pack(gnostic.document(tree))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if tree is own:
            raise
        log.warning("the OpenAPI v2 document of another server is left out: %s", error)
        return _pack(gnostic.document(own))
