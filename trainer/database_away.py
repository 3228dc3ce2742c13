"""What ends a long-running process's work while the database is away. Knows no database."""


class Stopping(Exception):
    """The process was told to stop while the database was away: what it claimed is free after its deadline."""
