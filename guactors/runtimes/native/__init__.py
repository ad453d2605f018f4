"""Programs of the machine itself: :class:`~guactors.runtimes.native.driver.NativeRuntime`."""
