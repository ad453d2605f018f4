"""Containers of a Docker Engine or what speaks like one: ``driver.DockerRuntime``."""
