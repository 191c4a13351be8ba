"""Text to spec: the grammar, the schema table, the checks and the compiler of `.batch` files."""
