"""A frame to a judgement, in numpy: points, patches, distances, maps, score and verdict."""
