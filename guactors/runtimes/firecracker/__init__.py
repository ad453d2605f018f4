"""Machines of Firecracker: :class:`~guactors.runtimes.firecracker.driver.FirecrackerRuntime`."""
