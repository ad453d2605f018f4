"""The seeded simulation: a whole grid in one process, on a virtual clock.

``clock`` and ``flow`` are time and its record · ``network`` links with the promises of
``transport.base`` and the faults these allow · ``hub`` ``provider`` ``caller`` ``worker`` the
shells around the real cores · ``program`` and ``running`` what calls do · ``workload`` what callers
ask for · ``faults`` what goes wrong · ``keys`` who is who where nobody is the local user ·
``ledger`` and ``rest`` what must hold · ``world`` all of it for one seed · ``replay`` seeds and
their stories.

``python -m tests.sim SEED`` replays one seed and prints its flow, with ``--keys`` its grid of keys.
"""
