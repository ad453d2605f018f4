"""Sessions over HTTP.

Owns: these routes. Must never: tell anybody of sessions that the hub does not show him.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Path, Request, Response

from guactors import messages as m
from guactors.errors import UsageError
from guactors.looking import Ask
from guactors.web import forms
from guactors.web.answers import Refused, refusal_of
from guactors.web.bearers import Bearer
from guactors.web.deputy import Deputies
from guactors.web.gate import bearer_in
from guactors.web.hub_client import Hub

SessionPath = Annotated[str, Path(max_length=64)]
T = TypeVar("T")


def session_routes(hub: Hub, deputies: Deputies) -> APIRouter:
    """Reserve, sign, list, close."""
    routes = APIRouter(prefix="/sessions", tags=["sessions"])

    @routes.post("", status_code=201)
    async def reserve(
        form: forms.SessionForm, request: Request, response: Response
    ) -> forms.Reserved:
        """A new session; its id is to be joined by programs of the same key."""
        token = bearer_in(request.scope).token
        until = time.time() + form.seconds
        done = await hub.ask(m.ReserveSession(0, token, form.name, form.seconds), m.Done)
        response.headers["Location"] = f"/sessions/{done.text}"
        return forms.Reserved(id=done.text, expires=forms.moment(until))

    @routes.get("")
    async def listing(request: Request) -> list[forms.Session]:
        """The bearer's sessions; of an administrator, all."""
        return [_session(row) for row in await _rows(hub, request)]

    @routes.get("/{session}")
    async def show(session: SessionPath, request: Request) -> forms.Session:
        """One of these."""
        for row in await _rows(hub, request):
            if row.session == session:
                return _session(row)
        raise Refused(refusal_of(UsageError("no such session of yours is open"), 404))

    @routes.post("/{session}/warrant", status_code=204)
    async def sign(session: SessionPath, form: forms.TokenForm, request: Request) -> None:
        """Show providers whose session it is: those that do not take the hub's word run nothing
        of it before. The statement is that of a caller in this session, for no link and no
        nonce."""
        statement = forms.unpack(form.statement, "statement")
        signature = forms.unpack(form.signature, "signature")
        if len(signature) != 64:
            raise UsageError("a signature has 64 bytes")
        token = bearer_in(request.scope).token
        try:
            await hub.ask(m.SignSession(0, token, session, statement, signature), m.Done)
        except UsageError as fault:
            raise Refused(refusal_of(fault, 404)) from None

    @routes.delete("/{session}", status_code=204)
    async def close(session: SessionPath, request: Request) -> None:
        """End it, and what runs in it."""
        token = bearer_in(request.scope).token
        try:
            await hub.ask(m.CloseSession(0, session, token), m.Done)
        except UsageError as fault:
            raise Refused(refusal_of(fault, 404)) from None
        await deputies.leave(session)

    return routes


async def ask_in(
    hub: Hub, deputies: Deputies, session: str, request: Request, question: Callable[[Ask], T]
) -> T:
    """The answer to a question of the grid, asked in the bearer's own session."""
    bearer = bearer_in(request.scope)
    await check_own(hub, deputies, session, bearer)
    deputy = await deputies.enter(session, bearer.key)
    return await deputies.work(bearer.key, question, deputy.ask)


async def check_own(hub: Hub, deputies: Deputies, session: str, bearer: Bearer) -> None:
    """Raises Refused unless the bearer's own session of that id is open; an administrator's rights
    make no other session his."""
    if session not in await own_sessions(hub, deputies, bearer):
        raise Refused(refusal_of(UsageError("no such session of yours is open"), 404))


async def own_sessions(hub: Hub, deputies: Deputies, bearer: Bearer) -> list[str]:
    """The open sessions of the bearer's key; all others of it are left."""
    found = await hub.ask(m.AskSessions(0, bearer.token), m.SessionList)
    own = [row.session for row in found.sessions if row.principal == bearer.key]
    await deputies.keep_only(bearer.key, own)
    return own


async def _rows(hub: Hub, request: Request) -> list[m.SessionRow]:
    found = await hub.ask(m.AskSessions(0, bearer_in(request.scope).token), m.SessionList)
    return found.sessions


def _session(row: m.SessionRow) -> forms.Session:
    return forms.Session(
        id=row.session,
        principal=row.principal,
        name=row.name,
        callers=row.callers,
        created=forms.moment(time.time() - row.age),
    )
