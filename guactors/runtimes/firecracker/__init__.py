"""Machines of Firecracker: ``guests.py`` has the runtime, on the driver of any guest."""
