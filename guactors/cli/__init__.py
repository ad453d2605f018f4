"""The ``gu`` command: a thin door to what programs can do too.

Owns: words on the terminal and exit statuses. Must never: hold a decision that the Python interface
lacks. Only this package and the examples import typer and rich.
"""
