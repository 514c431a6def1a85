"""What every process of Asperity does at its start and end."""
