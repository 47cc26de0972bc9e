"""Trace every request of the gateway as a span: route, status, the version that answered. Plain ASGI."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.telemetry.otel import span


class TracingMiddleware:
    """Wraps requests into spans; does nothing where no tracing was started."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ("/healthz", "/readyz", "/metrics"):
            await self._app(scope, receive, send)
            return
        with span(f"{scope['method']} {scope['path'].split('/')[1] or '/'}") as current:

            async def noting(message: Message) -> None:
                if current is not None and message["type"] == "http.response.start":
                    current.set_attribute("http.response.status_code", message["status"])
                    for name, value in message.get("headers", ()):
                        if name == b"x-ratchet-version":
                            current.set_attribute("ratchet.version", value.decode())
                        elif name == b"x-ratchet-interaction":
                            current.set_attribute("ratchet.interaction", value.decode())
                await send(message)

            await self._app(scope, receive, noting)
            if current is not None:
                route = getattr(scope.get("route"), "path", "other")
                current.update_name(f"{scope['method']} {route}")
                current.set_attribute("http.route", route)
