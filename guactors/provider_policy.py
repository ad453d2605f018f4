"""Where the owner of a machine says what may run on it at most.

Owns: which file that is. Must never: judge (``security.policy`` does), or go on with a policy that
cannot be read or fails its own tests.
"""

from __future__ import annotations

from pathlib import Path

from guactors.errors import UsageError
from guactors.security.policy import default_policy, parse_policy, policy_text

POLICY_FILE = "policy.json"


def read_policy(given: Path | None, directory: Path, owner: str) -> bytes:
    """The policy of ``given``, else of ``policy.json`` in ``directory``, else one that takes the
    word of the grid's ``owner`` (public key as text). Raises UsageError for a bad one."""
    path = given or directory / POLICY_FILE
    if given is None and not path.exists():
        return policy_text(default_policy([owner]))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the policy {path} cannot be read: {error.strerror}") from None
    return policy_text(parse_policy(data))
