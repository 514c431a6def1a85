"""GenICam cameras, through GenTL producers."""
