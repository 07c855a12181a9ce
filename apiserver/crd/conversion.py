"""Conversion by webhook: objects go out in a ConversionReview, many at once, and come back in another version.

What comes back is not trusted: it must be the same object (kind, name, namespace, uid), and of its metadata only labels
and annotations count.
"""

from __future__ import annotations

import base64
import binascii
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from apiserver.webhookclient import WebhookError
from navarch.api.errors import StatusError

Tree = dict[str, Any]
Finish = Callable[[Tree], None]
GROUP = "apiextensions.k8s.io"
SECONDS = 30.0
REVIEWS = ("v1", "v1beta1")


class Caller(Protocol):
    """Sends reviews (:class:`apiserver.webhookclient.WebhookClient`)."""

    async def call(self, config: Tree, review: Tree, seconds: float) -> Tree: ...


class Converter:
    """Converts the objects of one definition, which are stored in the API version ``storage``."""

    def __init__(self, caller: Caller, uid: Callable[[], str], webhook: Tree, storage: str) -> None:
        self.storage = storage
        self.finish: dict[str, Finish] = {}
        """For each API version what prunes an object and gives it its defaults, in place."""
        self._caller, self._uid = caller, uid
        self._client: Tree = webhook["clientConfig"]
        self._version = next((v for v in webhook["conversionReviewVersions"] if v in REVIEWS), "v1")

    async def convert(self, objects: Sequence[Tree], api_version: str) -> list[Tree]:
        """The objects in ``api_version``, in order; those that are in it already are not sent. Raises StatusError (500)."""
        sent = [obj for obj in objects if obj.get("apiVersion") != api_version]
        came = await self._ask(sent, api_version) if sent else []
        rest = iter(came)
        out = [obj if obj.get("apiVersion") == api_version else next(rest) for obj in objects]
        for obj in out:
            self.finish[api_version](obj)
        return out

    async def _ask(self, objects: list[Tree], api_version: str) -> list[Tree]:
        first = objects[0]
        what = f"conversion webhook for {first.get('apiVersion')}, Kind={first.get('kind')}"
        uid = self._uid()
        head = {"kind": "ConversionReview", "apiVersion": f"{GROUP}/{self._version}"}
        request = {"uid": uid, "desiredAPIVersion": api_version, "objects": objects}
        try:
            answer = await self._caller.call(self._client, head | {"request": request}, SECONDS)
            converted = answered(answer, head, uid)
        except WebhookError as error:
            raise _error(f"{what} failed: {str(error).removeprefix('failed to call webhook: ')}") from None
        if len(converted) != len(objects):
            raise _error(f"{what} returned {len(converted)} objects, expected {len(objects)}")
        out = []
        for i, (old, new) in enumerate(zip(objects, converted, strict=True)):
            try:
                out.append(restored(old, new, api_version))
            except ValueError as error:
                raise _error(f"{what} returned invalid converted object at index {i}: {error}") from None
        return out


def _error(text: str) -> StatusError:
    return StatusError(text, code=500)


def answered(answer: Tree, head: Tree, uid: str) -> list[Any]:
    """The converted objects of an answer. Raises WebhookError."""
    strict = head["apiVersion"] == f"{GROUP}/v1"
    got = {"kind": answer.get("kind"), "apiVersion": answer.get("apiVersion")}
    if strict and got != head:
        raise WebhookError(f"expected webhook response of {_shown(head)}, got {_shown(got)}")
    response = answer.get("response")
    if not isinstance(response, dict):
        raise WebhookError("no response provided")
    if strict and response.get("uid") != uid:
        raise WebhookError(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result")
    status = result.get("status") if isinstance(result, dict) else None
    if status != "Success":
        if isinstance(result, dict) and result.get("message"):
            raise WebhookError(str(result["message"]))
        raise WebhookError(f"response.result.status was '{status or ''}', not 'Success'")
    objects = response.get("convertedObjects")
    return objects if isinstance(objects, list) else []


def _shown(head: Tree) -> str:
    return f"{head.get('apiVersion') or ''}, Kind={head.get('kind') or ''}"


def restored(old: Tree, new: Any, api_version: str) -> Tree:
    """The converted object with the metadata of the original, labels and annotations excepted. Raises ValueError."""
    if not isinstance(new, dict):
        raise ValueError("it is no object")
    if new.get("apiVersion") != api_version:
        raise ValueError(f"invalid groupVersion (expected {api_version}, received {new.get('apiVersion') or ''})")
    if new.get("kind") != old.get("kind"):
        raise ValueError(f"invalid kind (expected {old.get('kind')}, received {new.get('kind') or ''})")
    metadata, before = new.get("metadata"), old["metadata"]
    if not isinstance(metadata, dict):
        raise ValueError("metadata must be an object")
    for field in ("name", "namespace", "uid"):
        if (a := before.get(field) or "") != (b := metadata.get(field) or ""):
            raise ValueError(f"must have the same {'UID' if field == 'uid' else field}: {a} != {b}")
    new_metadata = {k: v for k, v in before.items() if k not in ("labels", "annotations")}
    for field in ("labels", "annotations"):
        values = metadata.get(field)
        if values is None:
            continue
        if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
            raise ValueError(f"metadata.{field} must be a map of strings")
        if values:
            new_metadata[field] = values
    return new | {"metadata": new_metadata}


def bundle_problem(conversion: Mapping[str, Any]) -> str:
    """Why the caBundle of a conversion cannot be used; "" if it can, or there is none."""
    bundle = ((conversion.get("webhook") or {}).get("clientConfig") or {}).get("caBundle")
    if not bundle:
        return ""
    try:
        pem = base64.b64decode(bundle, validate=True).decode()
        if not pem.strip() or "BEGIN CERTIFICATE" not in pem:
            return "unable to load root certificates: no valid certificate found"
        ssl.create_default_context(cadata=pem)
    except (binascii.Error, ValueError, ssl.SSLError) as error:
        return f"unable to load root certificates: {error}"
    return ""
