"""Python functions and actors inside an instance: the door out here, the interpreter in there."""
