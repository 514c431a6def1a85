"""The thread that scores frames, and the recipes it scores them by."""
