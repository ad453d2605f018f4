"""Who this process is towards a hub: its keys, and which hub it means.

Owns: the way from a key file to what a link needs. Must never: keep a passphrase, or show a secret.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from guactors.config import Identity, Seal
from guactors.messages import Challenge, Hello, Proof


class Credentials(Struct, frozen=True):
    """``identity``: the CURVE pair to dial with; ``seal``: the signing key, empty for a local
    process; ``hub_key``: the hub's public key as the join address names it; ``invitation``: lets a
    key in that the hub does not know yet."""

    identity: Identity = Identity()
    seal: Seal = Seal()
    hub_key: str = ""
    invitation: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.seal.key or 'local'!r}, hub_key={self.hub_key!r})"

    def introduce(self, hello: Hello) -> Hello:
        """``hello`` with the keys in it."""
        return replace(hello, key=self.seal.key, transport=self.identity.client_public)

    def prove(self, hello: Hello, challenge: Challenge, link: str) -> Proof:
        """The answer to a hub's challenge on a link of ours. Raises AuthFailed when it is another
        hub's."""
        from guactors.security.introduction import prove

        return prove(
            challenge,
            hello,
            link,
            self.seal,
            hub_key=self.hub_key,
            invitation=self.invitation,
            now=time.time(),
        )


def from_key_file(path: Path, ask: Callable[[], str] | None = None) -> Credentials:
    """Of a key file. ``ask`` gives the passphrase of a locked one, else GU_PASSPHRASE does. Raises
    UsageError for a file that will not do."""
    from guactors.security.key_files import load_key
    from guactors.security.signing import envelope_text

    key = load_key(path, ask=ask)
    return Credentials(
        Identity(key.transport_public, key.transport_secret),
        Seal(key.public.text, key.secret.text, [envelope_text(one) for one in key.succession]),
    )
