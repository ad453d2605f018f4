"""What the hub must not forget, on its disk."""
