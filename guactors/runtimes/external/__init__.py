"""Drivers that others wrote: executables that speak the protocol of ``docs/drivers.md``."""
