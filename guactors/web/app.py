"""The application: all routes, and what becomes of errors.

Owns: how the parts are put together. Must never: add a route past the gate.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from guactors.errors import GuactorsError
from guactors.versions import VERSION
from guactors.web import forms
from guactors.web.answers import Refused, body_of, refusal_of
from guactors.web.auth_routes import auth_routes, token_routes
from guactors.web.bearers import Bearers
from guactors.web.complaints import Complaints
from guactors.web.deployment_routes import (
    deployment_routes,
    file_routes,
    keeping_routes,
    peer_routes,
)
from guactors.web.deputy import Deputies
from guactors.web.foresight_routes import foresight_routes
from guactors.web.gate import Gate
from guactors.web.guard import JSON, Refusal
from guactors.web.hub_client import Hub
from guactors.web.image_routes import download_routes, image_routes, upload_routes
from guactors.web.reservation_routes import reservation_routes
from guactors.web.session_routes import session_routes
from guactors.web.settings import Limits

_DESCRIPTION = """\
REST of a guactors hub. Get a token with your key: `POST /auth/challenge`, sign the statement, `POST
/auth/session`; then send `Authorization: Bearer TOKEN` with everything else."""


def make_app(hub: Hub, deputies: Deputies, names: Collection[str], limits: Limits) -> Gate:
    """The ASGI application. ``names``: as ``guard.lower_names`` gives them."""
    bearers = Bearers()
    problems: dict[int | str, dict[str, Any]] = {
        "4XX": {"model": forms.Problem},
        "5XX": {"model": forms.Problem},
    }
    app = FastAPI(
        title="guactors",
        version=VERSION,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=problems,
    )

    @app.get("/health", tags=["health"])
    async def health() -> forms.Health:
        """Whether this server runs."""
        return forms.Health()

    app.include_router(auth_routes(hub, bearers))
    # For the document: the gate has looked at the token long before.
    bearer = [Depends(HTTPBearer(auto_error=False))]
    for routes in (
        token_routes(hub, bearers),
        session_routes(hub, deputies),
        keeping_routes(hub, deputies),
        deployment_routes(hub, deputies),
        file_routes(hub, deputies),
        peer_routes(hub, deputies),
        foresight_routes(hub, deputies),
        reservation_routes(hub, deputies),
        upload_routes(hub),
        image_routes(hub),
        download_routes(hub),
    ):
        app.include_router(routes, dependencies=bearer)
    app.add_exception_handler(GuactorsError, _of_the_hub)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(Exception, _bug)
    return Gate(app, names, limits, bearers, Complaints(hub.tell))


def _answer(refusal: Refusal) -> Response:
    body = msgspec.json.encode(body_of(refusal))
    return Response(body, refusal.status, refusal.headers, media_type=JSON)


async def _of_the_hub(_request: Request, error: Exception) -> Response:
    assert isinstance(error, GuactorsError)
    return _answer(refusal_of(error))


async def _of_the_framework(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return _answer(error.refusal)
    words = {404: "not_found", 405: "method", 400: "malformed"}
    reason = words.get(error.status_code, "")
    headers = dict(error.headers or {})
    return _answer(Refusal(error.status_code, "UsageError", reason, str(error.detail), headers))


async def _malformed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    detail = f"{'.'.join(place)}: {first['msg']}"
    if place[0] == "path":
        return _answer(Refusal(404, "UsageError", "not_found", detail))
    return _answer(Refusal(400, "UsageError", "malformed", detail))


async def _bug(_request: Request, _error: Exception) -> Response:
    # uvicorn logs it with its traceback.
    detail = "our mistake; the log of the server has more"
    return _answer(Refusal(500, "InternalError", "", detail))
