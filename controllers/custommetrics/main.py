"""The adapter as a program: ``python -m controllers.custommetrics.main``.

Only the API server, by its front-proxy certificate, is let in: it has authenticated and authorized whoever asks.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Sequence

from aiohttp import web

from controllers import webprocess
from controllers.custommetrics.adapter import PERIOD, Adapter
from navarch.api.errors import MethodNotAllowed, ServiceUnavailable, StatusError, Unauthorized
from navarch.client import kubeconfig
from navarch.client.client import Client
from navarch.client.transport import TransportError, connect
from navarch.world import World

NAME = "navarch-custom-metrics"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    out = argparse.ArgumentParser(
        prog="python -m controllers.custommetrics.main",
        description="Serves custom.metrics.k8s.io and external.metrics.k8s.io from the Prometheus text of pods.",
    )
    out.add_argument("--kubeconfig", required=True, help="how to reach the API server")
    out.add_argument("--host", default="127.0.0.1")
    out.add_argument("--port", type=int, required=True, help="where the APIServices lead")
    out.add_argument("--tls-cert-file", required=True)
    out.add_argument("--tls-private-key-file", required=True)
    out.add_argument("--requestheader-client-ca-file", required=True, help="who signed the front-proxy certificate")
    out.add_argument("--requestheader-allowed-names", default="", help="its common name; default: any")
    out.add_argument("--period", type=float, default=PERIOD, help="seconds between two looks at a pod")
    out.add_argument("--network", action="append", default=[], metavar="CIDR", help="scrape pods with addresses in it only")
    return out.parse_args(argv)


def server_context(options: argparse.Namespace) -> ssl.SSLContext:
    """TLS that lets in who shows a certificate of the front proxy's CA. Raises OSError."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=options.requestheader_client_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.tls_cert_file, options.tls_private_key_file)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def common_name(certificate: object) -> str:
    """Of a verified certificate, as Python's ssl shows it."""
    subject = certificate.get("subject", ()) if isinstance(certificate, dict) else ()
    return next((value for part in subject for key, value in part if key == "commonName"), "")


def application(adapter: Adapter, allowed_name: str) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            certificate = request.transport.get_extra_info("peercert") if request.transport else None
            if allowed_name and common_name(certificate) != allowed_name:
                raise Unauthorized()
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed("the server does not allow this method on the requested resource")
            return web.json_response(await adapter.answer(request.rel_url.raw_path, request.query))
        except TransportError as error:
            return failure(ServiceUnavailable(str(error)))
        except StatusError as error:
            return failure(error)

    out = web.Application()
    out.router.add_route("*", "/{path:.*}", handle)
    return out


def failure(error: StatusError) -> web.Response:
    return web.json_response(error.status(), status=error.http_code)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)

    async def body(world: World) -> None:
        client = Client(connect(kubeconfig.load(options.kubeconfig)), world, NAME)
        adapter = Adapter(client, world, scrapes=True, period=options.period, networks=options.network)
        answers = application(adapter, options.requestheader_allowed_names)
        await webprocess.serve(options, world, client, answers, server_context(options), {"adapter": adapter.run()})

    return webprocess.run(body)


if __name__ == "__main__":
    raise SystemExit(main())
