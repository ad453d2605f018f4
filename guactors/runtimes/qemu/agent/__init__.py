"""What runs inside a guest; ``wire.py`` and ``flow.py`` are of both sides."""
