"""The HTTP door: REST for who does not speak ZeroMQ. Installed with the extra ``web``.

Owns: the way from HTTP to the hub's messages and back. Must never: decide who may do what (each
request is authorised by the hub, with the bearer's token), unpickle, or serve plain HTTP to other
machines.

It is a process of its own and an ordinary local client of the hub, so that heavy HTTP traffic
cannot slow the scheduler. ``guard``, ``bearers``, ``budget``, ``crowd``, ``pace`` and ``rates``
think without a clock or a socket; ``gate`` and ``connection`` apply them; the routes translate.
"""
