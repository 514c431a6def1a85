"""What a bundle's method finds, and what it would find by chance: ``asperity evaluate``."""
