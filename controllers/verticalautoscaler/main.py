"""The VerticalPodAutoscaler as a program: ``python -m controllers.verticalautoscaler.main``.

Recommender, updater, and the webhook by which new pods get their requests.
"""

from __future__ import annotations

import argparse
import base64
import ssl
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from controllers import webprocess
from controllers.verticalautoscaler.recommender import PERIOD, Recommender
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.events import EventRecorder
from navarch.client.transport import connect
from navarch.world import World

NAME = "navarch-vpa"
MAX_BYTES = 4 << 20
Tree = dict[str, Any]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    out = argparse.ArgumentParser(
        prog="python -m controllers.verticalautoscaler.main", description="Recommends requests of pods, and sets them."
    )
    out.add_argument("--kubeconfig", required=True, help="how to reach the API server")
    out.add_argument("--host", default="127.0.0.1")
    out.add_argument("--port", type=int, required=True, help="where the webhook listens")
    out.add_argument("--tls-cert-file", required=True)
    out.add_argument("--tls-private-key-file", required=True)
    out.add_argument("--period", type=float, default=PERIOD, help="seconds between two looks")
    return out.parse_args(argv)


def reviewed(recommender: Recommender, review: Any) -> Tree:
    """The AdmissionReview that answers one. Raises KeyError, TypeError, AttributeError for what is none."""
    request = review["request"]
    response: Tree = {"uid": request["uid"], "allowed": True}
    if request["operation"] == "CREATE" and (request.get("kind") or {}).get("kind") == "Pod":
        patch = recommender.patch_for(request["object"], request.get("namespace") or "")
        if patch:
            text = base64.b64encode(msgspec.json.encode(patch)).decode()
            response |= {"patchType": "JSONPatch", "patch": text}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def application(recommender: Recommender) -> web.Application:
    async def mutate(request: web.Request) -> web.StreamResponse:
        try:
            return web.json_response(reviewed(recommender, msgspec.json.decode(await request.read())))
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
            raise web.HTTPBadRequest(text=f"not an AdmissionReview: {error!r}"[:200]) from None

    out = web.Application(client_max_size=MAX_BYTES)
    out.router.add_post("/mutate", mutate)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)

    async def body(world: World) -> None:
        client = Client(connect(kubeconfig.load(options.kubeconfig)), world, NAME)
        events = EventRecorder(client, world, "vpa-updater")
        recommender = Recommender(client, world, events, options.period)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.tls_cert_file, options.tls_private_key_file)
        tasks = {"events": events.run(), "recommender": recommender.run()}
        await webprocess.serve(options, world, client, application(recommender), context, tasks)

    return webprocess.run(body)


if __name__ == "__main__":
    raise SystemExit(main())
