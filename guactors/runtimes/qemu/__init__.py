"""Images in virtual machines: :class:`~guactors.runtimes.qemu.driver.QemuRuntime`."""
