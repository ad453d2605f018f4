"""What a guest is made of: a kernel, an initramfs, and the agent in it (``make.py``)."""
