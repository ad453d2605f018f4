"""``runtime_env``: what a task or actor finds when it begins. ``description`` is what it is,
``options`` how a user says it, ``packing`` how files come to travel.

Owns: nothing but this sentence; import from the modules.
"""
