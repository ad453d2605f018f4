"""How a process proves to a hub who it is.

Owns: the answer to a Challenge. Must never: answer one of another hub than the one it was told to
go to, or read a key file (``credentials`` does).
"""

from __future__ import annotations

from guactors.config import Seal
from guactors.errors import AuthFailed
from guactors.messages import Challenge, Hello, Proof


def prove(
    challenge: Challenge,
    hello: Hello,
    link: str,
    seal: Seal,
    *,
    hub_key: str,
    invitation: str = "",
    now: float,
) -> Proof:
    """The Proof that belongs to ``challenge`` on ``link``. ``hub_key``: the public key of the hub
    we mean to talk to, empty to believe the one that answers (its transport key was checked by the
    handshake); ``now`` in epoch seconds. Raises AuthFailed when another hub asks."""
    from guactors.security.keys import parse_secret
    from guactors.security.statements import HELLO_TYPE, make_statement

    if hub_key and challenge.hub != hub_key:
        raise AuthFailed(
            f"this hub calls itself {challenge.hub or 'nothing'}, and we were told to go to "
            f"{hub_key}: it is not the hub of the join address"
        )
    statement = make_statement(
        hub=challenge.hub,
        key=seal.key,
        link=link,
        nonce=challenge.nonce,
        peer=hello.peer,
        role=hello.role,
        session=hello.session,
        transport=hello.transport,
        at=now,
    )
    signature = parse_secret(seal.secret).sign(HELLO_TYPE, statement)
    return Proof(statement, signature, invitation, list(seal.successions))
