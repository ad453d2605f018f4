"""Deployments over HTTP, at Golem Unlimited's paths: create, list, command, files, remove.

Owns: these routes, and which error is which status here. Must never: do anything in a session
before the hub has said that it is the bearer's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from guactors import messages as m
from guactors.errors import (
    ActorLost,
    AuthFailed,
    GetTimeout,
    GuactorsError,
    ImageRefused,
    InstanceLost,
    SessionClosed,
    TaskError,
    UsageError,
)
from guactors.web import commands
from guactors.web.answers import Refused, refusal_of
from guactors.web.bearers import Bearer
from guactors.web.deployment_forms import Deployment, DeploymentForm, shown
from guactors.web.deputy import Deputies, Kept
from guactors.web.gate import bearer_in
from guactors.web.guard import JSON, RAW, Refusal
from guactors.web.hub_client import Hub
from guactors.web.session_routes import SessionPath, check_own, own_sessions

NodePath = Annotated[str, Path(max_length=256)]
IdPath = Annotated[str, Path(max_length=128, pattern="^[A-Za-z0-9:_-]+$")]
Place = Annotated[str, Query(min_length=1, max_length=4096)]
Packed = Annotated[Literal["raw", "tar"], Query(alias="format")]
AT: str = "/sessions/{session}/peers/{node}/deployments"

_RAW_BODY = {"content": {RAW: {"schema": {"type": "string", "format": "binary"}}}}
_GRACE = 5.0


def keeping_routes(hub: Hub, deputies: Deputies) -> APIRouter:
    """The beginning and the end of one."""
    routes = APIRouter(prefix=AT, tags=["deployments"])

    @routes.post("", status_code=201)
    async def create(
        session: SessionPath,
        node: NodePath,
        form: DeploymentForm,
        request: Request,
        response: Response,
    ) -> str:
        """An instance of an image that is kept until it is deleted or its session ends; its id."""
        bearer = bearer_in(request.scope)
        await check_own(hub, deputies, session, bearer)
        place = await _peer(hub, node)
        image = await _image(hub, bearer, form)
        given = form.env_type, place, form.note or "", form.shape(image), form.given(), form.seconds
        try:
            deputy = await deputies.enter(session, bearer.key)
            kept = await deputies.work(bearer.key, deputy.deploy, *given)
        except GuactorsError as error:
            raise Refused(_refusal(error)) from None
        response.headers["Location"] = f"/sessions/{session}/peers/{node}/deployments/{kept.id}"
        return kept.id

    @routes.delete("/{id}", status_code=204)
    async def remove(session: SessionPath, node: NodePath, id: IdPath, request: Request) -> None:
        """End it, and leave nothing of it."""
        bearer = bearer_in(request.scope)
        kept = await _kept(hub, deputies, session, node, id, bearer)
        deputy = deputies.find(session, bearer.key)
        if deputy is not None:
            await deputies.work(bearer.key, deputy.end, kept, _GRACE)

    return routes


def deployment_routes(hub: Hub, deputies: Deputies) -> APIRouter:
    """Of one session, at one peer."""
    routes = APIRouter(prefix=AT, tags=["deployments"])

    @routes.get("")
    async def listing(session: SessionPath, node: NodePath, request: Request) -> list[Deployment]:
        """Those of the session at the peer."""
        bearer = bearer_in(request.scope)
        await check_own(hub, deputies, session, bearer)
        await _peer(hub, node)
        deputy = deputies.find(session, bearer.key)
        kept = [] if deputy is None else deputy.kept_at(node)
        return await _shown(deputies, bearer, kept)

    @routes.get("/{id}")
    async def show(
        session: SessionPath, node: NodePath, id: IdPath, request: Request
    ) -> Deployment:
        """One of these."""
        bearer = bearer_in(request.scope)
        kept = await _kept(hub, deputies, session, node, id, bearer)
        return await _shown_one(deputies, bearer, kept)

    @routes.patch("/{id}", response_model=list[str])
    async def command(
        session: SessionPath,
        node: NodePath,
        id: IdPath,
        request: Request,
        asked: Annotated[Any, Body()],
    ) -> Response:
        """Commands, done in order: what each answered. Where one fails, its answer is the last
        one, the status 500, and ``x-processing-error`` is set."""
        bearer = bearer_in(request.scope)
        kept = await _kept(hub, deputies, session, node, id, bearer)
        done = commands.parse(asked)
        try:
            told, failed = await deputies.work(bearer.key, commands.run, kept.it, done)
        except GuactorsError as error:
            raise Refused(_refusal(error)) from None
        headers = {"x-processing-error": "1"} if failed else {}
        body = msgspec.json.encode(told)
        return Response(body, 500 if failed else 200, headers, media_type=JSON)

    return routes


def file_routes(hub: Hub, deputies: Deputies) -> APIRouter:
    """What lies in a deployment."""
    routes = APIRouter(prefix=f"{AT}/{{id}}/files", tags=["deployments"])

    @routes.put("", status_code=204, openapi_extra={"requestBody": {**_RAW_BODY, "required": True}})
    async def put(
        session: SessionPath,
        node: NodePath,
        id: IdPath,
        path: Place,
        request: Request,
        packed: Packed = "raw",
    ) -> Response:
        """Write a file, whose directory is made; or unpack a tar into a directory."""
        bearer = bearer_in(request.scope)
        kept = await _kept(hub, deputies, session, node, id, bearer)
        pieces = _incoming(request.stream(), asyncio.get_running_loop())
        try:
            await deputies.work(bearer.key, _write, kept, path, pieces, packed == "tar")
        except ClientDisconnect:
            return Response(status_code=400)  # for nobody
        except GuactorsError as error:
            raise Refused(_refusal(error)) from None
        return Response(status_code=204)

    @routes.get("", response_class=Response, responses={200: _RAW_BODY})
    async def get(
        session: SessionPath,
        node: NodePath,
        id: IdPath,
        path: Place,
        request: Request,
        packed: Packed = "raw",
    ) -> Response:
        """A file; or a tar of a file, or of a directory and all that is in it."""
        bearer = bearer_in(request.scope)
        kept = await _kept(hub, deputies, session, node, id, bearer)
        pieces = kept.it.get(path, tar=packed == "tar")
        try:
            first = await deputies.work(bearer.key, next, pieces, None)
        except GuactorsError as error:
            raise Refused(_refusal(error)) from None
        return StreamingResponse(_outgoing(deputies, bearer, first, pieces), media_type=RAW)

    return routes


def peer_routes(hub: Hub, deputies: Deputies) -> APIRouter:
    """Of all sessions of the bearer, at one peer."""
    routes = APIRouter(prefix="/peers/{node}/deployments", tags=["deployments"])

    @routes.get("")
    async def listing(node: NodePath, request: Request) -> list[Deployment]:
        """The bearer's own at this peer."""
        bearer = bearer_in(request.scope)
        kept = await _at(hub, deputies, node, bearer)
        return await _shown(deputies, bearer, kept)

    @routes.get("/{id}")
    async def show(node: NodePath, id: IdPath, request: Request) -> Deployment:
        """One of these."""
        bearer = bearer_in(request.scope)
        for one in await _at(hub, deputies, node, bearer):
            if one.id == id:
                return await _shown_one(deputies, bearer, one)
        raise _no_such(id)

    return routes


# --- what is there --------------------------------------------------------------------------------


async def _peer(hub: Hub, node: str) -> tuple[str, str]:
    """Id and name of a provider. Raises Refused where there is none."""
    found = await hub.ask(m.AskGrid(0), m.Grid)
    for row in found.info.peers:
        if row.role == "provider" and row.state != "lost" and node in (row.peer, row.name):
            return row.peer, row.name
    detail = f"no provider {node[:100]!r} is connected: see gu peers"
    raise Refused(Refusal(404, "UsageError", "not_found", detail))


async def _image(hub: Hub, bearer: Bearer, form: DeploymentForm) -> str:
    """The image's id, if the bearer may use it."""
    try:
        image = form.image_id()
    except UsageError as error:
        raise Refused(refusal_of(error, 422)) from None
    try:
        await hub.ask_for(bearer.key, m.AskImage(0, image, bearer.token), m.ImageIs)
    except ImageRefused as error:
        raise Refused(refusal_of(error, 424)) from None
    return image


async def _kept(
    hub: Hub, deputies: Deputies, session: str, node: str, id: str, bearer: Bearer
) -> Kept:
    await check_own(hub, deputies, session, bearer)
    deputy = deputies.find(session, bearer.key)
    found = None if deputy is None else deputy.kept.get(id)
    if found is None or not found.is_at(node):
        raise _no_such(id)
    return found


async def _at(hub: Hub, deputies: Deputies, node: str, bearer: Bearer) -> list[Kept]:
    """What the bearer has at a provider. Raises Refused where there is no such provider."""
    sessions = await own_sessions(hub, deputies, bearer)
    await _peer(hub, node)
    found = [deputies.find(session, bearer.key) for session in sessions]
    return [one for deputy in found if deputy is not None for one in deputy.kept_at(node)]


async def _shown_one(deputies: Deputies, bearer: Bearer, kept: Kept) -> Deployment:
    try:
        return await deputies.work(bearer.key, _look, kept)
    except GuactorsError as error:
        raise Refused(_refusal(error)) from None


async def _shown(deputies: Deputies, bearer: Bearer, kept: list[Kept]) -> list[Deployment]:
    """All of them but those that are gone meanwhile."""
    return await deputies.work(bearer.key, _look_at_all, kept)


def _look(kept: Kept) -> Deployment:
    return shown(kept.id, kept.note, kept.it.facts(), kept.it.programs())


def _look_at_all(kept: list[Kept]) -> list[Deployment]:
    found = []
    for one in kept:
        try:
            found.append(_look(one))
        except (ActorLost, SessionClosed):
            continue
    return found


# --- files ----------------------------------------------------------------------------------------


def _incoming(stream: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """The body of a request, for a thread."""

    async def following() -> bytes | None:
        return await anext(stream, None)

    while (piece := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield piece


def _write(kept: Kept, path: str, pieces: Iterator[bytes], tar: bool) -> None:
    kept.it.put(path, pieces, tar=tar)


async def _outgoing(
    deputies: Deputies, bearer: Bearer, first: bytes | None, pieces: Iterator[bytes]
) -> AsyncIterator[bytes]:
    piece = first
    while piece is not None:
        yield piece
        piece = await deputies.work(bearer.key, next, pieces, None)


# --- what went wrong ------------------------------------------------------------------------------


def _no_such(id: str) -> Refused:
    detail = f"there is no deployment {id} of yours there"
    return Refused(Refusal(404, "UsageError", "not_found", detail))


def _refusal(error: GuactorsError) -> Refusal:
    """What an error of a worker, or of the way there, is here."""
    cause = error.cause if isinstance(error, TaskError) else None
    kind, detail = type(cause or error).__name__, commands.plain(error)
    match error:
        case GetTimeout():
            detail = "no room was free, or the image was not there, in time: try again later"
            return Refusal(409, kind, "capacity", detail)
        case ActorLost() | InstanceLost():
            return Refusal(502, kind, "lost", detail)
        case SessionClosed() | AuthFailed():
            return Refusal(404, kind, "not_found", f"the session is over: {detail}")
        case ImageRefused():
            return refusal_of(error, 424)
        case TaskError():
            return Refusal(500, kind, "", detail)
    return refusal_of(error)
