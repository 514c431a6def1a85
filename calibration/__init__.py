"""Normal frames to numbers: networks, adaptation, memory bank, threshold."""
