"""The caller's thinking: what a process that calls others knows and decides, without any I/O.

``objects`` values and who holds them · ``tasks`` one call's life · ``targets`` a worker as seen
from here · ``leases`` demand, dispatch, pipelining · ``actors`` handles, ordering, restarts ·
``core`` the door: events in, effects out.
"""
