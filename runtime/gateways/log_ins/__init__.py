"""Who may do what at a gateway, and the check of names and passwords."""
