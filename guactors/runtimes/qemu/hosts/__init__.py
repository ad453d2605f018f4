"""What driving QEMU needs of this machine's system: a port (``base.py``), and one adapter each."""
