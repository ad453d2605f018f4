"""Getting a token and giving it back.

Owns: these routes. Must never: see a secret key; the client signs, the hub verifies.
"""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter, Request

from guactors import messages as m
from guactors.errors import UsageError
from guactors.security.statements import HELLO_TYPE
from guactors.web import forms
from guactors.web.bearers import Bearers
from guactors.web.gate import bearer_in
from guactors.web.hub_client import Hub

CHALLENGE_SECONDS: Final = 60
"""For which the hub keeps a challenge."""


def auth_routes(hub: Hub, bearers: Bearers) -> APIRouter:
    """Both public routes, and the end of a token."""
    routes = APIRouter(prefix="/auth", tags=["auth"])

    @routes.post("/challenge")
    async def challenge(form: forms.ChallengeForm) -> forms.Challenge:
        """What to sign to get a token."""
        found = await hub.ask(m.AskChallenge(0, form.key), m.ChallengeIs)
        return forms.Challenge(
            nonce=found.nonce.hex(),
            hub=found.hub,
            type=HELLO_TYPE,
            expires_in=CHALLENGE_SECONDS,
        )

    @routes.post("/session", status_code=201)
    async def begin(form: forms.TokenForm) -> forms.Token:
        """A token, for the signed statement."""
        statement = forms.unpack(form.statement, "statement")
        signature = forms.unpack(form.signature, "signature")
        if len(signature) != 64:
            raise UsageError("a signature has 64 bytes")
        found = await hub.ask(m.AskToken(0, statement, signature), m.TokenIs)
        bearers.gave(found.token, found.key, time.monotonic() + found.expires - time.time())
        return forms.Token(token=found.token, expires=forms.moment(found.expires), key=found.key)

    return routes


def token_routes(hub: Hub, bearers: Bearers) -> APIRouter:
    """What only a bearer may do with a token."""
    routes = APIRouter(prefix="/auth", tags=["auth"])

    @routes.delete("/session", status_code=204)
    async def end(request: Request) -> None:
        """The token is good no more."""
        bearer = bearer_in(request.scope)
        await hub.ask(m.DropToken(0, bearer.token), m.Done)
        bearers.drop(bearer.token)

    return routes
