"""Large values in shared memory, one store per user and machine.

Every process writes into arenas of its own and maps those of the others read-only. What may be
recycled is decided by counts inside a process and by file locks between processes, which the
kernel gives back when a process dies: there is no server to ask, and none that can be lost.
"""
