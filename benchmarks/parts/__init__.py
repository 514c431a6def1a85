"""Single parts of the frame path measured."""
