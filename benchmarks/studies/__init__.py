"""Questions with a page of their own; the code goes when they are answered."""
