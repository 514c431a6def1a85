"""What cameras' data become: colour, coordinates, and colour registered to 3D."""
