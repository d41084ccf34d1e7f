"""Who may connect, and what they may touch."""
