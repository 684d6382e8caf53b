"""What ``fake_jobs`` imports: its text counts for their addresses."""


def doubled(n):
    """Twice the number."""
    return 2 * n
